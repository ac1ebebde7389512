"""A trained model in one `.h5` file that knows what it belongs to.

The file is what Keras saves as `.h5`, with more datasets. `about` is a JSON text with the encoder, the decoder's
settings, the vocabulary and the training data. `familiarity`, `detector` and `classifier` belong to a model that
scores and ranks its captions by the photo, and names what it shows. Loading builds the networks anew from `about` and
reads their weights alone, so no code and no configuration from the file ever runs.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5

from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import replacing
from caption_generator.common.hdf5 import open_plain
from caption_generator.common.numbers import finite, finite_number
from caption_generator.decoders import Decoder, DecoderSpec, build_decoder, cell_row, decoder_row
from caption_generator.encoders import BUNDLED, Encoder, EncoderIdentity, build_encoder, check_encoder, with_pooling
from caption_generator.inference.imagenet_classifier import CLASSES, ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector, weights_of_all
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL, missing_model

VARIANCE = "moving_variance"  # part of the name of a batch norm's variance
# The arrays of a word detector, by their names in the file.
DETECTOR = {"mean": "mean", "weights": "weights", "share": "document_frequency"}
ROWS = "detector/rows"  # the words that its weights are of; older files have weights of every word


@dataclass(frozen=True)
class Checkpoint:
    """A model and what it belongs to.

    Attributes:
        decoder: the LSTM decoder.
        tokenizer: its vocabulary.
        encoder_identity: the encoder that made the features for training.
        encoder: that encoder itself, if it was trained too and is part of the file.
        training: the training data and settings: plain data for the reader.
        familiarity: the typical features of the training photos, to recognise photos unlike them.
        detector: predicts the words of a photo, to rank captions.
        classifier: the ImageNet classifier whose answers the encoder keeps, to name things in captions.
    """

    decoder: Decoder
    tokenizer: Tokenizer
    encoder_identity: EncoderIdentity
    encoder: Encoder | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    familiarity: Familiarity | None = None
    detector: WordDetector | None = None
    classifier: ImageNetClassifier | None = None

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
        half: store the weights in 16 bits, which halves the file. They are read back into 32.
    """
    # Fine-tuning changes the encoder: its identity is computed from its present weights.
    identity = checkpoint.encoder.identity if checkpoint.encoder else checkpoint.encoder_identity
    about = {
        "decoder": asdict(checkpoint.decoder.spec),
        "encoder": identity.to_dict(),
        "includes_encoder": checkpoint.encoder is not None,
        "tokenizer": checkpoint.tokenizer.to_dict(),
        "training": dict(checkpoint.training),
    }
    network = checkpoint.network
    # Written in memory first: HDF5 may crash the interpreter where the disk is full.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        with _nothing_frozen(network):
            save_model_to_hdf5(network, file, include_optimizer=False)
        if detector := checkpoint.detector:
            _write_detector(file, detector)
        if classifier := checkpoint.classifier:
            file.create_group("classifier").update({"kernel": classifier.kernel, "bias": classifier.bias})
        if half:
            _to_half(file)
        if familiarity := checkpoint.familiarity:
            file["familiarity"] = familiarity.mean
            file["familiarity"].attrs.update(lowest=familiarity.lowest, usual=familiarity.usual)
        file["about"] = json.dumps(about | {"arrays": arrays_digest(file)})
    if half:
        content = _repacked(content)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read what `save_checkpoint` wrote.

    Raises:
        CaptionError: the file is missing, torn, or not one of this project's checkpoints.
    """
    with _opened(path) as (file, about):
        identity = EncoderIdentity.from_dict(about["encoder"])
        tokenizer = Tokenizer.from_dict(about["tokenizer"])
        spec = DecoderSpec(**about["decoder"])
        check_sizes(spec, tokenizer, file)
        found = arrays_digest(file)
        if about.get("arrays", found) != found:  # older files do not say
            raise ValueError("its weights are not those that were saved")
        decoder = build_decoder(spec)
        encoder = build_encoder(identity.name, None, identity.pooling) if about["includes_encoder"] else None
        _load_weights(file["model_weights"], encoder, decoder)
        if encoder is not None and encoder.identity != identity:
            raise ValueError("its encoder is not the one that it names")
        return Checkpoint(
            decoder,
            tokenizer,
            identity,
            encoder,
            about["training"],
            _read_familiarity(file, spec),
            _read_detector(file, spec),
            _read_classifier(file, spec),
        )


def read_about(path: str | Path) -> dict[str, Any]:
    """The JSON text of a checkpoint, which says what it belongs to, without its weights.

    Raises:
        CaptionError: the file is missing, torn, or not one of this project's checkpoints.
    """
    with _opened(path) as (_, about):
        return about


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """A checkpoint and its JSON text. Any error in the block says that the file is damaged.

    Raises:
        CaptionError: the file is missing, torn, or not one of this project's checkpoints.
    """
    if not Path(path).exists():
        raise CaptionError(missing_model(path))
    try:
        with open_plain(path) as file:
            if "about" not in file:
                raise CaptionError(
                    f"{path} does not say which encoder and vocabulary it belongs to, so this project did not make it: "
                    "convert a merge model of Keras 2 with python -m caption_generator.legacy."
                )
            about = json.loads(file["about"][()])
            parts = {"decoder": dict, "encoder": dict, "tokenizer": dict, "training": dict, "includes_encoder": bool}
            for name, kind in parts.items():
                if not isinstance(about[name], kind):
                    raise ValueError(f"its {name} is not a {kind.__name__}")
            yield file, about
    except CaptionError:
        raise
    except PermissionError as error:
        raise CaptionError(f"cannot read {path} ({error.strerror}): change its permissions.") from error
    except OSError as error:
        if not error.filename and Path(path).suffix.lower() not in (".h5", ".hdf5"):
            raise CaptionError(f"{path} is not a model: name an .h5 or .litert file.") from error
        reason = error.strerror if error.filename else first_line(error)
        raise CaptionError(f"{path} is not a checkpoint in HDF5 ({reason}): name another, or get it again.") from error
    except Exception as error:  # HDF5, JSON and Keras raise many kinds for a damaged file
        raise CaptionError(f"{path} is damaged ({first_line(error)}): get or train the model again.") from error


def arrays_digest(file: h5py.File) -> str:
    """A fingerprint of all numbers in the file; it notices a flipped bit.

    Raises:
        ValueError: a number is not finite.
    """
    arrays = hashlib.sha256()

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and (item.dtype.kind == "f" or name == ROWS):
            values = item[()]
            finite(name, values)
            arrays.update(name.encode() + str(values.shape).encode() + values.tobytes())

    file.visititems(add)
    return arrays.hexdigest()


def check_sizes(spec: DecoderSpec, tokenizer: Tokenizer, file: h5py.File) -> None:
    """Refuse sizes that the arrays of the file do not have, before anything of that size is built.

    Raises:
        ValueError: there is one.
    """
    sizes = (spec.feature_size, spec.vocabulary_size, spec.units, spec.embedding_size, spec.hidden)
    if not all(type(size) is int and 0 < size < 2**31 for size in sizes):
        raise ValueError("its sizes are not whole numbers from 1 on")
    decoder_row(spec.name)  # which names those that there are
    gates = len(cell_row(spec.cell).states) + 2  # of an LSTM 4, of a GRU 3
    # The largest weights of each decoder are of these shapes.
    wanted = {
        (spec.vocabulary_size, spec.embedding_size),
        (spec.feature_size, spec.units),
        (spec.units, gates * spec.units),
    }
    if spec.name == "merge":
        wanted.add((spec.units, spec.hidden))
    shapes: set[tuple[int, ...]] = set()
    file.visititems(lambda _, item: shapes.add(item.shape) if isinstance(item, h5py.Dataset) else None)
    if not wanted <= shapes:
        raise ValueError(f"no array of it has the shape {min(wanted - shapes)}")
    if len(tokenizer) != spec.vocabulary_size:
        raise ValueError(f"it has {len(tokenizer):,} words and predicts {spec.vocabulary_size:,}")


def _load_weights(saved: h5py.Group, encoder: Encoder | None, decoder: Decoder) -> None:
    """Copy the weights of a file into the networks: those of the decoder by name, of the encoder by their order.

    Keras numbers the unnamed layers of an encoder as it builds them, so their names differ from run to run.
    """
    if encoder is None:
        groups = list(saved.values())
    else:
        groups = [saved[decoder.model.name]]
        variables = encoder.model.trainable_weights + encoder.model.non_trainable_weights
        for variable, array in zip(variables, _arrays(saved["encoder"]).values(), strict=True):
            variable.assign(array[()])
    arrays = {name: array for group in groups for name, array in _arrays(group).items()}
    for variable in decoder.model.weights:
        variable.assign(arrays[variable.path][()])


def _arrays(group: h5py.Group) -> dict[str, h5py.Dataset]:
    return {name: group[name] for name in group.attrs.get("weight_names", ())}


def _read_familiarity(file: h5py.File, spec: DecoderSpec) -> Familiarity | None:
    if "familiarity" not in file:
        return None
    mean = file["familiarity"]
    limits = (finite_number(name, mean.attrs[name]) for name in ("lowest", "usual"))
    return Familiarity(_of_shape("familiarity", mean[()], (spec.feature_size,)), *limits)


def _write_detector(file: h5py.File, detector: WordDetector) -> None:
    group = file.create_group("detector")
    group.update({name: getattr(detector, attribute) for name, attribute in DETECTOR.items() if name != "weights"})
    file[ROWS] = detector.learned.astype(np.int32)
    group["weights"] = detector.weights[detector.learned]
    group.attrs["good"] = detector.threshold


def _read_detector(file: h5py.File, spec: DecoderSpec) -> WordDetector | None:
    if "detector" not in file:
        return None
    group, words, size = file["detector"], spec.vocabulary_size, spec.feature_size
    learned = file[ROWS][()] if ROWS in file else np.arange(words)
    shapes = ((size,), (np.size(learned), size), (words,))
    arrays = {
        attribute: _of_shape(name, group[name][()], shape)
        for (name, attribute), shape in zip(DETECTOR.items(), shapes, strict=True)
    }
    arrays["weights"] = weights_of_all(learned, arrays["weights"], words)
    return WordDetector(**arrays, threshold=finite_number("good", group.attrs["good"]))


def _read_classifier(file: h5py.File, spec: DecoderSpec) -> ImageNetClassifier | None:
    if "classifier" not in file:
        return None
    shapes = {"kernel": (spec.feature_size, CLASSES), "bias": (CLASSES,)}
    group = file["classifier"]
    return ImageNetClassifier(*(_of_shape(name, group[name][()], shape) for name, shape in shapes.items()))


def _of_shape(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape != shape:
        raise ValueError(f"{name} has the shape {values.shape}, not {shape}")
    return finite(name, values)


def load_encoder(name: str, weights: str | Path | None = "imagenet", pooling: str = "avg") -> Encoder:
    """The encoder called `name`, by default with its ImageNet weights.

    Args:
        name: a row of `encoders.ENCODERS`, or "bundled": the encoder inside the shipped model, which needs no download.
            It is a fresh copy each time, because fine-tuning changes it.
        weights: as for `build_encoder`; "bundled" ignores it.
        pooling: "avg" for one vector an image, "grid" for one at each position.

    Raises:
        CaptionError: as `build_encoder` and `load_checkpoint`.
    """
    if name == BUNDLED:
        return with_pooling(load_checkpoint(BUNDLED_MODEL).encoder, pooling)
    return build_encoder(name, weights, pooling)


def find_encoder(checkpoint: Checkpoint, weights: str | Path = "imagenet") -> Encoder:
    """The encoder that `checkpoint` was trained with: its own, the shipped model's, or one of `ENCODERS`.

    Raises:
        CaptionError: the encoder cannot be had, or what was found has other weights.
    """
    wanted = checkpoint.encoder_identity
    if checkpoint.encoder is not None:
        return checkpoint.encoder
    if BUNDLED_MODEL.is_file():
        shipped = EncoderIdentity.from_dict(read_about(BUNDLED_MODEL)["encoder"])
        if replace(shipped, pooling=wanted.pooling) == wanted:
            return load_encoder(BUNDLED, pooling=wanted.pooling)
    encoder = build_encoder(wanted.name, weights, wanted.pooling)
    check_encoder(wanted, encoder.identity)
    return encoder


@contextmanager
def _nothing_frozen(network: keras.Model) -> Iterator[None]:
    """Keras writes `.h5` in another order of weights when some layers are frozen."""
    frozen = [layer for layer in network._flatten_layers() if not layer.trainable]
    for layer in frozen:
        layer.trainable = True
    try:
        yield
    finally:
        for layer in frozen:
            layer.trainable = False


def _to_half(file: h5py.File) -> None:
    """Replace every float32 dataset with a float16 one, but for the variances of batch norm.

    They are few, and no 16-bit number makes a batch norm do nothing, as `folding.absorb_norms` wants.
    """
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_float32(item) and VARIANCE not in name else None)
    for name in names:
        values = file[name][()].astype(np.float16)
        del file[name]
        file[name] = values


def _is_float32(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.dtype == np.float32


def _repacked(content: io.BytesIO) -> io.BytesIO:
    """The file's content in a new file: HDF5 does not give back the space of what was deleted."""
    packed = io.BytesIO()
    with h5py.File(content, "r") as old, h5py.File(packed, "w") as new:
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs[name] = value
    return packed
