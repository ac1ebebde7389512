"""The opener of HDF5 files and the reader of checkpoints, up to where networks would be built."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np

from caption_generator.checkpoint import arrays_digest, check_sizes, read_about
from caption_generator.common.errors import CaptionError
from caption_generator.common.hdf5 import open_plain
from caption_generator.decoders import DecoderSpec
from caption_generator.tokenizer import Tokenizer

NAME = "model.h5"
ABOUT = (
    '{"decoder": {"name": "merge", "feature_size": 6, "vocabulary_size": 5, "units": 4}, "encoder": {}, '
    '"tokenizer": {"words": ["<pad>", "<start>", "<end>", "<unk>", "dog"], "max_length": 6}, "training": {}, '
    '"includes_encoder": false}'
)


def seeds() -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        with h5py.File(Path(folder, NAME), "w") as file:
            file["about"] = ABOUT
            file["model_weights/dense/kernel"] = np.ones((3, 4), "f")
            file["model_weights/dense"].attrs["weight_names"] = ["kernel"]
            file["familiarity"] = np.ones(6, "f2")
            file["familiarity"].attrs["lowest"] = 0.25
        yield Path(folder, NAME).read_bytes()


def read(path: Path) -> None:
    with suppress(CaptionError):
        about = read_about(path)
        # The rest is inside `load_checkpoint`, where any error becomes one sentence.
        with suppress(Exception), open_plain(path) as file:
            arrays_digest(file)
            check_sizes(DecoderSpec(**about["decoder"]), Tokenizer.from_dict(about["tokenizer"]), file)
            for group in file["model_weights"].values():
                list(group.attrs.get("weight_names", ()))
