"""The reader of older projects' merge models."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.encoders import EncoderIdentity
from caption_generator.legacy.merge_model import read_merge_model
from caption_generator.legacy.pickles import Vocabulary
from tests.test_hostile_checkpoints import layer, merge_model

NAME = "old.h5"
IDENTITY = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")


def seeds() -> Iterator[bytes]:
    layers = [
        layer("features", "InputLayer", batch_shape=[None, 6]),
        layer("tokens", "InputLayer", batch_shape=[None, 9]),
        layer("image", "Dense", "features", activation="relu", use_bias=True),
        layer("words", "Embedding", "tokens", mask_zero=True),
        layer("sum", "Add", "image", "words"),
        layer("last", "Dense", "sum", activation="softmax", use_bias=True),
    ]
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(Path(folder, NAME), "w") as file:
            file.attrs["model_config"] = merge_model(layers, [["last", 0, 0]])
            file.attrs["keras_version"] = "3.0"
            file["model_weights/last/kernel"] = np.ones((3, 4), "f")
            file["model_weights/last"].attrs["weight_names"] = ["kernel"]
        yield Path(folder, NAME).read_bytes()


def read(path: Path) -> None:
    with suppress(CaptionError):
        read_merge_model(path, Vocabulary(None, np.zeros(5, int), 5), IDENTITY)
