"""A folded network computes what the network does, and takes over no more than it may."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from caption_generator.encoders import ENCODERS, build_encoder
from caption_generator.inference.folding import absorb_norms, compile_encoder, fold


def as_if_trained(network: keras.Model) -> keras.Model:
    """An untrained network with batch norms that do something: its statistics are those of noise."""
    random = np.random.default_rng(0)
    norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    network(random.uniform(-1, 1, (4, *network.input.shape[1:])), training=True)
    for layer in network.layers:
        for weight in layer.weights:
            if weight.name == "gamma":
                weight.assign(random.uniform(0.5, 1.5, weight.shape))
            if weight.name in ("beta", "bias"):
                weight.assign(random.normal(0, 0.3, weight.shape))
    return network


def layers_run(network: keras.Model, inputs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the layers that a folded network still calls."""
    called = []
    call = layers.Layer.__call__

    def noting(self, *arguments, **options):
        called.append(self.name)
        return call(self, *arguments, **options)

    run = fold(network)
    monkeypatch.setattr(layers.Layer, "__call__", noting)
    run(inputs)
    return called


LARGE = [name for name in ENCODERS if name not in ("mobilenet", "mobilenetv2")]


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("mobilenet", "grid"),
        ("mobilenetv2", "avg"),
        *(pytest.param(name, "avg", marks=pytest.mark.slow) for name in LARGE),
    ],
)
def test_an_encoder_gives_the_same_features_folded(name, pooling):
    keras.utils.set_random_seed(0)
    encoder = build_encoder(name, weights=None, pooling=pooling)
    as_if_trained(encoder.backbone)
    size = encoder.row.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    expected, found = encoder.model.predict_on_batch(pixels), compile_encoder(encoder)(pixels)
    assert found.shape == expected.shape and found.dtype == np.float32
    scale = np.abs(expected).max()
    assert np.abs(expected[0] - expected[1]).max() > 1e-3 * scale  # the pictures are told apart
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenet", pytest.param("xception", marks=pytest.mark.slow)])
def test_absorbed_norms_change_nothing_but_by_rounding(name):
    keras.utils.set_random_seed(0)
    encoder = build_encoder(name, weights=None)
    as_if_trained(encoder.backbone)
    size = encoder.row.input_size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    before = encoder.model.predict_on_batch(pixels)
    absorb_norms(encoder.backbone)
    after, folded = encoder.model.predict_on_batch(pixels), compile_encoder(encoder)(pixels)
    scale = np.abs(before).max()
    np.testing.assert_allclose(after / scale, before / scale, atol=1e-2)
    np.testing.assert_allclose(folded / scale, after / scale, atol=1e-4)
    again = [weight.copy() for weight in encoder.model.get_weights()]
    absorb_norms(encoder.backbone)  # the weights are what they were: 16 bits hold all that is folded
    for one, other in zip(again, encoder.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_batch_norm_and_no_padding_of_mobilenet_is_left(monkeypatch):
    backbone = build_encoder("mobilenetv2", weights=None).backbone
    kinds = {layer.name: type(layer) for layer in backbone.layers}
    left = {kinds[name] for name in layers_run(backbone, np.zeros((1, 224, 224, 3), "f"), monkeypatch)}
    assert left == {layers.ReLU, layers.Add}


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "padding", [((0, 1), (0, 1)), ((1, 0), (1, 0)), ((1, 1), (1, 1)), ((0, 1), (1, 1)), ((2, 2), (2, 2))]
)
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("convolution", [layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D])
def test_padding_is_folded_only_where_it_is_the_same(convolution, size, padding, stride, monkeypatch):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    options = {} if convolution is layers.DepthwiseConv2D else {"filters": 4}
    outputs = convolution(kernel_size=3, strides=stride, **options)(layers.ZeroPadding2D(padding, name="pad")(inputs))
    network = as_if_trained(keras.Model(inputs, outputs))
    pixels = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("f")
    np.testing.assert_allclose(fold(network)(pixels), network(pixels), atol=1e-5)
    like_same = {(1, 8): ((1, 1), (1, 1)), (1, 9): ((1, 1), (1, 1)), (2, 8): ((0, 1), (0, 1)), (2, 9): ((1, 1), (1, 1))}
    folded = "pad" not in layers_run(network, pixels, monkeypatch)
    assert folded == (padding == like_same[stride, size])


def read_twice(inputs):
    convolved = layers.Conv2D(3, 1)(inputs)
    return layers.Add()([layers.BatchNormalization(name="kept")(convolved), convolved])


def not_linear(inputs):
    return layers.BatchNormalization(name="kept")(layers.Conv2D(3, 1, activation="relu")(inputs))


def first_of_all(inputs):
    return layers.Conv2D(3, 1)(layers.BatchNormalization(name="kept")(inputs))


def also_the_output(inputs):
    convolved = layers.Conv2D(3, 1)(inputs)
    layers.BatchNormalization()(convolved)
    return convolved


def padding_read_twice(inputs):
    padded = layers.ZeroPadding2D(1, name="kept")(inputs)
    return layers.Add()([layers.Conv2D(3, 3)(padded), layers.Conv2D(3, 3)(padded)])


def dilated(inputs):
    return layers.Conv2D(3, 3, dilation_rate=2)(layers.ZeroPadding2D(1, name="kept")(inputs))


@pytest.mark.parametrize(
    "build",
    [read_twice, not_linear, first_of_all, also_the_output, padding_read_twice, dilated],
    ids=lambda f: f.__name__,
)
def test_what_may_not_be_folded_is_kept(build, monkeypatch):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    network = as_if_trained(keras.Model(inputs, build(inputs)))
    pixels = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("f")
    np.testing.assert_allclose(fold(network)(pixels), network(pixels, training=False), atol=1e-5)
    if "kept" in {layer.name for layer in network.layers}:
        assert "kept" in layers_run(network, pixels, monkeypatch)


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_batch_norm_may_lack_scale_or_center(options, monkeypatch):
    inputs = keras.Input((6, 6, 3))
    outputs = layers.BatchNormalization(name="norm", **options)(layers.Conv2D(4, 3)(inputs))
    network = as_if_trained(keras.Model(inputs, outputs))
    pixels = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("f")
    np.testing.assert_allclose(fold(network)(pixels), network(pixels, training=False), atol=1e-5)
    assert layers_run(network, pixels, monkeypatch) == []


def all_kinds(pixels):
    """Every kind of convolution with its batch norm, and a sum."""
    grid = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(pixels)))
    moved = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same", use_bias=False)(grid))
    grid = layers.Add(name="middle")([grid, moved])
    return layers.BatchNormalization()(layers.SeparableConv2D(5, 3)(layers.ZeroPadding2D(1)(grid)))


def gradients(run, network: keras.Model, pixels: np.ndarray) -> dict[str, np.ndarray]:
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.sin(run(pixels)))
    variables = network.trainable_variables
    found = tape.gradient(loss, variables)
    return {v.path: g.numpy() for v, g in zip(variables, found, strict=True) if g is not None}


def test_gradients_reach_the_weights_as_if_nothing_were_folded():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    network = as_if_trained(keras.Model(inputs, all_kinds(inputs)))
    pixels = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("f")
    expected = gradients(lambda x: network(x, training=False), network, pixels)
    found = gradients(fold(network, trainable=True), network, pixels)
    assert found.keys() == expected.keys() and len(found) == len(network.trainable_variables)
    for path, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[path], rtol=1e-3, atol=1e-4, err_msg=path)
        assert np.abs(gradient).max() > 0.01
    assert not gradients(fold(network), network, pixels)


def test_a_network_can_be_folded_after_one_of_its_layers():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    network = as_if_trained(keras.Model(inputs, all_kinds(inputs)))
    pixels = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("f")
    until = keras.Model(inputs, network.get_layer("middle").output)
    found = fold(network, after="middle")(until(pixels, training=False))
    np.testing.assert_allclose(found, network(pixels, training=False), atol=1e-5)


def test_the_weights_are_those_of_the_moment_or_follow_training(tiny_encoder):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    encode = compile_encoder(tiny_encoder)
    before = encode(pixels)
    following = fold(tiny_encoder.backbone, trainable=True)
    tiny_encoder.backbone.set_weights([2 * weight for weight in tiny_encoder.backbone.get_weights()])
    after = compile_encoder(tiny_encoder)(pixels)
    np.testing.assert_array_equal(encode(pixels), before)
    np.testing.assert_allclose(after, tiny_encoder.model.predict_on_batch(pixels), rtol=1e-4)
    assert np.abs(after - before).max() > 0.01
    scaled = (pixels / 127.5 - 1).astype("f")
    np.testing.assert_allclose(following(scaled), tiny_encoder.backbone(scaled, training=False), atol=1e-4)
