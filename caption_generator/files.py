"""Reading and writing files safely: whole or not at all, and plain data only."""

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Row = TypeVar("Row")


class CaptionError(Exception):
    """Something that the user can put right. The message is one sentence: what, where, what to do."""

    def _render_traceback_(self) -> list[str]:
        # Jupyter asks an exception for this first: in a notebook, too, the reader gets the sentence alone.
        return [f"{type(self).__name__}: {self}"]


def look_up(kind: str, name: str, table: Mapping[str, Row], besides: str = "") -> Row:
    """The row of that name.

    Args:
        besides: what else the user may choose, in words.

    Raises:
        CaptionError: there is none; it names those that there are.
    """
    if name not in table:
        raise CaptionError(f"there is no {kind} {name!r}: choose one of {', '.join(table)}{besides}.")
    return table[name]


def first_line(error: Exception) -> str:
    """What to quote of an error whose text may go on for pages."""
    return str(error).partition("\n")[0]


def digest(content: str | bytes) -> str:
    """A fingerprint: twelve hexadecimal digits that tell one content from another."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:12]


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


def _numpy_globals() -> dict[str, Any]:
    """The few functions by which NumPy arrays and numbers pickle themselves, by name, whatever NumPy's version."""
    array, number = np.zeros(1), np.float32(0)
    functions = [array.__reduce__()[0], array.__reduce_ex__(5)[0], number.__reduce__()[0]]
    return {f.__name__: f for f in functions} | {"ndarray": np.ndarray, "dtype": np.dtype}


def _old_bytes(text: str = "", _: str = "latin1") -> bytes:
    return text.encode("latin1")


class PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, strings, numbers and NumPy arrays, and refuses everything else."""

    allowed = _numpy_globals()
    old_bytes = ("_codecs.encode", "__builtin__.bytes")  # the calls by which protocols 0 to 2 spell bytes

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self.allowed:
            return self.allowed[name]
        if f"{module}.{name}" in self.old_bytes:
            return _old_bytes
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, which is not plain data")


def save_pickle(path: str | Path, *values: Any) -> None:
    """Write each of `values` (plain data) to `path`, one pickle after the other."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for value in values:
            pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)


def save_json_rows(path: str | Path, rows: Iterable[Any]) -> None:
    """Write a JSON list with each of `rows` (plain data) on a line of its own, so that changes can be read."""
    with replacing(path) as temporary:
        temporary.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")


def load_pickles(path: str | Path) -> Iterator[Any]:
    """Yield the values that `save_pickle` wrote, without ever running code that a pickle names.

    Raises:
        CaptionError: the file is missing, torn, or holds more than plain data.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            while file.peek(1):
                yield PlainUnpickler(file).load()
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist: run the notebook that writes it first.") from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # a torn or foreign pickle can raise nearly anything
        raise CaptionError(
            f"{path} is not a pickle of plain data ({error}): remove it and make it again, or take an older project's "
            "over with python -m caption_generator.legacy."
        ) from error
