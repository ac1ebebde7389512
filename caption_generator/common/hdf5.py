"""HDF5 files from anywhere, opened so that reading one costs no more than its size and reaches nothing else.

An HDF5 file can refer to arrays in other files and devices. Its arrays can be compressed, missing or computed. Files of
Keras and of this project have none of that, so all of it is refused before an array is read.
"""

import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from caption_generator.common.files import open_regular
from caption_generator.common.hdf5_heaps import check_attributes, check_lengths, check_names, longest_text

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_METADATA = 64 << 20  # bytes of a file that are not arrays: names, settings, vocabulary
MAX_STRINGS = 1 << 29  # bytes that a list of texts may take
MAX_TEXTS = 100  # different names of attributes with texts, each of which is searched for in the file


@contextmanager
def open_plain(path: str | Path) -> Iterator[h5py.File]:
    """Open a regular HDF5 file to read, and check that all of its arrays are plain.

    Raises:
        OSError: it cannot be opened at all.
        ValueError: an array is not plain.
    """
    with open_regular(path) as file:
        if not file.seek(0, os.SEEK_END):
            raise OSError("it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[: len(SIGNATURE)] != SIGNATURE:  # HDF5 allows it further on, where other addresses count
                raise OSError("it does not begin as HDF5 does")
            check_names(content)
            longest = longest_text(content)
            with h5py.File(path, "r") as opened:
                _check_plain(opened, content, longest)
                yield opened


def _check_plain(file: h5py.File, content: mmap.mmap, longest: int) -> None:
    """Refuse links, and arrays and attributes that do not lie in the file as they are.

    Raises:
        ValueError: there is one, or the file is of an unusual kind.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):  # bytes of an offset and of a length, as everyone writes them
        raise ValueError("it is HDF5 of an unusual kind")
    seen, todo, found, stored = {_address(file)}, [file], [], 0
    while todo:
        item = todo.pop()
        found.append(item)
        if isinstance(item, h5py.Dataset):
            _check_array(item, content, longest)
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
    if len(content) - stored > MAX_METADATA:
        raise ValueError(f"{(len(content) - stored) >> 20:,} MiB of it are no arrays")
    texts = {name for item in found for name in _check_attributes(item, content, longest)}
    if len(texts) > MAX_TEXTS:
        raise ValueError("it has too many attributes with texts")
    for name in texts:
        check_attributes(content, name, longest)


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _check_array(array: h5py.Dataset, content: mmap.mmap, longest: int) -> None:
    if array.external or array.is_virtual or array.chunks:
        raise ValueError(f"{array.name!r} is not stored plainly in the file")
    _check_type(array.name, array.dtype)
    shape = array.shape
    if shape is None:
        return
    if array.dtype.kind == "O":
        if shape != ():
            raise ValueError(f"{array.name!r} is a list of texts")
        if (place := array.id.get_offset()) is None:
            raise ValueError(f"{array.name!r} is a text that is stored in an unusual way")
        check_lengths(content, place, 1, longest)
        return
    # An array that was never written has no bytes in the file, and would be read as zeros of any number.
    needed = math.prod(shape) * array.dtype.itemsize
    if needed > len(content) or needed > array.id.get_storage_size():
        raise ValueError(f"{array.name!r} is larger than what the file holds of it")


def _check_attributes(item: h5py.Group | h5py.Dataset, content: mmap.mmap, longest: int) -> Iterator[str]:
    """Check the attributes of a group or an array, and give the names of those that hold texts."""
    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        _check_type(name, attribute.dtype)
        count, is_text = math.prod(attribute.shape or (1,)), attribute.dtype.kind == "O"
        if count * attribute.dtype.itemsize > len(content) or (
            is_text and attribute.shape and count * longest > MAX_STRINGS
        ):
            raise ValueError(f"the attribute {name!r} is too large")
        if is_text:
            yield name


def _check_type(name: str, dtype: np.dtype) -> None:
    if dtype.kind not in "biufS" and h5py.check_string_dtype(dtype) is None:
        raise ValueError(f"{name!r} holds neither numbers nor text")
