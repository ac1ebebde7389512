"""How long one photo takes after loading, on one core, with beam 3: `python -m benchmarks.one_photo [FOLDER]`.

Ten photos at a time are captioned twice: by the encoder and the decoder as they are trained, and as `Captioner` has
them, with batch norm folded into the convolutions and what a word becomes on its way into the LSTM computed beforehand.
The table gives medians in milliseconds; ranking what was found is part of the search.
"""

import argparse
import os
import time
from pathlib import Path

from caption_generator.common.console import load_tensorflow
from caption_generator.workspace import SAMPLE

GROUP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLE / "Flickr8k_Dataset", help="default: the sample")
    parser.add_argument("--photos", type=int, default=50, help="how many of them (default: 50)")
    parser.add_argument("--beam", type=int, default=3)
    options = parser.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    load_tensorflow()
    import numpy as np

    from caption_generator.captioner import Captioner
    from caption_generator.common.console import progress
    from caption_generator.images import find_pictures, load_pixels
    from caption_generator.search import BeamSearch

    captioner = Captioner.load(beam=options.beam)
    decoder, size = captioner.checkpoint.decoder, captioner.encoder.row.input_size
    as_trained = BeamSearch(decoder, captioner.checkpoint.tokenizer, options.beam)
    ways = {
        "as trained": (captioner.encoder.model.predict_on_batch, as_trained),
        "Captioner": (captioner.encode, captioner.search),
    }
    paths, _ = find_pictures([str(options.folder)])
    paths = paths[: options.photos]
    groups = [paths[:GROUP], *(paths[i : i + GROUP] for i in range(0, len(paths), GROUP))]  # the first to warm up
    times, captions = ({way: [] for way in ways} for _ in range(2))
    for group in progress(groups, desc="Tens of photos"):
        for way, (encode, search) in ways.items():
            for path in group:
                clock = [time.perf_counter()]
                pixels = load_pixels(path, size)[None]
                clock.append(time.perf_counter())
                features = encode(pixels)
                clock.append(time.perf_counter())
                captions[way].append(captioner.rank(features, search(features))[0][0].text)
                clock.append(time.perf_counter())
                times[way].append([*np.diff(clock), clock[-1] - clock[0]])
    differing = sum(one != other for one, other in zip(*captions.values(), strict=True))

    print(f"{'':12}{'read':>9}{'encode':>9}{'search':>9}{'all':>9}")
    medians = {way: 1000 * np.median(rows[len(groups[0]) :], axis=0) for way, rows in times.items()}
    for way, row in medians.items():
        print(f"{way:12}" + "".join(f"{value:9.1f}" for value in row))
    before, after = medians.values()
    print(f"{'ratio':12}" + "".join(f"{value:9.2f}" for value in before / after))
    print(f"{differing} of {len(captions['Captioner'])} captions differ")


if __name__ == "__main__":
    main()
