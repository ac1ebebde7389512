"""The engine of a captioner runs the encoder and the decoder. It knows nothing of photo files and beam search."""

from pathlib import Path
from typing import Protocol

import numpy as np

from caption_generator.common.console import load_tensorflow
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_ranking import WordDetector
from caption_generator.search import StepwiseDecoder
from caption_generator.tokenizer import Tokenizer


class Engine(Protocol):
    """A trained model, ready to run.

    Attributes:
        input_size: height and width of its photos, in pixels.
        tokenizer: its vocabulary.
        decoder: its decoder, for `BeamSearch`.
        grid: rows and columns of the positions that attention weights are of; None without attention.
        detector: predicts the words of a photo, to rank captions; or None.
        familiarity: the out-of-distribution score; or None.
        description: encoder and vocabulary, in words.
    """

    input_size: int
    tokenizer: Tokenizer
    decoder: StepwiseDecoder
    grid: tuple[int, int] | None
    detector: WordDetector | None
    familiarity: Familiarity | None
    description: str

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, 0 to 255, of shape (images, input_size, input_size, 3), to float32 features (images, ...)."""
        ...


def load_engine(model: str | Path, encoder_weights: str | Path = "imagenet") -> Engine:
    """Load a checkpoint.

    Args:
        model: any checkpoint of this project.
        encoder_weights: a local file, for a checkpoint whose encoder is neither in it nor downloadable.

    Raises:
        CaptionError: the checkpoint is missing or damaged, or its encoder cannot be had.
    """
    # TensorFlow takes seconds to import, and a model that was exported does without it.
    load_tensorflow()
    from caption_generator.inference.keras_engine import KerasEngine

    return KerasEngine.load(model, encoder_weights)
