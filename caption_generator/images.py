"""Any picture file to upright RGB, many at a time."""

import contextlib
import glob
import io
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageEnhance, ImageOps

from caption_generator.common.console import Shared, native_stderr_silenced
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import open_regular
from caption_generator.common.pictures import EXPORT, FOREIGN, FORMATS, INSTALL_HEIF, SUFFIXES, is_picture

__all__ = [
    "SUFFIXES",
    "ImageBatch",
    "NamedBytes",
    "find_photos",
    "find_pictures",
    "load_augmented",
    "load_batches",
    "load_pixels",
    "open_rgb",
]

DECODING_THREADS = 4
BYTES_IN_FLIGHT = 3 << 28  # of all threads' pictures that are being decoded
LARGE = 1 << 24  # pixels; what is larger is made smaller before it is converted
BLOCK = 1 << 26  # bytes that Pillow reserves at a time
STRIP = 1 << 20  # pixels that are converted at a time
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
# The extra bytes that a decoder takes for each pixel of a picture; about 0 for formats that are not listed.
DECODER_BYTES = {"WEBP": 8, "AVIF": 8, "JPEG2000": 16, "TIFF": 4}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def find_pictures(arguments: Iterable[str]) -> tuple[list[Path], list[str]]:
    """The picture files that a user means, each once.

    Args:
        arguments: files, folders (searched with all that they hold, hidden ones apart) and globs.

    Returns:
        The files, and one sentence for each folder or glob that has none, or that may not be looked into. What has a
        picture's name and cannot be read, a HEIC photo or a broken link, is among the files: `open_rgb` names it.
    """
    found: list[Path] = []
    errors: list[str] = []
    for argument in arguments:
        if not argument:
            errors.append("a name is empty: name a picture, a folder or a pattern.")
            continue
        if "://" in argument and not os.path.lexists(argument):
            errors.append(f"{argument} is an address on the web: download the photo, and name its file.")
            continue
        matches = [Path(argument)]
        if glob.has_magic(argument) and not os.path.lexists(argument):
            matches = sorted(map(Path, glob.glob(argument, recursive=True)))
        inside = [path for match in matches for path in _inside(match, errors)]
        if not inside:
            trouble = "holds no pictures" if matches else "matches no file"
            errors.append(f"{argument} {trouble}: check the name.")
        found += inside
    return list(dict.fromkeys(found)), errors


def find_photos(folders: str | Path | Sequence[str | Path], names: Iterable[str]) -> list[Path]:
    """The paths of a dataset's photos: each in the first of `folders` that has it, otherwise named in the last."""
    folders = [folders] if isinstance(folders, str | Path) else folders
    *first, last = map(Path, folders)
    return [next((folder / name for folder in first if (folder / name).is_file()), last / name) for name in names]


def _inside(path: Path, errors: list[str]) -> list[Path]:
    try:
        return _search(path, errors) if path.is_dir() else [path]
    except OSError:  # it may not be looked at, or its name is too long: `open_rgb` says so
        return [path]


def _search(folder: Path, errors: list[str]) -> list[Path]:
    """All that has a picture's name in a folder and in those within; links to other folders are not followed."""

    def complain(error: OSError) -> None:
        errors.append(f"cannot look into {error.filename} ({error.strerror}): change its permissions.")

    found: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=complain):
        folders[:] = (name for name in folders if not name.startswith("."))
        found += (path for path in (Path(place, name) for name in files) if is_picture(path))
    return sorted(found)


class NamedBytes(io.BytesIO):
    """A file in memory, which `open_rgb` calls by its name in messages."""

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self._name = name

    def __str__(self) -> str:
        return self._name


def open_rgb(path: str | Path | BinaryIO) -> Image.Image:
    """Open a picture upright and in RGB, whatever its file holds.

    EXIF rotation is applied, transparency is laid on white, greyscale, palette and CMYK are converted, grey of more
    than 8 bits is scaled down to 8, and of an animation the first frame is taken.

    Args:
        path: a file's name, or a file that is open to read bytes. The latter's `str()` is what an error calls it.

    Raises:
        CaptionError: the file is missing, or is not a picture that Pillow can decode.
    """
    return _open_rgb(path)


def _open_rgb(path: str | Path | BinaryIO, size: int | None = None) -> Image.Image:
    """As `open_rgb`; where the picture is to become `size` x `size`, a large one may come out smaller than it is."""
    try:
        with _opened(path) as file, _pillow_quiet:
            try:
                return _decode(file, size)
            except Image.UnidentifiedImageError as error:
                kind, remedy = _foreign(path, file)
                if not kind or (kind == "HEIC" and "HEIF" in _formats()):  # known, and yet not read: damaged
                    raise
                raise CaptionError(f"{path} is {kind}, which is not read here: {remedy}.") from error
    except CaptionError:
        raise
    except FileNotFoundError:
        path = Path(str(path))
        if path.is_symlink():
            raise CaptionError(
                f"{path} is a link to {path.readlink()}, which does not exist: mend or remove it."
            ) from None
        raise CaptionError(f"{path} does not exist: check the name.") from None
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise CaptionError(f"{path} cannot be read as a picture ({_reason(error)}): replace or remove it.") from error


def _opened(path: str | Path | BinaryIO) -> contextlib.AbstractContextManager[BinaryIO]:
    return open_regular(path) if isinstance(path, str | Path) else contextlib.nullcontext(path)


def _decode(file: BinaryIO, size: int | None) -> Image.Image:
    with Image.open(file, formats=_formats()) as image:
        if size:
            image.draft("RGB", (2 * size, 2 * size))  # JPEG decodes at a half or less, much faster
        # Pillow turns TIFFs by itself, and would write their whole EXIF block anew, which an odd one does not survive.
        is_tiff = image.format == "TIFF"
        if is_tiff:
            _keep_orientation_alone(image)
        with _in_flight(_cost(image)):
            with native_stderr_silenced() if is_tiff else contextlib.nullcontext():  # libtiff warns there
                image.load()
            upright = _to_rgb(image, size)
            turn = TURNS.get(_orientation(image))
            image.close()  # and with it goes the memory
        return upright if turn is None else upright.transpose(turn)


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    """Those of the formats that Pillow has on this machine, with HEIC where pillow-heif is installed."""
    Image.init()
    # The C library gives blocks of more than 32 MB back to the system at once. It keeps Pillow's own blocks of 16 MB.
    Image.core.set_block_size(BLOCK)
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return [name for name in (*FORMATS, "HEIF") if name in Image.OPEN]


def _foreign(path: str | Path | BinaryIO, file: BinaryIO) -> tuple[str, str]:
    """What a file that Pillow does not know is, and what to do; empty where nobody knows. A suffix may be wrong."""
    file.seek(0)
    head = file.read(12)
    if head[4:8] == b"ftyp":
        brand = head[8:].decode("latin1")
        if brand in ("avif", "avis"):
            return "AVIF", "update Pillow to 11.3 or later, or " + EXPORT
        if brand in ("heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"):
            return "HEIC", INSTALL_HEIF
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return FOREIGN[".jxl"]
    return FOREIGN.get(Path(str(path)).suffix.lower(), ("", "")) if head else ("", "")


@contextlib.contextmanager
def _without_complaints() -> Iterator[None]:
    """Nothing of what Pillow warns of: more than 89 million pixels, which a panorama can have, or odd metadata."""
    log = logging.getLogger("PIL")
    handler, propagates = logging.NullHandler(), log.propagate
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
        log.addHandler(handler)
        log.propagate = False
        try:
            yield
        finally:
            log.propagate = propagates
            log.removeHandler(handler)


_pillow_quiet = Shared(_without_complaints)


class _Budget:
    """So much memory for all threads: who wants more than is left waits, unless nobody else has any."""

    def __init__(self) -> None:
        self._taken, self._change = 0, threading.Condition()

    @contextlib.contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        with self._change:
            self._change.wait_for(lambda: not self._taken or self._taken + size <= BYTES_IN_FLIGHT)
            self._taken += size
        try:
            yield
        finally:
            with self._change:
                self._taken -= size
                self._change.notify_all()


_in_flight = _Budget()


def _cost(image: Image.Image) -> int:
    """About how many bytes decoding takes."""
    each = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    cost = image.width * image.height * (each + DECODER_BYTES.get(image.format, 0))
    if image.info.get("progressive"):  # JPEG's coefficients are kept in full size, whatever size is wanted
        cost += 6 * image.width * image.height * getattr(image, "decoderconfig", (1,))[0] ** 2
    return cost


def _keep_orientation_alone(image: Image.Image) -> None:
    with contextlib.suppress(Exception):  # odd EXIF makes Pillow raise nearly anything
        exif = image.getexif()
        for tag in list(exif):
            if tag != ExifTags.Base.Orientation:
                del exif[tag]


def _orientation(image: Image.Image) -> int:
    """How the camera lay, from 1 to 8; 1 where EXIF does not say, or not so that it can be read."""
    try:
        value: Any = image.getexif().get(ExifTags.Base.Orientation, 1)
        return int(value[0] if isinstance(value, tuple | bytes) else value)
    except Exception:  # odd EXIF makes Pillow raise nearly anything
        return 1


def _to_rgb(image: Image.Image, size: int | None) -> Image.Image:
    """A decoded picture in RGB. A large one that is to become `size` x `size` shrinks to twice that or more.

    It goes strip by strip, for a picture in RGBA or in floats takes several times the memory of the file's pixels.
    """
    shrink = (1, 1)
    if size and image.width * image.height > LARGE:
        shrink = max(1, image.width // (2 * size)), max(1, image.height // (2 * size))
    brightest = _brightest(image) if image.mode in DEEP_MODES else 0
    whole: Image.Image | None = None
    for top, strip in _strips(image, shrink[1]):
        if shrink == (1, 1):
            strip = _strip_to_rgb(strip, brightest)
        elif strip.mode == "RGBA":  # Pillow weighs colours by how opaque they are; the other order takes twice as long
            strip = _strip_to_rgb(strip.reduce(shrink), brightest)
        else:
            strip = _strip_to_rgb(strip, brightest).reduce(shrink)
        if top == 0 and strip.height == -(-image.height // shrink[1]):
            return strip
        whole = whole or Image.new("RGB", (strip.width, -(-image.height // shrink[1])))
        whole.paste(strip, (0, top // shrink[1]))
    return whole


def _strips(image: Image.Image, multiple: int) -> Iterator[tuple[int, Image.Image]]:
    """The parts of a picture from top to bottom, each with where it starts, a multiple of `multiple`."""
    if image.width * image.height <= STRIP:
        yield 0, image
        return
    rows = multiple * max(1, STRIP // (image.width * multiple))
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_to_rgb(image: Image.Image, brightest: float) -> Image.Image:
    if brightest:
        pixels = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=brightest)
        image = Image.fromarray((pixels.clip(0, brightest) * (255 / brightest)).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _brightest(image: Image.Image) -> float:
    """The value that means white in a picture of more than 8 bits, which its file does not say.

    Floats go up to 1 as a rule. A camera's 10, 12 or 14 bits are kept in 16, and so are 8 at times; but where each
    value is a multiple of 256 or of 257, 8 bits were stretched to all 16.
    """
    highest, stretched = 0.0, {256: True, 257: True}
    for _, strip in _strips(image, 1):
        pixels = np.asarray(strip)
        finite = pixels[np.isfinite(pixels)] if image.mode == "F" else pixels
        highest = max(highest, float(finite.max(initial=0)))
        if image.mode != "F":
            for factor in stretched:
                stretched[factor] = stretched[factor] and not (pixels % factor).any()
    if image.mode == "F" and highest <= 4:  # a little more than 1 is a highlight
        return 1
    if image.mode != "F" and highest <= 65535 and any(stretched.values()):
        return 65535
    return next((float(2**bits - 1) for bits in (8, 10, 12, 14, 16, 24) if highest < 2**bits), 2.0**32 - 1)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "not a known picture format"
    return getattr(error, "strerror", None) or first_line(error) or type(error).__name__


def load_pixels(path: str | Path | BinaryIO, size: int) -> np.ndarray:
    """Read a picture as uint8 RGB pixels of shape (size, size, 3), squashed to a square as in training.

    Args:
        path: as of `open_rgb`.
        size: height and width.

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
