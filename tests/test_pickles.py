"""A pickle from a stranger costs no more than a file of its size deserves, and never reaches foreign memory.

The hostile ones are read in a process of their own, with a limit on memory and time.
"""

import os
import pickle
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caption_generator.common import pickles
from caption_generator.common.errors import CaptionError
from caption_generator.common.pickles import load_pickles

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
READ = """
import sys
from caption_generator.common import pickles
from caption_generator.common.errors import CaptionError
pickles._Opcodes.left = 300_000  # to be done sooner
for path in sys.argv[1:]:
    try:
        print(list(pickles.load_pickles(path)), flush=True)
    except CaptionError as error:
        print(error, flush=True)
"""
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
POINTER = struct.pack("<Q", 0x4141414141414141)


def dtype(code: bytes, state: bytes = b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb") -> bytes:
    return b"cnumpy\ndtype\n(S'" + code + b"'\nI00\nI01\ntR" + state


def array(shape: bytes, kind: bytes, raw: bytes) -> bytes:
    return ARRAY + b"(I1\n" + shape + kind + b"I00\n" + b"B" + struct.pack("<I", len(raw)) + raw + b"tb"


OBJECT_FIELD = b"(I3\nS'|'\nN(S'a'\nt}S'a'\n(" + dtype(b"O8") + b"I0\ntsI8\nI1\nI63\ntb"
LAUGHS = b"(lp0\n0" + b"".join(b"(" + b"g%d\n" % n * 10 + b"lp%d\n0" % (n + 1) for n in range(12))
HASHED = b"(tp0\n0" + b"".join(b"(" + b"g%d\n" % n * 2 + b"tp%d\n0" % (n + 1) for n in range(60))
LONG = b"X" + struct.pack("<I", 10_000_000) + b"a" * 10_000_000 + b"q\x000"
HOSTILE = {
    "pointers by an object field": array(b"(I1\nt", dtype(b"V8", OBJECT_FIELD), POINTER) + b".",
    "objects": array(b"(I1\nt", dtype(b"O8"), POINTER) + b".",
    "objects by flags": array(b"(I1\nt", dtype(b"f8", b"(I3\nS'|'\nN(S'a'\nt}I8\nI1\nI63\ntb"), POINTER) + b".",
    "a number that is a pointer": b"cnumpy.core.multiarray\nscalar\n(" + dtype(b"O8") + b"S'\\x01'\ntR.",
    "more numbers than bytes": array(b"(I1000000\nt", dtype(b"f8"), POINTER) + b".",
    "fewer numbers than bytes": array(b"(I0\nt", dtype(b"f8"), POINTER) + b".",
    "sizes that overflow": array(b"(I4294967296\nI4294967296\nI4294967296\nt", dtype(b"f8"), b"") + b".",
    "negative sizes": array(b"(I-1\nI-1\nt", dtype(b"f8"), POINTER) + b".",
    "a shape of text": array(b"S'8'\n", dtype(b"f8"), POINTER) + b".",
    "33 dimensions": array(b"(" + b"I1\n" * 33 + b"t", dtype(b"f8"), POINTER) + b".",
    "numbers of no size": array(b"(I9999999999\nt", dtype(b"S0"), b"") + b".",
    "text of gigabytes": array(b"(I1\nt", dtype(b"U999999999"), b"") + b".",
    "dates": array(b"(I1\nt", dtype(b"M8"), POINTER) + b".",
    "numpy's own buffer": b"cnumpy._core.numeric\n_frombuffer\n(C\x08" + POINTER + dtype(b"O8") + b"(I1\ntS'C'\ntR.",
    "a buffer that is too short": b"cnumpy._core.numeric\n_frombuffer\n(C\x08" + POINTER + dtype(b"f8")
    + b"(I9\ntS'C'\ntR.",
    "a type alone": dtype(b"f8") + b".",
    "a function alone": b"cnumpy.core.multiarray\n_reconstruct\n.",
    "a function that is changed": b"c_codecs\nencode\nN}S'__defaults__'\n(S'x'\ntsI0\n\x86b.",
    "a class that is changed": b"cnumpy\ndtype\nN}S'__setstate__'\nI1\ns\x86b.",
    "an array that is indexed": array(b"(I1\nt", dtype(b"f8"), POINTER) + b"I0\nI1\ns.",
    "a frame of terabytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 42) + b".",
    "bytes of terabytes": b"\x8e" + struct.pack("<Q", 1 << 42) + b".",
    "a byte array of gigabytes": b"\x80\x05\x96" + struct.pack("<Q", 20 << 30) + b".",
    "text of terabytes": b"\x8d" + struct.pack("<Q", 1 << 42) + b".",
    "a list of lists of lists": LAUGHS + b"g12\n.",
    "a dict that hides them": b"}S'a'\n" + LAUGHS + b"g12\ns.",
    "a key that takes for ever to hash": HASHED + b"}g60\nI1\ns.",
    "keys in a pickled dict": HASHED + b"(g60\nI1\nd.",
    "ten million letters, often": LONG + b"(" + b"h\x00" * 1000 + b"l.",
    "ten million bytes, made often": LONG + b"(" + b"c_codecs\nencode\n(h\x00S'latin1'\ntR" * 1000 + b"l.",
    "numbers that collide": b"}(" + b"".join(b"L%dL\nN" % (n * (2**61 - 1)) for n in range(1000)) + b"u.",
    "a list that holds itself": b"(lp0\ng0\na.",
    "a dict that holds itself": b"}p0\nS'a'\ng0\ns.",
    "deep lists": b"(" * 100_000 + b"l" * 100_000 + b".",
    "deep tuples": b")" + b"\x85" * 200_000 + b".",
    "deep tuples as a key": b"}" + b")" + b"\x85" * 200_000 + b"Ns.",
    "many parts": b"(" + b")" * 400_000 + b"l.",
    "many marks": b"(" * 400_000 + b".",
    "a huge number": b"\x8b" + struct.pack("<I", 200) + b"\x7f" * 200 + b".",
    "10 ** 400": b"}S'a.jpg'\nL1" + b"0" * 400 + b"L\ns.",
    "10 ** 5000": b"L1" + b"0" * 5000 + b"L\n.",
    "an extension": b"\x82\x01.",
    "a persistent name": b"Pa\n.",
    "a set": b"\x80\x04\x8f.",
    "an old instance": b"(icollections\nOrderedDict\n.",
    "a name with an escape sequence": b"cnumpy\n\x1b[31mload\n.",
    "nothing to take": b"0.",
    "no mark": b"l.",
    "letters": b"hello, I am a text",
}  # fmt: skip


def read_apart(*paths: Path) -> list[str]:
    """What a process that may take 3 GB and two minutes says of each pickle."""
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)),
    )
    said = done.stdout.split("\n")[:-1]
    assert (done.returncode, done.stderr, len(said)) == (0, "", len(paths)), (done, paths[len(said) :])
    return said


def test_a_hostile_pickle_is_one_sentence(tmp_path):
    paths = []
    for number, content in enumerate(HOSTILE.values()):
        paths.append(tmp_path / f"{number}.p")
        paths[-1].write_bytes(content)
    for name, path, sentence in zip(HOSTILE, paths, read_apart(*paths), strict=True):
        assert sentence.startswith(f"{path} is not a pickle of plain data ("), (name, sentence[:500])
        assert sentence.isprintable() and len(sentence) < 700, name


def test_a_memo_index_costs_no_memory(tmp_path):
    (tmp_path / "tokenizer.p").write_bytes(b"Nr" + struct.pack("<I", 1 << 29) + b".")
    assert read_apart(tmp_path / "tokenizer.p") == ["[None]"]


def test_the_cases_of_others_are_refused(shared):
    paths = sorted((shared / "cases" / "pickles").glob("*.p"))
    for path, sentence in zip(paths, read_apart(*paths), strict=True):
        assert sentence == "[None]" or sentence.startswith(f"{path} is not a pickle of plain data"), sentence


def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "features.p")
    with pytest.raises(CaptionError, match=r"cannot read .*features\.p: not a regular file"):
        list(load_pickles(tmp_path / "features.p"))


def test_a_file_larger_than_any_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_BYTES", 1 << 30)
    with open(tmp_path / "features.p", "wb") as file:
        file.write(b"\x8e" + struct.pack("<Q", 2 << 30))
        file.truncate(3 << 30)
    with pytest.raises(CaptionError, match="larger than 1 GiB"):
        list(load_pickles(tmp_path / "features.p"))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_array_that_stands_twice_is_one_array_and_can_be_written_to(tmp_path, protocol):
    vector = np.arange(6, dtype="f4")
    (tmp_path / "features.p").write_bytes(pickle.dumps({"a": vector, "b": [vector, vector[::2]]}, protocol))
    (loaded,) = load_pickles(tmp_path / "features.p")
    assert loaded["a"] is loaded["b"][0]
    loaded["a"][0] = 7
    assert loaded["a"].tolist() == [7, 1, 2, 3, 4, 5]
    assert loaded["b"][1].tolist() == [0, 2, 4]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", ["bool", "int8", "uint64", "float16", ">i4", "complex64", "S3", "U3"])
def test_arrays_and_numbers_of_every_plain_type_come_back(tmp_path, protocol, kind):
    values = np.arange(8).astype(kind)
    grid = np.asfortranarray(np.arange(24).astype(kind).reshape(2, 3, 4).transpose(1, 2, 0))
    (tmp_path / "x.p").write_bytes(pickle.dumps([values, grid, values[3], values.reshape(2, 4).T], protocol))
    ((first, second, number, turned),) = load_pickles(tmp_path / "x.p")
    for found, wanted in ((first, values), (second, grid), (turned, values.reshape(2, 4).T)):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype in (wanted.dtype, wanted.dtype.newbyteorder("="))  # NumPy's own reader swaps bytes, too
    assert number == values[3] and type(number) is type(values[3])


def test_an_array_of_no_dimensions_comes_back(tmp_path):
    (tmp_path / "x.p").write_bytes(pickle.dumps(np.array(2.5)))
    (loaded,) = load_pickles(tmp_path / "x.p")
    assert (loaded.shape, loaded[()]) == ((), 2.5)


def test_words_that_stand_in_several_lists_are_no_bomb(tmp_path):
    words = [f"word{number}" for number in range(20_000)]
    numbers = {word: number for number, word in enumerate(words)}
    value = {"words": words, "numbers": numbers, "back": dict(enumerate(words)), "counts": [numbers] * 3}
    (tmp_path / "tokenizer.p").write_bytes(pickle.dumps(value))
    assert list(load_pickles(tmp_path / "tokenizer.p")) == [value]


def test_a_pickle_changes_nothing_that_the_next_one_meets(tmp_path):
    for name in ("a function that is changed", "a class that is changed"):
        (tmp_path / "bad.p").write_bytes(HOSTILE[name])
        with pytest.raises(CaptionError):
            list(load_pickles(tmp_path / "bad.p"))
    (tmp_path / "good.p").write_bytes(pickle.dumps([b"\xff", np.arange(3)], 2))
    ((raw, numbers),) = load_pickles(tmp_path / "good.p")
    assert (raw, numbers.tolist()) == (b"\xff", [0, 1, 2])
