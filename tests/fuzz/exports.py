"""The reader of exported models, without LiteRT."""

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.inference.exported import ExportedModel
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

NAME = "model.litert"


def seeds() -> Iterator[bytes]:
    detector = WordDetector(np.ones(3, "f"), np.ones((5, 3), "f"), np.ones(5, "f"), 1.25)
    words = Tokenizer([*SPECIAL_TOKENS, "dog"], 6)
    networks = dict.fromkeys(("encoder", "start", "step"), b"network")
    with tempfile.TemporaryDirectory() as folder:
        classifier = ImageNetClassifier(np.ones((3, 1000), "f"), np.ones(1000, "f"))
        for more in ((), (detector, Familiarity(np.ones(3, "f"), 0.25, 0.75), classifier)):
            ExportedModel("0123456789ab", "tiny", 16, None, words, networks, *more).save(Path(folder, NAME))
            yield Path(folder, NAME).read_bytes()


def read(path: Path) -> None:
    with suppress(CaptionError):
        ExportedModel.load(path)
