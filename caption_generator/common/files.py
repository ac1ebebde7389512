"""Files that are written whole or not at all, and folders that only one run writes to."""

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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def digest(content: str | bytes) -> str:
    """A fingerprint: twelve hexadecimal digits that tell one content from another."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


def file_digest(path: str | Path) -> str:
    """As `digest`, of the content of a file, which need not fit into memory."""
    found = hashlib.sha256()
    with open_regular(path) as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()[:12]


def is_file(path: str | Path) -> bool:
    """Whether there is a file; False, too, where nobody may look, or where the name is too long for one.

    `Path.is_file` raises an error there before Python 3.14.
    """
    try:
        return Path(path).is_file()
    except OSError:
        return False


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
    """Give a temporary path beside `path`, which becomes `path` only if the block ends without an error.

    A crash, a full disk, a power failure or Ctrl-C therefore leaves what was there before. The temporary name keeps the
    suffix, because Keras chooses the format by it.

    Raises:
        CaptionError: the folder cannot be written to, the disk is full, or `path` is a folder or a device, such as
            /dev/null: renamed to it, the file would take the place of the device.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CaptionError(
                f"cannot write {path}, which is a folder or a device: name another file, or move it away."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise _disk_full(path) from error
        raise CaptionError(
            f"cannot write {path} ({error.strerror}): choose a folder that you may write to, for the results of a "
            "workspace with CAPTION_OUTPUTS."
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes files private, a shared result should not be
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except (OSError, RuntimeError) as error:
        if _is_disk_full(error):
            raise _disk_full(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def appending(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to write behind its end. If that fails, its end may be torn.

    Raises:
        CaptionError: the disk is full.
    """
    try:
        with open(path, "ab") as file:
            yield file
    except OSError as error:
        if _is_disk_full(error):
            raise CaptionError(
                f"the disk is full, and {path} ends early: free some space and run this again, and it goes on."
            ) from error
        raise


def _is_disk_full(error: Exception) -> bool:
    # HDF5 hides the number of the error in its text.
    return getattr(error, "errno", None) in NO_SPACE or os.strerror(errno.ENOSPC) in str(error)


def _disk_full(path: Path) -> CaptionError:
    return CaptionError(f"the disk is full, and {path} is as it was before: free some space and run this again.")


def _flush(path: Path) -> None:
    """Have the system write a file or a folder to the disk, as far as it can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows does not open folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """Hold a lock on a folder that only one run may write to. It ends with the process, however that ends.

    Raises:
        CaptionError: another run holds it, or the folder cannot be written to.
    """
    lock = Path(folder, ".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = open(lock, "a")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise CaptionError(
            f"cannot write {lock} ({error.strerror}): choose another folder with CAPTION_OUTPUTS."
        ) from error
    with file:
        if fcntl:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CaptionError(
                    f"another run is writing into {folder}: wait until it ends, or choose another folder with "
                    "CAPTION_OUTPUTS."
                ) from None
            except OSError:  # a file system without locks
                pass
        yield


def save_json_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Write a JSON list with each of `rows` (plain data) on a line of its own, so that changes can be read."""
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")
