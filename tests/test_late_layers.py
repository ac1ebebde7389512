"""Tests of caption_generator.finetuning.late_layers, with small networks and random weights."""

from pathlib import Path

import keras
import numpy as np
import pytest

from caption_generator.common.errors import CaptionError
from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
from caption_generator.finetuning.late_layers import freeze, split_encoder
from caption_generator.images import load_pixels


def pixels_of(images: Path, size: int) -> np.ndarray:
    return np.stack([load_pixels(images / f"{n}.png", size) for n in range(5)])


@pytest.mark.parametrize("pooling", ["avg", "grid"])
@pytest.mark.parametrize(
    "row",
    [
        EncoderRow("one", "MobileNet", "mobilenet", 128, 256, "conv_pw_11_relu", (("alpha", 0.25),)),
        EncoderRow("two", "MobileNetV2", "mobilenet_v2", 64, 1280, "block_5_add", (("alpha", 0.35),)),
    ],
    ids=["MobileNet", "MobileNetV2"],
)
def test_the_two_halves_in_turn_equal_the_encoder(row, pooling, pictures, monkeypatch):
    monkeypatch.setitem(ENCODERS, row.name, row)
    keras.utils.set_random_seed(0)
    encoder = build_encoder(row.name, weights=None, pooling=pooling)
    early, late = split_encoder(encoder)
    pixels = pixels_of(pictures, row.input_size)
    grid = early.predict_on_batch(pixels)
    assert grid.shape[1:3] == (8, 8)
    expected = encoder.model.predict_on_batch(pixels)
    scale = np.abs(expected).max()  # random weights make very small features
    assert scale > 0
    np.testing.assert_allclose(late.predict_on_batch(grid) / scale, expected / scale, atol=1e-3)


def test_the_halves_are_made_of_the_encoders_own_weights(untrained):
    encoder = untrained("attention").encoder
    early, late = split_encoder(encoder)
    halves = [id(weight) for half in (early, late) for weight in half.weights]
    assert sorted(halves) == sorted(id(weight) for weight in encoder.model.weights)


def test_an_encoder_that_does_not_say_where_to_split_is_refused(monkeypatch):
    row = EncoderRow("whole", "MobileNet", "mobilenet", 32, 256, None, (("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "whole", row)
    with pytest.raises(CaptionError, match="whole has no early_layers_end"):
        split_encoder(build_encoder("whole", weights=None))


@pytest.mark.parametrize("frozen", [True, False])
def test_late_layers_can_be_frozen_and_thawed(frozen, untrained):
    _, late = split_encoder(untrained("merge").encoder)
    freeze(late, not frozen)
    freeze(late, frozen)
    assert bool(late.trainable_weights) != frozen
