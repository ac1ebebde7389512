"""HDF5 files from anywhere, opened so that reading one costs no more than its size and reaches nothing else.

An HDF5 file can refer to arrays in other files and devices. Its arrays can be compressed, missing or computed. Files of
Keras and of this project have none of that, so all of it is refused before an array is read.
"""

import math
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from caption_generator.common.files import open_regular

MAX_METADATA = 64 << 20  # bytes of a file that are not arrays: names, settings, vocabulary
MAX_STRINGS = 1 << 29  # bytes that a list of texts may take
HEAP = b"GCOL\1"  # the beginning of a heap, in which texts of any length lie


@contextmanager
def open_plain(path: str | Path) -> Iterator[h5py.File]:
    """Open a regular HDF5 file to read, and check that all of its arrays are plain.

    Raises:
        OSError: it cannot be opened at all.
        ValueError: an array is not plain.
    """
    longest = 0
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            longest = _longest_text(file.fileno(), size)
    with h5py.File(path, "r") as opened:
        if opened.id.get_create_plist().get_sizes() != (8, 8):  # of offsets and of lengths, as everyone writes them
            raise ValueError("it is HDF5 of an unusual kind")
        _check_plain(opened, size, longest)
        yield opened


def _longest_text(descriptor: int, size: int) -> int:
    """The size of the largest heap of texts. Each text of a list may be the same one, and as large.

    Raises:
        ValueError: a heap is damaged.
    """
    longest = 0
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as content:
        start = content.find(HEAP)
        while start >= 0:
            longest = max(longest, _check_heap(content, start))
            start = content.find(HEAP, start + 1)
    return longest


def _check_heap(content: mmap.mmap, start: int) -> int:
    """Walk through a heap of texts, as HDF5 will: it would go on for ever at an entry without a size.

    Returns:
        Its size.

    Raises:
        ValueError: an entry has a wrong size.
    """
    if start + 16 > len(content):
        raise ValueError("a heap of texts is cut off")
    (size,) = struct.unpack_from("<Q", content, start + 8)
    place, end = start + 16, start + size
    if not place <= end <= len(content):
        raise ValueError("a heap of texts has a wrong size")
    while place + 16 <= end:
        number, entry = struct.unpack_from("<H6xQ", content, place)
        # The entry 0 is what is free, its own head included. The others lie at multiples of 8.
        needed = entry if number == 0 else 16 + -(-entry // 8) * 8
        if not 16 <= needed <= end - place:
            raise ValueError("a text has a wrong size")
        place += needed
    return size


def _check_plain(file: h5py.File, size: int, longest: int) -> None:
    """Refuse links, and arrays and attributes that do not lie in the file as they are.

    Raises:
        ValueError: there is one.
    """
    seen, todo, found, stored = {_address(file)}, [file], [], 0
    while todo:
        item = todo.pop()
        found.append(item)
        if isinstance(item, h5py.Dataset):
            _check_array(item, size)
            stored += item.id.get_storage_size()
            continue
        for name in item:
            if not isinstance(item.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{name!r} is a link to something else")
            inner = item[name]
            if not isinstance(inner, h5py.Group | h5py.Dataset):
                raise ValueError(f"{name!r} is neither a group nor an array")
            if _address(inner) not in seen:  # a group may hold itself
                seen.add(_address(inner))
                todo.append(inner)
    # HDF5 reads an attribute to look at its size, so what is left for all of them is limited first.
    if size - stored > MAX_METADATA:
        raise ValueError(f"{(size - stored) >> 20:,} MiB of it are no arrays")
    for item in found:
        _check_attributes(item, size, longest)


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _check_array(array: h5py.Dataset, size: int) -> None:
    if array.external or array.is_virtual or array.chunks:
        raise ValueError(f"{array.name!r} is not stored plainly in the file")
    _check_type(array.name, array.dtype)
    shape = array.shape
    if shape is None:
        return
    if array.dtype.kind == "O":
        if shape != ():
            raise ValueError(f"{array.name!r} is a list of texts")
        return
    # An array that was never written has no bytes in the file, and would be read as zeros of any number.
    needed = math.prod(shape) * array.dtype.itemsize
    if needed > size or needed > array.id.get_storage_size():
        raise ValueError(f"{array.name!r} is larger than what the file holds of it")


def _check_attributes(item: h5py.Group | h5py.Dataset, size: int, longest: int) -> None:
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        _check_type(name, attribute.dtype)
        count = math.prod(attribute.shape or (1,))
        if count * attribute.dtype.itemsize > size or (
            attribute.dtype.kind == "O" and attribute.shape and count * longest > MAX_STRINGS
        ):
            raise ValueError(f"the attribute {name!r} is too large")


def _check_type(name: str, dtype: np.dtype) -> None:
    if dtype.kind not in "biufS" and h5py.check_string_dtype(dtype) is None:
        raise ValueError(f"{name!r} holds neither numbers nor text")
