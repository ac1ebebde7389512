"""Pickles of plain data: dicts, lists, strings, numbers and NumPy arrays. Reading one never runs code that it names.

The size of the file limits the memory and the time that reading it takes. Python's own `pickle.Unpickler` has no
such limit: it believes sizes before it sees the bytes, and NumPy's `dtype.__setstate__` believes pointers. So the
reader here is the one of the standard library that is written in Python, with only those opcodes that plain data need,
and with stand-ins for what NumPy's pickles call.
"""

import math
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from caption_generator.common.errors import CaptionError, first_line, printable
from caption_generator.common.files import open_regular, replacing

MAX_BYTES = 8 << 30  # of a file: grids of the features of Flickr30k fit
MAX_OPCODES = 5_000_000  # 150,000 arrays fit
MAX_DEPTH = 64  # of a container in a container
MAX_BITS = 128  # of a whole number
# What a pickle builds may be that many times as large as its file, and a little more. A word that is written once may
# stand in several lists; a list that stands ten times in a list that stands ten times in a list ... fills the memory.
GROWTH, ALLOWANCE = 16, 16 << 20

_PLAIN_TYPE = re.compile(r"[biufcSU][0-9]{1,9}|\?")
_BYTE_ORDERS = ("<", ">", "=", "|")
# Plain data have no need of these.
_REFUSED = (
    *(pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.INST, pickle.OBJ),
    *(pickle.NEWOBJ_EX, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.NEXT_BUFFER),
    pickle.READONLY_BUFFER,
)


class StandIn:
    """In the place of an object that a pickle names: holds what the pickle says of it, and does nothing.

    Attributes:
        attributes: the object's state, apart from the object's own attributes, so that no pickle brings a method.
    """

    attributes: Any = None

    def __setstate__(self, state: Any) -> None:
        self.attributes = state


class _DType(StandIn):
    """Stands in for `numpy.dtype`: a type of numbers or of text, and no field, object or pointer."""

    def __init__(self, code: Any = None, *_: Any):
        if not (isinstance(code, str) and _PLAIN_TYPE.fullmatch(code)):
            raise pickle.UnpicklingError(f"it holds an array of type {_shown(code)}, which is not plain data")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, subtype, names, fields, *_ = state
        if order not in _BYTE_ORDERS or not (subtype is names is fields is None):
            raise pickle.UnpicklingError("it holds an array with fields, which is not plain data")
        self.dtype = self.dtype.newbyteorder(order)


class _Reader:
    """Reads a file and never asks for more bytes than it has, because memory is reserved before it is read."""

    def __init__(self, file: BinaryIO):
        self.file, self.readline = file, file.readline

    def read(self, size: int) -> bytes:
        # The file's end is looked up for large reads alone: the others cost nothing.
        if size > 1 << 16 and size > self.left():
            raise EOFError("it ends too early")
        found = self.file.read(size)
        if len(found) < size:
            raise EOFError("it ends too early")
        return found

    def left(self) -> int:
        """How many bytes follow."""
        here = self.file.tell()
        end = self.file.seek(0, os.SEEK_END)
        self.file.seek(here)
        return end - here


class _Opcodes(dict):
    """What to do at each opcode, for so many of them."""

    left = MAX_OPCODES

    def __getitem__(self, opcode: int) -> Callable:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES:,} parts")
        return super().__getitem__(opcode)

    def __missing__(self, opcode: int) -> NoReturn:
        raise pickle.UnpicklingError(f"byte {opcode:#04x} is not part of a pickle of plain data")


class PlainUnpickler(pickle._Unpickler):
    """Builds dicts, lists, strings, numbers and NumPy arrays, and refuses everything else.

    Args:
        file: a binary file that can be sought in. Each `load` takes the next pickle from it.
        options: as of `pickle.Unpickler`.
    """

    dispatch: Mapping[int, Callable] = {
        opcode: load for opcode, load in pickle._Unpickler.dispatch.items() if bytes([opcode]) not in _REFUSED
    }
    old_bytes = ("_codecs.encode", "__builtin__.bytes")  # the calls by which protocols 0 to 2 spell bytes

    def __init__(self, file: BinaryIO, **options: Any):
        self._reader = _Reader(file)
        super().__init__(self._reader, **options)

    def load(self) -> Any:
        """The next value.

        Raises:
            Exception: nearly any, if the pickle is torn, holds more than plain data, or more than its size deserves.
        """
        size = self._reader.left()
        if size > MAX_BYTES:
            raise pickle.UnpicklingError(f"it is larger than {MAX_BYTES >> 30} GiB")
        self._allowed = self._budget = ALLOWANCE + GROWTH * size
        self.dispatch = _Opcodes(type(self).dispatch)
        value = super().load()
        _check_plain(value, self._allowed)
        return value

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._numpy:
            return self._numpy[name](self)
        if f"{module}.{name}" in self.old_bytes:
            return self._make_bytes
        raise pickle.UnpicklingError(f"it holds a {_shown(f'{module}.{name}')}, which is not plain data")

    # What NumPy's arrays and numbers pickle themselves by, by name, whatever NumPy's version.
    _numpy: Mapping[str, Callable[["PlainUnpickler"], Any]] = {
        "_reconstruct": lambda _: lambda *_: np.empty(0, np.uint8),  # BUILD fills it
        "_frombuffer": lambda self: self._make_array,
        "scalar": lambda self: self._make_number,
        "ndarray": lambda _: "ndarray",  # only ever an argument of _reconstruct
        "dtype": lambda _: _DType,
    }

    def _spend(self, size: int) -> None:
        self._budget -= size
        if self._budget < 0:
            raise pickle.UnpicklingError("it unfolds to far more than its size")

    def _make_bytes(self, text: str = "", _: str = "latin1") -> bytes:
        self._spend(len(text))
        return text.encode("latin1")

    def _raw(self, raw: Any, dtype: Any, count: int) -> tuple[bytes, np.dtype]:
        """The bytes and the type of `count` numbers."""
        if not isinstance(dtype, _DType):
            raise pickle.UnpicklingError("it holds an array without a type")
        if isinstance(raw, str):  # Python 2's, as NumPy takes it, too
            raw = raw.encode("latin1")
        # A ValueError, as NumPy's: who reads Python 2's strings in a wrong encoding tries another then.
        size = dtype.dtype.itemsize
        if not isinstance(raw, bytes | bytearray) or size * count != len(raw) or size == 0:
            raise ValueError("it holds an array whose size is not that of its bytes")
        self._spend(len(raw))
        return bytes(raw), dtype.dtype

    def _make_array(self, raw: Any, dtype: Any, shape: Any, order: str = "C", axes: Any = None) -> np.ndarray:
        raw, dtype = self._raw(raw, dtype, math.prod(_shape(shape)))
        array = np.frombuffer(bytearray(raw), dtype) if raw else np.empty(0, dtype)  # one that may be written to
        if order == "K" and axes is not None:
            return array.reshape(shape).transpose(_shape(axes))
        return array.reshape(shape, order="F" if order == "F" else "C")

    def _make_number(self, dtype: Any, raw: Any = b"") -> np.generic:
        raw, dtype = self._raw(raw, dtype, 1)
        return np.frombuffer(raw, dtype)[0]

    def _load_build(self) -> None:
        state = self.stack.pop()
        built = self.stack[-1]
        if type(built) is np.ndarray:
            _, shape, dtype, is_fortran, raw = state
            raw, dtype = self._raw(raw, dtype, math.prod(_shape(shape)))
            built.__setstate__((1, shape, dtype, bool(is_fortran), raw))
        elif isinstance(built, StandIn):
            built.__setstate__(state)
        else:  # not a class, nor a function: what a pickle writes there would last
            raise pickle.UnpicklingError("it changes something that is not plain data")

    def _load_newobj(self) -> None:
        self.stack.pop()  # the arguments
        kind = self.stack.pop()
        if not (isinstance(kind, type) and issubclass(kind, StandIn)):
            raise pickle.UnpicklingError("it makes something that is not plain data")
        self.append(kind())

    def _load_bytearray8(self) -> None:  # the inherited one reserves the memory before it reads
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def _load_append(self) -> None:
        value = self.stack.pop()
        self._a_list().append(value)

    def _load_appends(self) -> None:
        values = self.pop_mark()
        self._a_list().extend(values)

    def _a_list(self) -> list:
        if type(self.stack[-1]) is not list:
            raise pickle.UnpicklingError("it appends to something that is not a list")
        return self.stack[-1]

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._update(items)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update((key, value))

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        self._update(items)

    def _update(self, items: Iterable[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise pickle.UnpicklingError("it puts items into something that is not a dict")
        self.stack[-1].update(plain_dict(zip(items[::2], items[1::2], strict=True)))

    dispatch |= {
        pickle.BUILD[0]: _load_build,
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.BYTEARRAY8[0]: _load_bytearray8,
        pickle.APPEND[0]: _load_append,
        pickle.APPENDS[0]: _load_appends,
        pickle.DICT[0]: _load_dict,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
    }


def plain_dict(items: Any = ()) -> dict:
    """As `dict`, with names and small numbers as keys.

    To hash a tuple of tuples of tuples may take for ever or overflow the stack, and numbers can be chosen to collide.

    Raises:
        pickle.UnpicklingError: a key is something else.
    """
    pairs = [(key, value) for key, value in (items.items() if isinstance(items, dict) else items)]
    for key, _ in pairs:
        small = isinstance(key, int | np.integer) and -(2**31) <= key < 2**31
        if not (small or key is None or isinstance(key, str | bytes)):
            raise pickle.UnpicklingError(f"it has a key of type {type(key).__name__}, which is not plain data")
    return dict(pairs)


def _shape(value: Any) -> tuple[int, ...]:
    if not (isinstance(value, tuple) and all(type(size) is int and 0 <= size < 2**48 for size in value)):
        raise pickle.UnpicklingError("it holds an array whose shape is not a tuple of sizes")
    if len(value) > 32:
        raise pickle.UnpicklingError(f"it holds an array of {len(value)} dimensions")
    return value


def _check_plain(value: Any, allowed: int) -> None:
    """Refuse what is not plain, holds itself, is too deep, or unfolds to more than `allowed` bytes."""
    if not _is_container(value):
        _leaf_weight(value)
        return
    weights: dict[int, int] = {}  # of containers, by id
    around: set[int] = set()  # the ids of the present container and of those that it is in
    todo = [value]
    while todo:
        container = todo[-1]
        parts = _parts(container)
        if id(container) in weights:
            todo.pop()
        elif id(container) not in around:
            around.add(id(container))
            inner = [part for part in parts if _is_container(part)]
            if any(id(part) in around for part in inner):
                raise pickle.UnpicklingError("it holds itself")
            if len(around) > MAX_DEPTH:
                raise pickle.UnpicklingError(f"it is nested more than {MAX_DEPTH} deep")
            todo += inner
        else:  # the parts have been weighed
            weight = 8 * len(parts)
            weight += sum(weights[id(part)] if _is_container(part) else _leaf_weight(part) for part in parts)
            if weight > allowed:
                raise pickle.UnpicklingError("it unfolds to far more than its size")
            weights[id(container)] = weight
            around.remove(id(container))
            todo.pop()


def _is_container(value: Any) -> bool:
    return type(value) in (dict, list, tuple) or (isinstance(value, StandIn) and not isinstance(value, _DType))


def _parts(container: Any) -> list[Any]:
    if isinstance(container, StandIn):
        return [container.attributes]
    return [*container.keys(), *container.values()] if isinstance(container, dict) else container


def _leaf_weight(value: Any) -> int:
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.nbytes
    if value is None or type(value) in (bool, float):
        return 0
    if type(value) is int:
        if value.bit_length() > MAX_BITS:
            raise pickle.UnpicklingError(f"it holds a number of {value.bit_length():,} bits")
        return 0
    raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, which is not plain data")


def _shown(name: Any) -> str:
    """A name out of a pickle, fit for one line of a terminal."""
    text = name if isinstance(name, str) else type(name).__name__
    return printable(text[:200])


def save_pickle(path: str | Path, *values: Any) -> None:
    """Write each of `values` (plain data) to `path`, one pickle after the other."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        for value in values:
            pickle.dump(value, file, protocol=pickle.HIGHEST_PROTOCOL)


def load_pickles(path: str | Path, remedy: str = "check the name") -> Iterator[Any]:
    """Yield the values that `save_pickle` wrote, without ever running code that a pickle names.

    Args:
        remedy: what to do where there is no such file.

    Raises:
        CaptionError: the file is missing, torn, or holds more than plain data.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            while file.peek(1):
                yield PlainUnpickler(file).load()
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist: {remedy}.") from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # a torn or foreign pickle can raise nearly anything
        raise CaptionError(
            f"{path} is not a pickle of plain data ({_shown(first_line(error))}): remove it and make it again, or "
            "take an older project's over with python -m caption_generator.legacy."
        ) from error
