"""What more work costs, in time and in memory: `python -m benchmarks.growth`.

Each size is measured in a process of its own, whose peak memory is the point's. It prints the numbers, notes each in
`growth.json` as soon as it is known, and draws all that are there into `growth.png`, so that the panels may be measured
one at a time. Captions, photos and features are drawn; extraction runs a small network, since its own memory and not
the network's is asked for.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks import tasks
from benchmarks.drawn import CAPTIONS_EACH, FEATURE_SIZE, draw_photos

HERE = Path(__file__).parent
SMALL_NETWORK = (96, 1280)  # pixels, length of its vectors


@dataclass(frozen=True)
class Panel:
    """One quantity that grows: `function(size)` of this file gives seconds."""

    function: str
    sizes: tuple[int, ...]
    grows: str
    seconds_of: str
    own_bytes: int = 0  # of the data itself, for each of `grows`


PANELS = (
    Panel("training", (1_000, 10_000, 100_000), "captions", "one epoch", FEATURE_SIZE * 4 // CAPTIONS_EACH),
    Panel("extraction", (1_000, 10_000, 100_000), "photos", "extraction", SMALL_NETWORK[1] * 4),
    Panel("vocabulary", (3_000, 10_000, 30_000), "words in the vocabulary", "one epoch of 2,500 captions"),
    Panel("beam", (1, 2, 3, 5, 10), "captions in the beam", "search for a photo"),
)


def training(captions: int) -> float:
    images = captions // CAPTIONS_EACH
    return tasks.project_epoch(images, vocabulary=3000, epochs=2) * images / tasks.EPOCH


def extraction(photos: int) -> float:
    import keras

    from caption_generator.encoders import Encoder, EncoderRow
    from caption_generator.features import extract_features

    size, length = SMALL_NETWORK
    row = EncoderRow("small", "MobileNetV2", "mobilenet_v2", size, length)
    network = keras.applications.MobileNetV2((size, size, 3), alpha=0.35, include_top=False, weights=None)
    pixels = keras.Input((size, size, 3))
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(network(pixels)))
    encoder = Encoder(row, "avg", model, network, pixels)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn = draw_photos(folder, 100, (200, 150))
        names = [f"{number}.jpg" for number in range(photos)]
        for number, photo in enumerate(names):
            os.link(drawn[number % len(drawn)], folder / photo)
        extract_features(encoder, folder, names[:100], folder / "warm.p")
        return tasks.seconds(lambda: extract_features(encoder, folder, names, folder / "features.p"))


def vocabulary(words: int) -> float:
    images = 500
    return tasks.project_epoch(images, words) * images / tasks.EPOCH


def beam(width: int) -> float:
    return tasks.project_greedy(width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", nargs="+", choices=[panel.function for panel in PANELS])
    parser.add_argument("--sizes", nargs="+", type=int, help="instead of each panel's own")
    parser.add_argument("--out", type=Path, default=HERE / "growth.png", help="the picture")
    parser.add_argument("--measure", nargs=2, metavar=("PANEL", "SIZE"), help="one point, here: seconds and bytes")
    options = parser.parse_args()
    if options.measure:
        from caption_generator.common.console import load_tensorflow

        load_tensorflow()
        seconds = globals()[options.measure[0]](int(options.measure[1]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps([seconds, peak]))
        return
    panels = [panel for panel in PANELS if not options.panels or panel.function in options.panels]
    points = [(panel, size) for panel in panels for size in options.sizes or panel.sizes]
    notes = options.out.with_suffix(".json")
    noted: dict[str, dict[str, list[float]]] = json.loads(notes.read_text()) if notes.is_file() else {}
    for panel, size in tqdm(points, unit="process"):
        command = [sys.executable, "-m", "benchmarks.growth", "--measure", panel.function, str(size)]
        done = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True)
        seconds, memory = noted.setdefault(panel.function, {})[str(size)] = json.loads(done.stdout.splitlines()[-1])
        notes.write_text(json.dumps(noted, indent=2) + "\n")
        tqdm.write(f"{size:8,} {panel.grows:24} {seconds:9.4f} s {memory / 2**30:6.2f} GiB")
    draw({panel: sorted_by_size(noted[panel.function]) for panel in PANELS if panel.function in noted}, options.out)


def sorted_by_size(curve: dict[str, list[float]]) -> dict[int, list[float]]:
    return {int(size): curve[size] for size in sorted(curve, key=int)}


def draw(found: dict[Panel, dict[int, list[float]]], path: Path) -> None:
    """For each panel its time above and its peak memory below, with a line that grows as the work does."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, axes = plt.subplots(2, len(found), figsize=(3.4 * len(found), 5.6), squeeze=False)
    for (above, below), (panel, curve) in zip(axes.T, found.items(), strict=True):
        sizes = list(curve)
        seconds, memory = zip(*curve.values(), strict=True)
        above.plot(sizes, seconds, "o-", color="#3b6ea5", label=panel.seconds_of)
        above.plot(sizes, [seconds[-1] * size / sizes[-1] for size in sizes], ":", color="#8a8a8a", label="linear")
        above.set(xscale="log", yscale="log", title=panel.grows, ylabel="seconds")
        above.set_ylim(top=8 * max(seconds))  # room for the legend
        above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(seconds) < 20 * min(seconds) else (1,)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_formatter("")
        above.legend(loc="upper left", fontsize=9)
        below.plot(sizes, [value / 2**30 for value in memory], "o-", color="#d9822b", label="peak memory")
        if panel.own_bytes:
            without = [value - panel.own_bytes * size for size, value in zip(sizes, memory, strict=True)]
            below.plot(sizes, [value / 2**30 for value in without], ":", color="#d9822b", label="without the features")
        below.set(xscale="log", ylim=(0, 1.4 * max(memory) / 2**30), xlabel=panel.grows, ylabel="GiB")
        below.legend(loc="upper left", fontsize=9)
        for axis in (above, below):
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axis.set_xticks([], minor=True)
    figure.tight_layout()
    figure.savefig(path, dpi=90, metadata={"Software": None})


if __name__ == "__main__":
    main()
