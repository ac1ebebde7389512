"""How long one photo takes after loading, on one core, with beam 5: `python -m benchmarks.one_photo [FOLDER]`.

Ten photos at a time are captioned three times: by the networks as they are trained; with TensorFlow as `Captioner` runs
a checkpoint, with batch norm folded into the convolutions; and with LiteRT, as it runs an exported model. The table
gives medians in milliseconds; ranking what was found is part of the search.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from caption_generator.common.console import load_tensorflow
from caption_generator.workspace import SAMPLE

GROUP = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=SAMPLE / "Flickr8k_Dataset", help="default: the sample")
    parser.add_argument("--photos", type=int, default=50, help="how many of them (default: 50)")
    parser.add_argument("--beam", type=int, default=5)
    options = parser.parse_args()
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    load_tensorflow()
    import numpy as np

    from benchmarks.engines import copy_models
    from caption_generator.captioner import Captioner
    from caption_generator.common.console import progress
    from caption_generator.images import find_pictures, load_pixels

    with tempfile.TemporaryDirectory() as folder:
        captioners = {name: Captioner.load(path, options.beam) for name, path in copy_models(Path(folder)).items()}
    keras = captioners["TensorFlow"]
    as_trained = keras.engine.encoder.model.predict_on_batch
    ways = {"as trained": (as_trained, keras)} | {name: (c.engine.encode, c) for name, c in captioners.items()}
    size = keras.engine.input_size
    paths, _ = find_pictures([str(options.folder)])
    paths = paths[: options.photos]
    groups = [paths[:GROUP], *(paths[i : i + GROUP] for i in range(0, len(paths), GROUP))]  # the first to warm up
    times, captions = ({way: [] for way in ways} for _ in range(2))
    for group in progress(groups, desc="Tens of photos"):
        for way, (encode, captioner) in ways.items():
            for path in group:
                clock = [time.perf_counter()]
                pixels = load_pixels(path, size)[None]
                clock.append(time.perf_counter())
                features = encode(pixels)
                clock.append(time.perf_counter())
                captions[way].append(captioner.rank(features, captioner.search(features))[0][0].text)
                clock.append(time.perf_counter())
                times[way].append([*np.diff(clock), clock[-1] - clock[0]])

    print(f"{'':12}{'read':>9}{'encode':>9}{'search':>9}{'all':>9}{'differ':>9}")
    for way, rows in times.items():
        medians = 1000 * np.median(rows[len(groups[0]) :], axis=0)
        pairs = list(zip(captions[way], captions["TensorFlow"], strict=True))[len(groups[0]) :]
        differing = sum(one != other for one, other in pairs)
        print(f"{way:12}" + "".join(f"{value:9.1f}" for value in medians) + f"{differing:9}")
    print(f"in milliseconds; the last column counts captions that differ from TensorFlow's, of {len(paths)} photos")


if __name__ == "__main__":
    main()
