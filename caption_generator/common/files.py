"""Files that are written whole or not at all."""

import errno
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from caption_generator.common.errors import CaptionError


def digest(content: str | bytes) -> str:
    """A fingerprint: twelve hexadecimal digits that tell one content from another."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file to read its bytes. A FIFO, which would wait for a writer for ever, and a device are refused.

    Raises:
        OSError: as `open`, or with "not a regular file" as its `strerror`.
    """
    return open(path, "rb", opener=_regular_descriptor)


def _regular_descriptor(path: str, flags: int) -> int:
    _check_regular(Path(path).stat(), path)  # before it is opened, for some devices act on that alone
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _check_regular(os.fstat(descriptor), path)  # it may have been replaced in between
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):  # of a folder, `open` itself says so
        raise OSError(errno.EINVAL, "not a regular file", path)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which becomes `path` only if the block ends well.

    A crash, a full disk or Ctrl-C therefore leaves what was there before. The temporary name keeps the suffix,
    because Keras chooses the format by it.

    Raises:
        CaptionError: the folder cannot be written to.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        raise CaptionError(
            f"cannot write {path} ({error.strerror}): choose a folder that you may write to, for the results of a "
            "workspace with CAPTION_OUTPUTS."
        ) from error
    temporary = Path(temporary)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private, a shared result should not be
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_json_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Write a JSON list with each of `rows` (plain data) on a line of its own, so that changes can be read."""
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")
