"""Pickles of plain data: dicts, lists, strings, numbers and NumPy arrays. Reading one never runs code that it names."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import replacing


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
