"""The engine of a captioner runs the encoder and the decoder. It knows nothing of photo files and beam search."""

from pathlib import Path
from typing import Protocol

import numpy as np

from caption_generator.common.console import load_tensorflow
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import is_file
from caption_generator.inference.exported import SUFFIX, export_path, find_export
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.search import StepwiseDecoder
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import missing_model


class Engine(Protocol):
    """A trained model, ready to run. Threads may share it.

    Attributes:
        input_size: height and width of its photos, in pixels.
        tokenizer: its vocabulary.
        decoder: its decoder, for `BeamSearch`.
        grid: rows and columns of the positions that attention weights are of; None without attention.
        detector: predicts the words of a photo, to rank captions; or None.
        classifier: knows what the photo shows, to name it in captions; or None.
        familiarity: the out-of-distribution score; or None.
        description: encoder and vocabulary, in words.
        threads: so many threads must call it at the same time to use all cores.
    """

    input_size: int
    tokenizer: Tokenizer
    grid: tuple[int, int] | None
    detector: WordDetector | None
    classifier: ImageNetClassifier | None
    familiarity: Familiarity | None
    description: str
    threads: int

    @property
    def decoder(self) -> StepwiseDecoder: ...

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels, 0 to 255, of shape (images, input_size, input_size, 3), to float32 features (images, ...)."""
        ...


def load_engine(model: str | Path, encoder_weights: str | Path = "imagenet") -> Engine:
    """Load a model: with LiteRT where it was exported and LiteRT is installed, otherwise with TensorFlow.

    Args:
        model: any checkpoint of this project, or an exported model.
        encoder_weights: a local file, for a checkpoint whose encoder is neither in it nor downloadable.

    Raises:
        CaptionError: the model is missing or damaged, or its encoder cannot be had, or what it needs is not installed.
    """
    exported = find_export(model)
    if exported:
        try:
            from caption_generator.inference.litert_engine import LiteRTEngine
        except ImportError:  # no package of it for this system, or not installed
            pass
        else:
            return LiteRTEngine.load(exported)
    if not is_file(model) or Path(model).suffix == SUFFIX:
        raise CaptionError(_no_checkpoint(model, exported))
    try:
        # TensorFlow takes seconds to import, and a model that was exported does without it.
        load_tensorflow()
    except ImportError as error:
        raise CaptionError(_needs(model, exported)) from error
    from caption_generator.inference.keras_engine import KerasEngine

    return KerasEngine.load(model, encoder_weights)


def _no_checkpoint(model: str | Path, exported: Path | None) -> str:
    """Why there is nothing that TensorFlow could load, in one sentence."""
    if exported:
        return f"{exported} needs LiteRT, which is not installed: pip install -r requirements-caption.txt."
    if is_file(model):
        checkpoint = Path(model).with_suffix(".h5")
        return f"{model} was exported before {checkpoint} changed: name {checkpoint} itself, or export it again."
    try:
        if not Path(model).exists():
            return missing_model(model)
        trouble = f"is a {'folder' if Path(model).is_dir() else 'device'}, not a model"
    except OSError as error:  # nobody may look there, or the name is too long
        trouble = f"cannot be read ({error.strerror})"
    return f"{model} {trouble}: name an .h5 or .litert file."


def _needs(model: str | Path, exported: Path | None) -> str:
    """What to install where there is no TensorFlow, in one sentence."""
    if exported:
        return f"{model} needs LiteRT or TensorFlow, and neither is installed: pip install -r requirements-caption.txt."
    reason = "was exported before it changed" if export_path(model).is_file() else "was not exported"
    return f"{model} {reason}, so it needs TensorFlow, which is not installed: pip install -r requirements.txt."
