"""The readers of pickles, this project's and older ones'."""

import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.common.pickles import load_pickles
from caption_generator.features import load_features
from caption_generator.legacy.pickles import read_tokenizer, unpickle
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

NAME = "x.p"


def seeds() -> Iterator[bytes]:
    for protocol in (0, 2, 4, 5):
        yield pickle.dumps({"words": [*SPECIAL_TOKENS, "dog"], "max_length": 6}, protocol)
        yield pickle.dumps({"a.jpg": np.ones(3, np.float32)}, protocol)
        yield pickle.dumps([np.float32(1), b"bytes", 2**70, None, True, "\u00e9", (1.5,)], protocol)


def read(path: Path) -> None:
    for reader in (lambda path: list(load_pickles(path)), load_features, Tokenizer.load, unpickle, read_tokenizer):
        with suppress(CaptionError):
            reader(path)
