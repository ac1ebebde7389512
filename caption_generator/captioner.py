"""Step 6: photo in, caption out. Load a model once, then caption as many photos as you like.

from caption_generator.captioner import Captioner

captioner = Captioner.load()                            # the shipped model
for result in captioner.caption_files(["dog.jpg"]):
    print(result.best.text, result.best.score)
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import is_file
from caption_generator.images import load_batches, load_pixels
from caption_generator.inference.engine import Engine, load_engine
from caption_generator.search import BEAM, BeamSearch, Caption
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL


@dataclass(frozen=True)
class Result:
    """The captions of one picture, or why there are none.

    Attributes:
        path: the picture.
        captions: the best first; empty if the picture could not be read.
        error: one sentence; empty if all went well.
    """

    path: Path
    captions: tuple[Caption, ...] = ()
    error: str = ""

    @property
    def best(self) -> Caption:
        """The best caption.

        Raises:
            CaptionError: the picture could not be read.
        """
        if self.error:
            raise CaptionError(self.error)
        return self.captions[0]


class Captioner:
    """An encoder, a decoder and a beam search that belong together.

    Attributes:
        engine: what runs the networks.
        search: the beam search over its decoder.
    """

    def __init__(self, engine: Engine, beam: int = BEAM):
        """
        Args:
            engine: from `load_engine`.
            beam: how many captions of a photo the search follows; 1 is greedy search.
        """
        self.engine = engine
        # Where captions are ranked, twice as many make dev CIDEr almost a point higher, and take a tenth more time.
        ranks = engine.detector is not None and beam > 1
        self.search = BeamSearch(engine.decoder, engine.tokenizer, beam, captions=2 * beam if ranks else beam)

    @classmethod
    def load(
        cls, model: str | Path = BUNDLED_MODEL, beam: int = BEAM, encoder_weights: str | Path = "imagenet"
    ) -> "Captioner":
        """Load a model; where it was exported and LiteRT is installed, without TensorFlow.

        Args:
            model: any checkpoint of this project, or an exported model.
            encoder_weights: a local file, for a checkpoint whose encoder is neither in it nor downloadable.

        Raises:
            CaptionError: the checkpoint is missing or damaged, or its encoder cannot be had.
        """
        return cls(load_engine(model, encoder_weights), beam)

    def caption_pixels(self, pixels: np.ndarray) -> list[list[Caption]]:
        """Caption pictures that are in memory.

        Args:
            pixels: RGB, 0 to 255, uint8 or float, of shape (images, size, size, 3), where size is
                `self.engine.input_size`.

        Returns:
            For each picture at most `beam` captions, and at least one, the best first.
        """
        threads = min(self.engine.threads, len(pixels))
        if threads <= 1:
            return self._caption(pixels) if threads else []
        parts = np.array_split(pixels, threads)
        with ThreadPoolExecutor(threads) as pool:
            return [captions for found in pool.map(self._caption, parts) for captions in found]

    def _caption(self, pixels: np.ndarray) -> list[list[Caption]]:
        features = self.engine.encode(pixels)
        return self.rank(features, self.search(features))

    def rank(self, features: np.ndarray, found: list[list[Caption]]) -> list[list[Caption]]:
        """Rank and score what `self.search` found for `features`, as far as the model can.

        Its word detector ranks the captions. Where its classifier is sure of a thing that the best caption does not
        name, captions with its name take their place if they are good enough; see `ImageNetClassifier`. Scores are
        multiplied by how familiar the photo is. The best captions are kept, as many as the search follows.
        """
        found = list(self._score(features, found))
        if self.engine.classifier is not None:
            photos, named = self.engine.classifier.name(features, found, self.search)
            for photo, captions in zip(photos, self._score(features[photos], named), strict=True):
                found[photo] = captions
        return [captions[: self.search.beam] for captions in found]

    def _score(self, features: np.ndarray, found: list[list[Caption]]) -> list[list[Caption]]:
        """Rank by the word detector, and note how familiar each photo is."""
        detector, familiarity = self.engine.detector, self.engine.familiarity
        if detector is not None and found:
            found = detector.rank(features, found, self.engine.tokenizer)
        if familiarity is None or not found:
            return found
        return [
            [replace(caption, familiarity=factor) for caption in captions]
            for factor, captions in zip(familiarity(features).tolist(), found, strict=True)
        ]

    def predicted_words(self, photo: str | Path, top: int = 12) -> dict[str, float]:
        """The words that the photo itself predicts, and the probability of each in people's captions of it.

        Raises:
            CaptionError: the photo cannot be read, or the model has no word detector.
        """
        if self.engine.detector is None:
            raise CaptionError("this model has no word detector: use the one that ships.")
        [features] = self.engine.encode(load_pixels(photo, self.engine.input_size)[None])
        return self.engine.detector.predicted_words(features, self.engine.tokenizer, top)

    def caption_files(self, paths: Sequence[str | Path], batch_size: int = 32) -> Iterator[Result]:
        """Caption picture files of any kind, in batches, in their order; a broken one costs only its own caption."""
        for batch in load_batches(paths, self.engine.input_size, batch_size):
            captions = iter(self.caption_pixels(batch.pixels))
            for path, error in batch.outcomes:
                yield Result(path, error=error) if error else Result(path, tuple(next(captions)))


def vocabulary_note(tokenizer: Tokenizer, model: str | Path) -> str:
    """One sentence if the `tokenizer.p` of the model's workspace is of another model, else an empty string.

    Args:
        tokenizer: the vocabulary inside the model, which is the one in use.
        model: the checkpoint's path.
    """
    above = Path(model).resolve().parents[1:3]  # models/model.h5, or models/finetuned/model.h5
    beside = next((folder / "tokenizer.p" for folder in above if is_file(folder / "tokenizer.p")), None)
    if beside is None:
        return ""
    try:
        found = Tokenizer.load(beside)
    except CaptionError as error:
        return f"the vocabulary inside {model} was used, because {error}"
    if found.fingerprint == tokenizer.fingerprint:
        return ""
    return (
        f"the vocabulary inside {model} ({len(tokenizer)} words) was used; "
        f"tokenizer.p belongs to another model ({len(found)} words)."
    )
