"""The table of CNN encoders: raw pixels in, features out, one vector an image or one for each position of a grid.

Each is a network of `keras.applications` or of `efficientnet_lite` without its classifier, whose last grid is averaged
or kept, or up to a layer of its classifier, which gives one vector. Its own `preprocess_input` is part of the model
that is built here, so that pixels cannot be scaled twice or not at all. To add an encoder, add a row.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

import caption_generator.common.keras_settings  # noqa: F401 (before any network is built)
from caption_generator import efficientnet_lite
from caption_generator.common.errors import CaptionError, first_line, look_up
from caption_generator.common.files import digest, is_file
from caption_generator.common.hdf5 import open_plain


@dataclass(frozen=True)
class EncoderRow:
    """One encoder.

    Attributes:
        name: what the user calls it.
        builder: the function that builds it.
        preprocessing: the module whose `preprocess_input` belongs to it: one of `keras.applications`, or
            `efficientnet_lite`.
        input_size: height and width of its input, in pixels.
        feature_size: length of its feature vectors.
        early_layers_end: the layer after which fine-tuning begins, for those that have been fine-tuned.
        arguments: what the builder is given besides.
        layer: the layer of the classifier whose output is the feature vector; None leaves the classifier out.
    """

    name: str
    builder: str
    preprocessing: str
    input_size: int
    feature_size: int
    early_layers_end: str | None = None
    arguments: tuple[tuple[str, float], ...] = ()
    layer: str | None = None

    @property
    def module(self) -> ModuleType:
        """The module with its builder and its `preprocess_input`."""
        name = self.preprocessing
        return efficientnet_lite if name == "efficientnet_lite" else getattr(keras.applications, name)

    @property
    def network(self) -> str:
        """What weights must be of, in words."""
        return f"{self.builder} {'without' if self.layer is None else 'with'} its classifier"


ENCODERS: Mapping[str, EncoderRow] = {
    row.name: row
    for row in (
        EncoderRow("xception", "Xception", "xception", 299, 2048),
        EncoderRow("inceptionv3", "InceptionV3", "inception_v3", 299, 2048),
        EncoderRow("vgg16-fc2", "VGG16", "vgg16", 224, 4096, layer="fc2"),
        EncoderRow("resnet50", "ResNet50", "resnet50", 224, 2048),
        EncoderRow("mobilenetv2", "MobileNetV2", "mobilenet_v2", 224, 1280, "block_5_add"),
        EncoderRow("mobilenet", "MobileNet", "mobilenet", 224, 768, "conv_pw_5_relu", (("alpha", 0.75),)),
        # Cut where the grid is last 14 x 14: in the versions 1 and 2 that is some blocks later.
        EncoderRow("efficientnet-lite0", "efficientnet_lite0", "efficientnet_lite", 224, 1280, "block10_add"),
        EncoderRow("efficientnet-lite1", "efficientnet_lite1", "efficientnet_lite", 224, 1280, "block14_add"),
        EncoderRow("efficientnet-lite2", "efficientnet_lite2", "efficientnet_lite", 224, 1280, "block14_add"),
    )
}
BUNDLED = "bundled"  # the name of the encoder inside the shipped model, which needs no download


@dataclass(frozen=True)
class EncoderIdentity:
    """What made a feature vector; two vectors may be mixed only if this is equal.

    Attributes:
        name: the row of the table.
        input_size: in pixels.
        preprocessing: as in the table.
        feature_size: length of the vector.
        weights: a fingerprint of the encoder's weights.
        pooling: "avg", one vector, as a rule the mean of the last grid, or "grid", the grid itself.
    """

    name: str
    input_size: int
    preprocessing: str
    feature_size: int
    weights: str
    pooling: str = "avg"

    def __str__(self) -> str:
        return f"{self.name} (weights {self.weights}, pooling {self.pooling})"

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, loaded: Mapping[str, Any]) -> "EncoderIdentity":
        """Build it from what `to_dict` gave and a file may have changed.

        Raises:
            TypeError, ValueError: it is something else.
        """
        found = cls(**loaded)
        texts = (found.name, found.preprocessing, found.weights, found.pooling)
        if not all(type(text) is str and text.isprintable() for text in texts):
            raise ValueError("its encoder is not described by printable texts")
        if not all(type(size) is int and size > 0 for size in (found.input_size, found.feature_size)):
            raise ValueError("the sizes of its encoder are not whole numbers from 1 on")
        return found


@dataclass(frozen=True)
class Encoder:
    """A built encoder.

    Attributes:
        row: its row of the table.
        pooling: "avg" or "grid".
        model: uint8 or float pixels 0 to 255 of shape (images, input_size, input_size, 3) to float32 features of
            shape (images, feature_size), or (images, height, width, feature_size) for a grid.
        backbone: the network inside it, from preprocessed pixels to the grid, or to the vector of `row.layer`.
        preprocessed: what the backbone is given, as a symbolic tensor.
    """

    row: EncoderRow
    pooling: str
    model: keras.Model
    backbone: keras.Model
    preprocessed: keras.KerasTensor

    @property
    def identity(self) -> EncoderIdentity:
        row = self.row
        return EncoderIdentity(
            row.name, row.input_size, row.preprocessing, row.feature_size, weights_fingerprint(self.model), self.pooling
        )


def encoder_row(name: str) -> EncoderRow:
    """Look an encoder up.

    Raises:
        CaptionError: there is none of that name.
    """
    return look_up("encoder", name, ENCODERS, f" or {BUNDLED}")


def build_encoder(name: str, weights: str | Path | None = "imagenet", pooling: str = "avg") -> Encoder:
    """Build the encoder called `name`.

    Args:
        name: a row of `ENCODERS`. (`checkpoint.load_encoder` also finds the encoder inside the shipped model.)
        weights: "imagenet" (downloaded once by Keras, or out of an installed package), a local weights file, without
            the classifier unless the row needs it, or None for random weights.
        pooling: "avg" for one vector an image, "grid" for one at each position.

    Raises:
        CaptionError: no such encoder, or its weights can neither be found nor downloaded, or do not fit; or a grid is
            wanted of an encoder that has none.
    """
    row = encoder_row(name)
    if pooling == "grid":
        check_grid(name)
    return _assemble(row, _backbone(row, weights), pooling)


def check_grid(name: str) -> None:
    """Refuse an encoder without a grid.

    Raises:
        CaptionError: it gives one vector an image, or there is none of that name.
    """
    if name != BUNDLED and encoder_row(name).layer:
        raise CaptionError(f"the encoder {name} gives one vector an image and no grid: choose another encoder.")


def with_pooling(encoder: Encoder, pooling: str) -> Encoder:
    """The same network, its last grid averaged ("avg") or kept ("grid")."""
    return encoder if encoder.pooling == pooling else _assemble(encoder.row, encoder.backbone, pooling)


def _assemble(row: EncoderRow, backbone: keras.Model, pooling: str) -> Encoder:
    pixels = keras.Input((row.input_size, row.input_size, 3), name="pixels")
    preprocessed = row.module.preprocess_input(pixels)
    # Batch norm keeps its statistics, unless a caller says training=True: Keras lets the outermost call decide.
    features = pool(backbone(preprocessed, training=False), pooling)
    return Encoder(row, pooling, keras.Model(pixels, features, name="encoder"), backbone, preprocessed)


def pool(grid: keras.KerasTensor, pooling: str) -> keras.KerasTensor:
    """The grid itself, or its mean; a vector stays what it is."""
    averaged = pooling == "avg" and len(grid.shape) == 4
    return (keras.layers.GlobalAveragePooling2D if averaged else keras.layers.Identity)(name=pooling)(grid)


def _backbone(row: EncoderRow, weights: str | Path | None) -> keras.Model:
    build = getattr(row.module, row.builder)
    options = dict(row.arguments) | {
        "include_top": row.layer is not None,
        "input_shape": (row.input_size, row.input_size, 3),
    }
    network = build(weights=None, **options) if weights is None else _load_weights(row, build, weights, options)
    return keras.Model(network.input, network.get_layer(row.layer).output) if row.layer else network


def _load_weights(row: EncoderRow, build: Callable, weights: str | Path, options: dict) -> keras.Model:
    if weights == "imagenet":
        try:
            return build(weights="imagenet", **options)
        except CaptionError:  # which says what to install
            raise
        except Exception as error:
            raise CaptionError(_download_advice(row, error)) from error
    if not is_file(weights):
        raise CaptionError(f"{weights} does not exist: name a weights file of {row.network}.")
    if row.module is efficientnet_lite:  # which reads other files, too, and checks them itself
        return build(weights=weights, **options)
    try:
        with open_plain(weights):  # Keras would follow links, and would unpack whatever is compressed
            pass
        return build(weights=str(weights), **options)
    except Exception as error:
        raise CaptionError(f"{weights} does not hold weights of {row.network} ({first_line(error)}).") from error


def _download_advice(row: EncoderRow, error: Exception) -> str:
    # Keras names the URL in its message, and the file is its last part.
    url = next((word for word in str(error).split() if ".h5" in word), "")
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "models"
    if not url:
        return (
            f"the ImageNet weights of {row.name} in {folder} cannot be used ({first_line(error)}): remove them, and "
            "Keras downloads them again."
        )
    file = url.rstrip(":").rpartition("/")[2]
    return (
        f"the ImageNet weights of {row.name} could not be downloaded: put {file} into {folder}, where Keras looks "
        f"for it, or name it with --encoder-weights; in notebooks, CAPTION_SYSTEM={BUNDLED}-merge needs no download."
    )


def weights_fingerprint(model: keras.Model) -> str:
    """Twelve hexadecimal digits that tell one set of weights from another, whether stored in 32 bits or in 16."""
    weights = (np.ascontiguousarray(weight, dtype=np.float16).tobytes() for weight in model.get_weights())
    return digest(b"".join(weights))


def check_encoder(wanted: EncoderIdentity, found: EncoderIdentity | None) -> None:
    """Refuse features of one encoder for a model of another.

    Raises:
        CaptionError: they differ; it names both.
    """
    if found != wanted:
        raise CaptionError(
            f"the model was trained with the encoder {wanted}, and the features come from "
            f"{found or 'an unnamed encoder'}: extract them again with notebook 2, or train again with notebook 4."
        )
