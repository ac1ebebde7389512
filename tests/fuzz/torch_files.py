"""The reader of PyTorch's old files of tensors."""

import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from caption_generator.torch_file import MAGIC, PROTOCOL, read_tensors

NAME = "x.pth"
# An OrderedDict with one tensor of two numbers, as PyTorch spelled it.
TABLE = (
    b"\x80\x02ccollections\nOrderedDict\n)RX\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
    b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x02NtQ"
    b"K\x00K\x02\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtRs."
)


def seeds() -> Iterator[bytes]:
    before = b"".join(pickle.dumps(value, 2) for value in (MAGIC, PROTOCOL, {"little_endian": True}))
    yield before + TABLE + pickle.dumps(["7"], 2) + np.int64(2).tobytes() + np.ones(2, "<f4").tobytes()


def read(path: Path) -> None:
    with open(path, "rb") as file, suppress(Exception):  # of any kind, as it says
        read_tensors(file)
