"""Files of tensors that PyTorch wrote before its version 1.6, read without PyTorch and without running code.

Such a file is a row of pickles and then numbers. A pickle can name any code and have it run; the reader here knows the
few names that a table of tensors needs, and refuses all others.
"""

import math
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from caption_generator.common.pickles import PlainUnpickler, StandIn

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Storage(StandIn):
    """Numbers of one type that tensors share, by the key under which they follow in the file."""

    def __init__(self, key: str, dtype: np.dtype):
        self.key, self.dtype = key, dtype


class _Tensor(StandIn):
    """Where a tensor lies in its storage; offset and strides count numbers, not bytes."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any):
        if not (isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
            raise pickle.UnpicklingError("it holds a tensor without a storage, a shape or strides")
        if not all(type(number) is int for number in (offset, *shape, *strides)):
            raise pickle.UnpicklingError("it holds a tensor whose place is not given by whole numbers")
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def read(self, storage: np.ndarray) -> np.ndarray:
        """The tensor as a view of its storage.

        Raises:
            ValueError: it does not lie within.
        """
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        size = math.prod(self.shape)
        if (
            min(self.offset, *self.shape, *self.strides, 0) < 0
            or size > len(storage)
            or (size and last >= len(storage))
        ):
            raise ValueError("a tensor lies outside its storage")
        strides = [stride * storage.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides, writeable=False)


class _TensorUnpickler(PlainUnpickler):
    """Builds tables of tensors, without their numbers, and refuses everything else."""

    allowed: Mapping[str, Any] = {
        "collections.OrderedDict": lambda: {},
        "torch._utils._rebuild_tensor_v2": _Tensor,
        "torch.FloatStorage": np.dtype("<f4"),
        "torch.LongStorage": np.dtype("<i8"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in self.allowed:
            return self.allowed[f"{module}.{name}"]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which a table of tensors does not need")

    def persistent_load(self, identity: Any) -> _Storage:
        _, dtype, key, *_ = identity
        if not (isinstance(dtype, np.dtype) and isinstance(key, str)):
            raise pickle.UnpicklingError("it holds a storage without a type or a name")
        return _Storage(key, dtype)

    def _load_build(self) -> None:
        if type(self.stack[-2]) is dict:  # what an `OrderedDict` has besides: the versions of layers
            self.stack.pop()
        else:
            super()._load_build()

    dispatch: Mapping[int, Callable] = PlainUnpickler.dispatch | {
        pickle.BINPERSID[0]: pickle._Unpickler.load_binpersid,
        pickle.BUILD[0]: _load_build,
    }


def read_tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    """The tensors of a file, by name.

    Args:
        file: open for reading in binary.

    Returns:
        float32 or int64 arrays, of the tensors' own shapes, read-only.

    Raises:
        ValueError, pickle.UnpicklingError or another error: it is not such a file, is torn or holds more than tensors.
    """
    magic, protocol, _, tensors, keys = (_TensorUnpickler(file).load() for _ in range(5))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("not a file of PyTorch's before version 1.6")
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    content, place, storages = file.read(), 0, {}
    for key in keys:
        size = int(np.frombuffer(content, "<i8", 1, place)[0])
        if size < 0:
            raise ValueError("a storage has less than no numbers")
        storages[key] = np.frombuffer(content, dtypes[key], size, place + 8)
        place += 8 + storages[key].nbytes
    return {name: tensor.read(storages[tensor.storage.key]) for name, tensor in tensors.items()}
