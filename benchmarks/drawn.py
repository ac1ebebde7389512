"""Captions and photos of the shape of Flickr8k's, drawn at random, so that the benchmarks run in any checkout."""

from pathlib import Path

import numpy as np
from PIL import Image

CAPTIONS_EACH = 5
FEATURE_SIZE = 2048  # Xception's
LONGEST = 34  # words


def draw_captions(images: int, vocabulary: int) -> dict[str, list[str]]:
    """Five captions an image, of 11 words more or less, whose frequency falls with their rank as in any language."""
    random = np.random.default_rng(0)
    words = draw_words(vocabulary)
    frequency = 1 / np.arange(1, len(words) + 1)
    lengths = random.normal(10.8, 3.8, (images, CAPTIONS_EACH)).round().clip(3, LONGEST).astype(int)
    drawn = iter(random.choice(len(words), lengths.sum(), p=frequency / frequency.sum()))
    return {
        f"{image}.jpg": [" ".join(words[next(drawn)] for _ in range(length)) for length in row]
        for image, row in enumerate(lengths)
    }


def draw_words(vocabulary: int) -> list[str]:
    """So many words that with a tokenizer's four special tokens they are `vocabulary`."""
    return [f"word{number}" for number in range(vocabulary - 4)]


def draw_features(images: int) -> np.ndarray:
    """float32 of shape (images, 2048), not negative, as Xception's."""
    drawn = np.random.default_rng(0).standard_normal((images, FEATURE_SIZE), np.float32)
    return np.abs(drawn, out=drawn)  # no second copy of what a benchmark weighs


def draw_photos(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> list[Path]:
    """JPEG files, each of other blots and grain."""
    random = np.random.default_rng(0)
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    for path in paths:
        blots = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        grain = random.normal(0, 6, (size[1], size[0], 1))
        Image.fromarray((np.asarray(blots) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=92)
    return paths
