"""The heaps of names and texts in HDF5 files. HDF5 believes what they say of their sizes, before it looks at the text.

A group keeps the names of its members in a heap. Another kind of heap holds texts of any length. An array or an
attribute holds 16 bytes for each such text: 4 bytes for its length, 8 for the address of its heap, 4 for its number
there. These functions read the bytes themselves, before HDF5 does.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from itertools import accumulate

HEAP = b"GCOL\1"  # the beginning of a heap of texts
NAMES = b"HEAP\0\0\0\0"  # of a heap of names
LAST = 1  # in the place of the next free block, the list of them ends
REFERENCE = 16  # bytes
TEXTS, EMPTY = 9, 2  # the class of their datatype, and the kind of shape of an attribute without a value


def check_names(content: mmap.mmap) -> None:
    """Follow the list of free blocks in each heap of names, as HDF5 will before it reads a name.

    HDF5 File Format Specification, III.D, "Local Heaps".

    Raises:
        ValueError: a list has more blocks than there is room for.
    """
    for start in _places(content, NAMES):
        if start + 32 > len(content):
            continue
        size, free, data = struct.unpack_from("<QQQ", content, start + 8)
        for _ in range(min(size, len(content)) // 16 + 1):
            if free == LAST or data + free + 16 > len(content):
                break  # HDF5 refuses what is outside the file
            (free,) = struct.unpack_from("<Q", content, data + free)
        else:
            raise ValueError("a heap of names is damaged")


def longest_text(content: mmap.mmap) -> int:
    """The size of the largest heap of texts. Each text of a list may be the same one, and as large.

    Raises:
        ValueError: a heap is damaged.
    """
    return max((_check_heap(content, start) for start in _places(content, HEAP)), default=0)


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


def check_lengths(content: mmap.mmap, place: int, count: int, longest: int) -> None:
    """Check the lengths of `count` texts whose references lie at `place`.

    Raises:
        ValueError: one is longer than `longest`.
    """
    if place + count * REFERENCE > len(content):
        raise ValueError("a list of texts is cut off")
    for start in range(place, place + count * REFERENCE, REFERENCE):
        if struct.unpack_from("<I", content, start)[0] > longest:
            raise ValueError("a text is longer than what the file holds of it")


def check_attributes(content: mmap.mmap, name: str, longest: int) -> None:
    """Check all attributes of a name that hold texts. They lie just behind the name; h5py does not tell where.

    HDF5 File Format Specification, IV.A.2.m, "The Attribute Message", versions 1 to 3.

    Raises:
        ValueError: a text is longer than `longest`, or there is no such attribute.
    """
    encoded, found = name.encode(), 0
    for place in _places(content, encoded + b"\0"):
        for version, head in ((1, 8), (2, 8), (3, 9)):
            start = place - head
            if start < 0 or content[start] != version:
                continue
            unit = 8 if version == 1 else 1  # parts begin at multiples of it
            sizes = struct.unpack_from("<HHH", content, start + 2)
            name_end, type_end, end = list(accumulate((-(-size // unit) * unit for size in sizes), initial=place))[1:]
            if sizes[0] == len(encoded) + 1 and content[name_end] & 15 == TEXTS:
                check_lengths(content, end, _count(content[type_end:end]), longest)
                found += 1
    if not found:
        raise ValueError(f"the attribute {name!r} is stored in an unusual way")


def _count(dataspace: bytes) -> int:
    """The number of values in an array, by its dataspace message; 0 if it is said to be empty."""
    version, rank = dataspace[:2]
    if version == 2 and dataspace[3] == EMPTY:
        return 0
    return math.prod(struct.unpack_from(f"<{rank}Q", dataspace, 8 if version == 1 else 4))


def _places(content: mmap.mmap, wanted: bytes) -> Iterator[int]:
    place = content.find(wanted)
    while place >= 0:
        yield place
        place = content.find(wanted, place + 1)
