"""What several test files do: kill a run, compare networks, and make a decoder whose captions differ."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from caption_generator.decoders import Decoder
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer

WORDS = Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)
NEVER_WRITTEN = (PAD, START, UNKNOWN)


class Killed(BaseException):
    """Nothing on the way catches it, as nothing catches KeyboardInterrupt."""


@contextmanager
def killed_at(owner: Any, name: str, when: Callable[..., bool]) -> Iterator[None]:
    """Raise `Killed` in place of the first call of `owner.name` for whose arguments `when` is true."""
    real = getattr(owner, name)

    def kill(*arguments, **options):
        if when(*arguments, **options):
            raise Killed
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(owner, name, kill)
        yield


@contextmanager
def eagerly(on: bool = True) -> Iterator[None]:
    """Run TensorFlow's functions step by step: for a few small steps, a graph takes longer to build than to run."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(on)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def same_weights(one: keras.Model, other: keras.Model) -> bool:
    return all((a == b).all() for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


def draw_weights(decoder: Decoder, spread: float, seed: int = 0) -> Decoder:
    """Weights so large that images and words matter."""
    random = np.random.default_rng(seed)
    weights = [random.normal(0, spread, weight.shape).astype("f") for weight in decoder.model.get_weights()]
    decoder.model.set_weights(weights)
    return decoder


def set_bias(decoder: Decoder, biases: dict[int, float]) -> Decoder:
    """Make tokens likely or unlikely, whatever the image and the words before."""
    model, tokens = decoder.model, list(biases)
    if decoder.spec.name == "attention":  # its last layer has no bias: a hidden unit that is always 1 stands in for it
        kernel, hidden_bias = model.get_layer("hidden").get_weights()
        kernel[:, 0], hidden_bias[0] = 0, 100
        model.get_layer("hidden").set_weights([kernel, hidden_bias])
        variable = model.get_layer("embedding").embeddings
        values = variable.numpy()
        values[tokens, 0] = list(biases.values())
    else:
        variable = model.get_layer("next_word").bias
        values = variable.numpy()
        values[tokens] = list(biases.values())
    variable.assign(values)
    return decoder


def opinionated(decoder: Decoder, seed: int = 0) -> Decoder:
    """Captions differ from image to image and end at different lengths."""
    known = {"initial_state": (1.6, 2), "attention": (0.8, 1.5)}
    spread, end = known.get(decoder.spec.name, (0.5, 2))
    return set_bias(draw_weights(decoder, spread, seed), {END: end})


def photo_of(*classes: int) -> np.ndarray:
    """Features of shape (1, 2, 2, 1000), of which the fixture `classifier` reads these classes."""
    features = np.zeros((1, 2, 2, 1000), np.float32)
    features[..., list(classes)] = 1
    return features
