"""The reader of pictures, and what Pillow's decoders do below it."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from caption_generator.common.errors import CaptionError
from caption_generator.images import load_pixels
from tests.torture.corpus import encode, photo

NAME = "x.jpg"


def seeds() -> Iterator[bytes]:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "PCX", "SGI", "ICO", "DDS"):
        yield encode(photo(16, 12), kind)
    yield encode(photo(16, 12).convert("CMYK"), "JPEG")
    yield encode(photo(16, 12).convert("P"), "PNG", transparency=0)


def read(path: Path) -> None:
    with suppress(CaptionError):
        assert load_pixels(path, 16).shape == (16, 16, 3)
