"""A trained model in one `.h5` file that knows what it belongs to.

The file is what Keras saves as `.h5`, with one more dataset, `about`: a JSON text with the encoder, the decoder's row,
the vocabulary and the training data. `familiarity` and `detector` are there once the model knows what photos usually
look like to it, and which words they call for. To load the file, the networks are built anew from `about` and only
their weights are read, so that no code or configuration from the file is ever run.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import absl.logging
import h5py
import keras
import numpy as np

from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import replacing
from caption_generator.decoders import Decoder, DecoderSpec, build_decoder
from caption_generator.encoders import Encoder, EncoderIdentity, build_encoder, with_pooling
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_ranking import WordDetector
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL

DETECTOR = ("mean", "weights", "share")  # its arrays


@dataclass(frozen=True)
class Checkpoint:
    """A model and what it belongs to.

    Attributes:
        decoder: the LSTM decoder.
        tokenizer: its vocabulary.
        encoder_identity: what made the features that it was trained on.
        encoder: that encoder itself, where it was trained along and is part of the file.
        training: what it was trained on and how far: plain data for the reader.
        familiarity: what is usual among the photos that it was trained on, if that was measured.
        detector: which words a photo calls for, if that was learned; by it, captions are ranked.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    encoder_identity: EncoderIdentity
    encoder: Encoder | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    familiarity: Familiarity | None = None
    detector: WordDetector | None = None

    @property
    def network(self) -> keras.Model:
        """Everything trained, as one Keras model: (features or pixels, tokens) to logits."""
        if self.encoder is None:
            return self.decoder.model
        pixels, tokens = self.encoder.model.input, self.decoder.model.inputs[1]
        return keras.Model([pixels, tokens], self.decoder.model([self.encoder.model(pixels), tokens]), name="captioner")


def save_checkpoint(checkpoint: Checkpoint, path: str | Path, half: bool = False) -> None:
    """Write `path`, whole or not at all.

    Args:
        half: store the weights in 16 bits; Keras reads them back into 32. Halves the file.
    """
    absl.logging.set_verbosity(absl.logging.ERROR)  # Keras calls .h5 legacy each time
    # Fine-tuning changes the encoder: what counts is what it is now.
    identity = checkpoint.encoder.identity if checkpoint.encoder else checkpoint.encoder_identity
    about = {
        "decoder": asdict(checkpoint.decoder.spec),
        "encoder": identity.to_dict(),
        "includes_encoder": checkpoint.encoder is not None,
        "tokenizer": checkpoint.tokenizer.to_dict(),
        "training": dict(checkpoint.training),
    }
    network = checkpoint.network
    with replacing(path) as temporary:
        with _nothing_frozen(network):
            network.save(temporary, include_optimizer=False)
        with h5py.File(temporary, "a") as file:
            if learned := checkpoint.detector:
                group = file.create_group("detector")
                group.update({name: getattr(learned, name) for name in DETECTOR})
                group.attrs["good"] = learned.good
            if half:
                _to_half(file)
            file["about"] = json.dumps(about)
            if usual := checkpoint.familiarity:
                file["familiarity"] = usual.mean
                file["familiarity"].attrs.update(lowest=usual.lowest, usual=usual.usual)
        if half:
            _repack(temporary)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        CaptionError: the file is missing, torn, or not one of this project's checkpoints.
    """
    about = _read_about(path)
    try:
        identity = EncoderIdentity(**about["encoder"])
        tokenizer = Tokenizer(**about["tokenizer"])
        decoder = build_decoder(DecoderSpec(**about["decoder"]))
        encoder = build_encoder(identity.name, None, identity.pooling) if about["includes_encoder"] else None
        usual, learned = _read_familiarity(path), _read_detector(path)
        checkpoint = Checkpoint(decoder, tokenizer, identity, encoder, about["training"], usual, learned)
        checkpoint.network.load_weights(path)
    except CaptionError:
        raise
    except Exception as error:  # HDF5 and Keras raise many kinds for a damaged file
        raise CaptionError(f"{path} is damaged ({first_line(error)}): get or train the model again.") from error
    return checkpoint


def _read_about(path: str | Path) -> dict:
    if not Path(path).is_file():
        raise CaptionError(
            f"{path} does not exist: train a model with notebook 4, or leave --model out to use the one that ships."
        )
    try:
        with h5py.File(path, "r") as file:
            return json.loads(file["about"][()])
    except KeyError:
        raise CaptionError(
            f"{path} does not say which encoder and vocabulary it belongs to: it was not made by this project; a merge "
            "model of Keras 2 is taken over by python -m caption_generator.legacy."
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise CaptionError(f"{path} is not a checkpoint in HDF5 ({error}): get or train the model again.") from error


def _read_familiarity(path: str | Path) -> Familiarity | None:
    with h5py.File(path, "r") as file:
        if "familiarity" not in file:
            return None
        mean = file["familiarity"]
        return Familiarity(mean[()], float(mean.attrs["lowest"]), float(mean.attrs["usual"]))


def _read_detector(path: str | Path) -> WordDetector | None:
    with h5py.File(path, "r") as file:
        if "detector" not in file:
            return None
        group = file["detector"]
        arrays = (group[name][()].astype(np.float32) for name in DETECTOR)
        return WordDetector(*arrays, good=float(group.attrs["good"]))


def load_bundled_encoder() -> Encoder:
    """The encoder inside the shipped model, a fresh copy each time: fine-tuning changes it."""
    return load_checkpoint(BUNDLED_MODEL).encoder


def find_encoder(checkpoint: Checkpoint, weights: str | Path = "imagenet") -> Encoder:
    """The encoder that `checkpoint` was trained with: its own, the shipped model's, or one of `keras.applications`.

    Raises:
        CaptionError: the encoder that could be found has other weights.
    """
    wanted = checkpoint.encoder_identity
    if checkpoint.encoder is not None:
        return checkpoint.encoder
    bundled = with_pooling(load_bundled_encoder(), wanted.pooling) if BUNDLED_MODEL.is_file() else None
    encoder = bundled if bundled and bundled.identity == wanted else build_encoder(wanted.name, weights, wanted.pooling)
    check_encoder(wanted, encoder.identity)
    return encoder


@contextmanager
def _nothing_frozen(network: keras.Model) -> Iterator[None]:
    """Keras writes `.h5` in another order of weights when some layers are frozen, and cannot read that back."""
    frozen = [layer for layer in network._flatten_layers() if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = False


def _to_half(file: h5py.File) -> None:
    """Replace every float32 dataset with a float16 one."""
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_float32(item) else None)
    for name in names:
        values = file[name][()].astype(np.float16)
        del file[name]
        file[name] = values


def _is_float32(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype == np.float32


def _repack(path: Path) -> None:
    """Copy the file's content to a new file: HDF5 does not give back the room of what was deleted."""
    with replacing(path) as packed, h5py.File(path, "r") as old, h5py.File(packed, "w") as new:
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs[name] = value
