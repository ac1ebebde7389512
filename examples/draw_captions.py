"""Caption some examples and draw them as one picture, `models/captions.jpg`.

    python examples/draw_captions.py cat.jpg cow.jpg --wrong raccoon.jpg

A person judges whether a caption is true. The photos after `--wrong` get a red frame.
"""

import argparse
import sys
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # so that it runs from a bare clone

from caption_generator.captioner import Captioner  # noqa: E402 (after the path)

RED, BLACK = "#b3261e", "#1f1f1f"
COLUMNS, TILE = 4, (360, 270)  # pixels


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("right", nargs="+", help="photos whose captions are true")
    parser.add_argument("--wrong", nargs="+", default=[], help="photos whose captions are false")
    options = parser.parse_args()
    names = [*options.right, *options.wrong]
    results = list(Captioner.load().caption_files([HERE / name for name in names]))
    rows = -(-len(results) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(3.6 * COLUMNS, 3.4 * rows), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, result in zip(axes.flat, results, strict=False):
        is_wrong = result.path.name in options.wrong
        tile = ImageOps.fit(Image.open(result.path).convert("RGB"), TILE)
        if is_wrong:
            tile = ImageOps.expand(ImageOps.fit(tile, (TILE[0] - 16, TILE[1] - 16)), 8, RED)
        axis.imshow(tile)
        text = fill(("wrong: " if is_wrong else "") + result.best.text, 34)
        axis.text(0, TILE[1] + 12, text, va="top", fontsize=12.5, family="serif", color=RED if is_wrong else BLACK)
        print(f"{result.best.score:.2f}  {result.path.name}: {result.best.text}")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.99, bottom=0.07, wspace=0.06, hspace=0.32)
    figure.savefig(HERE.parent / "models" / "captions.jpg", dpi=100, pil_kwargs={"quality": 85, "optimize": True})


if __name__ == "__main__":
    main()
