"""Any picture file to upright RGB, many at a time."""

import glob
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from caption_generator.common.errors import CaptionError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
DECODING_THREADS = 4
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
# Pillow warns of more than 89 million pixels, which a phone's panorama can have, and refuses twice as many.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def find_pictures(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """The picture files that a user means, each once.

    Args:
        arguments: files, folders (searched with all that they hold) and globs.

    Returns:
        The files, and one sentence for each folder or glob that has none.
    """
    found: list[Path] = []
    errors: list[str] = []
    for argument in arguments:
        path = Path(argument)
        try:
            if path.is_dir():
                inside = sorted(p for p in path.rglob("[!.]*") if p.suffix.lower() in SUFFIXES and p.is_file())
            elif glob.has_magic(argument) and not path.exists():
                inside = sorted(map(Path, glob.glob(argument, recursive=True)))
            else:
                inside = [path]
        except OSError:  # it may not be looked at, or its name is too long: `open_rgb` says so
            inside = [path]
        if not inside:
            errors.append(f"{argument} holds no pictures: check the name.")
        found += inside
    return list(dict.fromkeys(found)), errors


def open_rgb(path: str | Path) -> Image.Image:
    """Open a picture upright and in RGB, whatever its file holds.

    EXIF rotation is applied, transparency is laid on white, greyscale, palette and CMYK are converted, 16-bit
    greyscale is scaled down to 8, and of an animation the first frame is taken.

    Raises:
        CaptionError: the file is missing, or is not a picture that Pillow can decode.
    """
    return _open_rgb(path)


def _open_rgb(path: str | Path, draft_size: int | None = None) -> Image.Image:
    try:
        with Image.open(path) as image:
            if draft_size:
                image.draft("RGB", (2 * draft_size, 2 * draft_size))  # JPEG decodes at a half or less, much faster
            image = ImageOps.exif_transpose(image)
            return _to_rgb(image)
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist: check the name.") from None
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise CaptionError(f"{path} cannot be read as a picture ({_reason(error)}): replace or remove it.") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP_MODES:
        pixels = np.asarray(image, dtype=np.float32)
        brightest = 65535 if image.mode.startswith("I;16") or pixels.max() > 255 else 255
        image = Image.fromarray((pixels.clip(0, brightest) * (255 / brightest)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a known picture format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def load_pixels(path: str | Path, size: int) -> np.ndarray:
    """Read a picture as uint8 RGB pixels of shape (size, size, 3), squashed to a square as in training.

    Raises:
        CaptionError: as `open_rgb`.
    """
    return np.asarray(_open_rgb(path, size).resize((size, size), Image.Resampling.BILINEAR))


def load_augmented(path: str | Path, size: int, seed: int) -> np.ndarray:
    """As `load_pixels`, of a random part of the picture, mirrored or not, in slightly other colours.

    What is drawn depends on the file's name and `seed` alone. A part is three quarters of each side at least: a caption
    tells of the whole picture.

    Raises:
        CaptionError: as `open_rgb`.
    """
    random = np.random.default_rng([seed, *Path(path).name.encode()])
    image = _open_rgb(path, size)
    part = np.array(image.size) * random.uniform(0.75, 1.0, 2)
    left, top = random.uniform(0, image.size - part)
    image = image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + part[0], top + part[1]))
    if random.random() < 0.5:
        image = ImageOps.mirror(image)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(random.uniform(0.75, 1.25))
    return np.asarray(image)


class ImageBatch(NamedTuple):
    """Decoded pictures and those that could not be.

    Attributes:
        outcomes: every file of the batch, in order, with one sentence if it is broken, else an empty string.
        pixels: uint8 of shape (good files, size, size, 3).
    """

    outcomes: list[tuple[Path, str]]
    pixels: np.ndarray

    @property
    def paths(self) -> list[Path]:
        """The files that were read, in the order of `pixels`."""
        return [path for path, error in self.outcomes if not error]

    @property
    def errors(self) -> list[str]:
        """One sentence for each broken file."""
        return [error for _, error in self.outcomes if error]


def load_batches(
    paths: Sequence[str | Path],
    size: int,
    batch_size: int = 32,
    load: Callable[[Path, int], np.ndarray] = load_pixels,
) -> Iterator[ImageBatch]:
    """Yield the pictures in batches, decoding the next batch while the caller works on this one.

    Memory holds two batches, however many paths there are. A broken file costs its own place only.

    Args:
        paths: the files.
        size: height and width of what is yielded.
        batch_size: files in a batch.
        load: how one file is read, as by `load_pixels`.
    """
    chunks = [[Path(path) for path in paths[i : i + batch_size]] for i in range(0, len(paths), batch_size)]
    with ThreadPoolExecutor(DECODING_THREADS) as pool:

        def submit(chunk: list[Path]) -> list[Future]:
            return [pool.submit(load, path, size) for path in chunk]

        following = submit(chunks[0]) if chunks else []
        for position, chunk in enumerate(chunks):
            current = following
            following = submit(chunks[position + 1]) if position + 1 < len(chunks) else []
            outcomes, decoded = [], []
            for path, future in zip(chunk, current, strict=True):
                try:
                    decoded.append(future.result())
                    outcomes.append((path, ""))
                except CaptionError as error:
                    outcomes.append((path, str(error)))
            yield ImageBatch(outcomes, np.stack(decoded) if decoded else np.empty((0, size, size, 3), np.uint8))
