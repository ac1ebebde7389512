"""PyTorch's old files of tensors are read, and what else a pickle can hold is refused."""

import io
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from caption_generator.torch_file import MAGIC, PROTOCOL, read_tensors
from tests.fuzz import torch_files


class Storage:
    """Stands for PyTorch's, which pickle by reference."""

    def __init__(self, kind: type, key: str, size: int):
        self.kind, self.key, self.size = kind, key, size


@pytest.fixture
def write(monkeypatch):
    """A function that writes a file as PyTorch did: name to (storage's key, offset, shape, strides), and storages."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    torch._utils = utils
    for name in ("FloatStorage", "LongStorage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise AssertionError("is never called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Tensor:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return _rebuild_tensor_v2, (*self.arguments, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                return "storage", value.kind, value.key, "cpu", value.size, None
            return None

    def write(tensors: dict, storages: dict[str, np.ndarray], magic: int = MAGIC, **more) -> io.BytesIO:
        kinds = {np.dtype(np.float32): torch.FloatStorage, np.dtype(np.int64): torch.LongStorage}
        made = {key: Storage(kinds[array.dtype], key, array.size) for key, array in storages.items()}
        table = OrderedDict((name, Tensor(made[key], *rest)) for name, (key, *rest) in tensors.items())
        table.update(more)
        file = io.BytesIO()
        for value in (magic, PROTOCOL, {"little_endian": True}, table, sorted(storages)):
            Pickler(file, protocol=2).dump(value)
        for key in sorted(storages):
            file.write(np.int64(storages[key].size).tobytes() + storages[key].tobytes())
        file.seek(0)
        return file

    return write


NUMBERS = np.arange(12, dtype=np.float32)


def test_tensors_are_read_by_their_own_strides_and_from_storages_that_they_share(write):
    file = write(
        {
            "rows": ("7", 0, (3, 4), (4, 1)),
            "columns": ("7", 0, (4, 3), (1, 4)),
            "rest": ("7", 10, (2,), (1,)),
            "count": ("8", 0, (), ()),
        },
        {"7": NUMBERS, "8": np.array([9], np.int64)},
    )
    found = read_tensors(file)
    assert list(found) == ["rows", "columns", "rest", "count"]
    np.testing.assert_array_equal(found["rows"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(found["columns"], NUMBERS.reshape(3, 4).T)
    np.testing.assert_array_equal(found["rest"], [10, 11])
    assert found["count"] == 9
    assert (found["rows"].dtype, found["count"].dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    "place",
    [(0, (13,), (1,)), (11, (2,), (1,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, (2, 2), (11, 1)), (0, (4, 4), (0, 0))],
)
def test_a_tensor_outside_its_storage_is_refused(place, write):
    with pytest.raises(ValueError, match="outside its storage"):
        read_tensors(write({"tensor": ("7", *place)}, {"7": NUMBERS}))


def test_a_torn_file_is_refused(write):
    whole = write({"tensor": ("7", 0, (12,), (1,))}, {"7": NUMBERS}).getvalue()
    for size in (len(whole) - 1, len(whole) - 50, 40, 0):
        with pytest.raises((ValueError, EOFError, pickle.UnpicklingError)):
            read_tensors(io.BytesIO(whole[:size]))


def test_another_kind_of_file_is_refused(write):
    with pytest.raises(ValueError, match=r"before version 1\.6"):
        read_tensors(write({}, {}, magic=1))


def test_a_file_that_names_code_is_refused_and_the_code_is_not_run(write, tmp_path):
    class Touch:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    with pytest.raises(pickle.UnpicklingError, match="does not need"):
        read_tensors(write({}, {}, tensor=Touch()))
    assert not (tmp_path / "ran").exists()


def test_what_the_table_has_besides_its_tensors_is_left_out():
    """PyTorch gives a table of weights the versions of its layers as an attribute."""
    [content] = torch_files.seeds()
    state = pickle.dumps({"_metadata": {"": {"version": 1}}}, 2)[2:-1]
    changed = content.replace(torch_files.TABLE, torch_files.TABLE[:-1] + state + b"b.")
    for file in (content, changed):
        np.testing.assert_array_equal(read_tensors(io.BytesIO(file))["w"], [1, 1])


def test_sizes_that_the_file_does_not_have_reserve_no_memory(write):
    whole = write({"tensor": ("7", 0, (12,), (1,))}, {"7": NUMBERS}).getvalue()
    for size in (-1, 2**40, 2**62):
        with pytest.raises((ValueError, OverflowError)):
            read_tensors(io.BytesIO(whole[:-56] + np.int64(size).tobytes() + whole[-48:]))


@pytest.mark.parametrize("place", [(0.0, (2,), (1,)), (0, [2], (1,)), (0, (2,), None), (0, (True,), (1,))])
def test_a_tensor_whose_place_is_no_numbers_is_refused(place, write):
    with pytest.raises(pickle.UnpicklingError):
        read_tensors(write({"tensor": ("7", *place)}, {"7": NUMBERS}))
