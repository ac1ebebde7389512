"""The readers of captions: lines, tables and JSON."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from caption_generator.caption_files import read_captions
from caption_generator.captions import clean_captions, load_descriptions
from caption_generator.common.errors import CaptionError

NAME = "captions"  # without a suffix the content decides on the form


def seeds() -> Iterator[bytes]:
    yield b"a.jpg#0\tA dog .\na.jpg#1\tA cat .\n"
    yield b"image,caption\na.jpg,A dog .\n"
    yield b'image_name| comment_number| comment\na.jpg| 0| "A dog ."\n'
    yield b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "A dog ."}]}'
    yield b'[{"image": "a.jpg", "captions": ["A dog", "A cat"]}]'
    yield "\ufeffa.jpg\tl'herbe \u0939\u0930\u0940\n".encode()


def read(path: Path) -> None:
    for reader in (read_captions, load_descriptions):
        with suppress(CaptionError):
            found = reader(path)
            clean_captions(getattr(found, "captions", found))
