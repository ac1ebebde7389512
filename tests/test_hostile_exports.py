"""An exported model from anyone is read whole, or refused with one sentence, at the cost of its size."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caption_generator.common.errors import CaptionError
from caption_generator.inference.exported import ExportedModel, find_export, read_about
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.watch import bounded

Parts = dict[str, bytes]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "model.litert"


@pytest.fixture
def parts(path) -> Parts:
    """The content of a good exported model, whose networks are no networks."""
    ExportedModel(
        fingerprint="0123456789ab",
        description="tiny",
        input_size=16,
        grid=(2, 2),
        tokenizer=Tokenizer([*SPECIAL_TOKENS, "dog", "cat"], 6),
        networks=dict.fromkeys(("encoder", "start", "step"), b"network"),
        detector=WordDetector(np.ones(3, "f"), np.ones((6, 3), "f"), np.ones(6, "f"), 1.25),
        familiarity=Familiarity(np.ones(3, "f"), 0.25, 0.75),
        classifier=ImageNetClassifier(np.ones((3, 1000), "f"), np.ones(1000, "f")),
    ).save(path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path: Path, parts: Parts, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)


def refused(path: Path) -> None:
    with bounded(60, seconds=10), pytest.raises(CaptionError, match=r"model\.litert is damaged") as refusal:
        ExportedModel.load(path)
    assert str(refusal.value).isprintable()


def test_the_model_that_is_changed_in_these_tests_is_a_good_one(parts, path):
    write(path, parts)
    model = ExportedModel.load(path)
    assert model.detector.threshold == 1.25
    assert model.grid == (2, 2)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_torn_file_is_one_sentence(share, parts, path):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


def test_a_flipped_bit_is_noticed_or_changes_nothing(parts, path):
    content = path.read_bytes()
    whole = ExportedModel.load(path)
    noticed = 0
    for place in range(0, len(content), 7):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = ExportedModel.load(path)
        except CaptionError as error:
            assert str(error).isprintable()
            noticed += 1
        else:
            assert found.networks == whole.networks and found.tokenizer.words == whole.tokenizer.words
            assert found.detector.weights.tobytes() == whole.detector.weights.tobytes()
    assert noticed > len(content) / 7 / 2


@pytest.mark.parametrize("name", ["about.json", "encoder.tflite", "detector_weights.npy"])
def test_a_part_that_is_compressed_is_refused_unread(name, parts, path):
    write(path, parts | {name: bytes(1 << 27)}, zipfile.ZIP_DEFLATED)
    refused(path)


@pytest.mark.parametrize("name", ["about.json", "encoder.tflite", "detector_weights.npy", "familiarity_mean.npy"])
def test_a_part_that_is_missing_is_one_sentence(name, parts, path):
    del parts[name]
    write(path, parts)
    refused(path)


def npy(array: np.ndarray, **options: bool) -> bytes:
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def header(shape: str, kind: str = "'<f4'") -> bytes:
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


ARRAYS = {
    "a pickle": pickle.dumps(Evil()),
    "an array of objects": npy(np.array([Evil()], object), allow_pickle=True),
    "terabytes by its header": header("(1000000000000,)"),
    "sizes that overflow": header("(4294967296, 4294967296, 4294967296)"),
    "a negative size": header("(-1,)") + bytes(4),
    "a header that is code": header("__import__('os').system('touch ran')"),
    "a header nested deep": header("(" * 50 + ")" * 50),
    "not a number": npy(np.array([np.nan, 1, 1], "f")),
    "whole numbers": npy(np.ones(3, int)),
    "text": npy(np.array(["a", "b", "c"])),
    "another length": npy(np.ones(4, "f")),
    "nothing": b"",
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_lies_is_refused(name, parts, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(path, parts | {"detector_mean.npy": ARRAYS[name]})
    refused(path)
    assert not Path("ran").exists()


@pytest.mark.parametrize("shape", [(3, 999), (3,), (1000, 3)])
def test_a_classifier_of_other_classes_is_refused(shape, parts, path):
    write(path, parts | {"classifier_kernel.npy": npy(np.ones(shape, "f"))})
    refused(path)


def change(**changes: object) -> Callable[[dict], dict]:
    return lambda about: about | changes


ABOUTS = {
    "nested 200,000 deep": lambda _: b"[" * 200_000 + b"]" * 200_000,
    "a list": lambda _: [],
    "nothing": lambda _: {"format": 1},
    "words that steer a terminal": change(tokenizer={"words": [*SPECIAL_TOKENS, "\x1b[2J", "x"], "max_length": 6}),
    "endless captions": change(tokenizer={"words": [*SPECIAL_TOKENS, "dog", "cat"], "max_length": 10**9}),
    "too few words": change(tokenizer={"words": [*SPECIAL_TOKENS, "dog"], "max_length": 6}),
    "huge photos": change(input_size=10**6),
    "photos of text": change(input_size="16"),
    "a grid of text": change(grid="22"),
    "a threshold that is no number": change(detector={"threshold": float("nan")}),
    "limits that are text": change(familiarity={"lowest": "low", "usual": 1}),
}


@pytest.mark.parametrize("name", ABOUTS)
def test_a_description_that_lies_is_refused(name, parts, path):
    about = ABOUTS[name](json.loads(parts["about.json"]))
    write(path, parts | {"about.json": about if isinstance(about, bytes) else json.dumps(about).encode()})
    refused(path)


def test_a_name_that_leaves_the_folder_writes_nothing(parts, path, tmp_path):
    write(path, parts | {"../../escaped": b"x", "/tmp/escaped": b"x"})
    ExportedModel.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.litert"]
    assert not (tmp_path.parent.parent / "escaped").exists()


def test_a_fifo_does_not_hang(tmp_path, path):
    os.mkfifo(path)
    for read in (ExportedModel.load, read_about):
        with bounded(50, seconds=5), pytest.raises(CaptionError, match="not a regular file"):
            read(path)
    assert find_export(path) is None


@pytest.mark.parametrize("name", ["encoder", "start", "step"])
def test_a_network_that_is_none_is_one_sentence(name, parts, path):
    engine = pytest.importorskip("caption_generator.inference.litert_engine")
    write(path, parts)
    with pytest.raises(CaptionError, match="LiteRT cannot read the exported model"):
        engine.LiteRTEngine.load(path)
