"""Step 6: photo in, caption out. Load a model once, then caption as many batches as you like.

from caption_generator.captioner import Captioner

captioner = Captioner.load()                            # the model that ships
for result in captioner.caption_files(["dog.jpg"]):
    print(result.best.text, result.best.score)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caption_generator.checkpoint import Checkpoint, find_encoder, load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import frozen_step
from caption_generator.encoders import Encoder
from caption_generator.images import load_batches, load_pixels
from caption_generator.inference.folding import compile_encoder
from caption_generator.search import BeamSearch, Caption
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL


@dataclass(frozen=True)
class Result:
    """What became of one picture: captions, the best first, or an error.

    Attributes:
        path: the picture.
        captions: empty if it could not be read.
        error: one sentence, empty if all went well.
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
    """An encoder and a decoder that belong together, ready to caption."""

    def __init__(self, checkpoint: Checkpoint, encoder: Encoder, beam: int = 3):
        """
        Args:
            checkpoint: from `load_checkpoint`.
            encoder: the one that it was trained with; see `checkpoint.find_encoder`.
            beam: how many captions of an image are followed; 1 is greedy.
        """
        self.checkpoint, self.encoder = checkpoint, encoder
        self.encode = compile_encoder(encoder)
        decoder = checkpoint.decoder
        self.search = BeamSearch(decoder, checkpoint.tokenizer, beam, step=frozen_step(decoder))

    @classmethod
    def load(
        cls, model: str | Path = BUNDLED_MODEL, beam: int = 3, encoder_weights: str | Path = "imagenet"
    ) -> "Captioner":
        """Load a checkpoint and the encoder that belongs to it.

        Args:
            model: any checkpoint of this project.
            encoder_weights: a local file, for a checkpoint whose encoder is neither inside it nor downloadable.

        Raises:
            CaptionError: the checkpoint is missing or damaged, or its encoder cannot be had.
        """
        checkpoint = load_checkpoint(model)
        return cls(checkpoint, find_encoder(checkpoint, encoder_weights), beam)

    def caption_pixels(self, pixels: np.ndarray) -> list[list[Caption]]:
        """Caption pictures that are in memory.

        Args:
            pixels: RGB, 0 to 255, uint8 or float, of shape (images, size, size, 3), where size is
                `self.encoder.row.input_size`.

        Returns:
            For each picture `beam` captions, the best first.
        """
        features = self.encode(pixels)
        return self.rank(features, self.search(features))

    def rank(self, features: np.ndarray, found: list[list[Caption]]) -> list[list[Caption]]:
        """What `self.search` found for `features`, ranked by what the checkpoint knows of photos.

        Where it knows which words a picture calls for, captions that have them come first. Where it knows what is
        usual, their scores are multiplied by how familiar the picture is.
        """
        detector, familiarity = self.checkpoint.detector, self.checkpoint.familiarity
        if detector is not None:
            found = detector.rank(features, found, self.checkpoint.tokenizer)
        if familiarity is None:
            return found
        return [
            [replace(caption, score=caption.score * factor) for caption in captions]
            for factor, captions in zip(familiarity(features).tolist(), found, strict=True)
        ]

    def attention(self, photo: str | Path, caption: Caption) -> np.ndarray:
        """Where in the photo the model looked for each word of its caption, and for its end.

        Returns:
            float32 of shape (words + 1, height, width): attention weights, which sum to 1 for each word.

        Raises:
            CaptionError: the photo cannot be read, or the decoder has no attention.
        """
        attention = self.checkpoint.decoder.attention
        if attention is None:
            raise CaptionError(f"the decoder {self.checkpoint.decoder.spec.name} does not look at places of the photo.")
        features = self._see(photo)
        tokens = self.checkpoint.tokenizer.encode(caption.text)[None, :-1]
        [weights] = attention.predict_on_batch([features, tokens])
        return weights.reshape(-1, *features.shape[1:3])

    def called_for(self, photo: str | Path, top: int = 12) -> dict[str, float]:
        """The words that the photo calls for, and how likely each is in people's captions of it.

        Raises:
            CaptionError: the photo cannot be read, or the checkpoint does not know.
        """
        if self.checkpoint.detector is None:
            raise CaptionError("the model has not learned which words photos call for: use the one that ships.")
        [features] = self._see(photo)
        return self.checkpoint.detector.called_for(features, self.checkpoint.tokenizer, top)

    def _see(self, photo: str | Path) -> np.ndarray:
        """The features of one photo, as of a batch."""
        return self.encode(load_pixels(photo, self.encoder.row.input_size)[None])

    def caption_files(self, paths: Sequence[str | Path], batch_size: int = 32) -> Iterator[Result]:
        """Caption picture files of any kind, in batches, in their order; a broken one costs only its own caption."""
        for batch in load_batches(paths, self.encoder.row.input_size, batch_size):
            captions = iter(self.caption_pixels(batch.pixels)) if batch.pixels.size else iter(())
            for path, error in batch.outcomes:
                yield Result(path, error=error) if error else Result(path, tuple(next(captions)))


def vocabulary_note(checkpoint: Checkpoint, model: str | Path) -> str:
    """One sentence if the `tokenizer.p` of the model's workspace is of another model, else an empty string.

    A checkpoint carries its own vocabulary, which is the one that is used.
    """
    above = Path(model).resolve().parents[1:3]  # models/model.h5, or models/finetuned/model.h5
    beside = next((folder / "tokenizer.p" for folder in above if (folder / "tokenizer.p").is_file()), None)
    if beside is None:
        return ""
    try:
        found = Tokenizer.load(beside)
    except CaptionError as error:
        return f"the vocabulary inside {model} was used, since {error}"
    own = checkpoint.tokenizer
    if found.fingerprint == own.fingerprint:
        return ""
    return (
        f"the vocabulary inside {model} ({len(own)} words) was used; "
        f"tokenizer.p belongs to another model ({len(found)} words)."
    )
