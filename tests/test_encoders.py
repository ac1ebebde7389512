"""Every encoder is the network of its table row, its pixels preprocessed once, and known by its weights."""

import re
import urllib.error
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from caption_generator.common.errors import CaptionError
from caption_generator.encoders import ENCODERS, Encoder, build_encoder, encoder_row, weights_fingerprint, with_pooling


def to_one(pixels: np.ndarray) -> np.ndarray:
    """What the networks that Google trained expect: -1 to 1."""
    return pixels / 127.5 - 1


def caffe(pixels: np.ndarray) -> np.ndarray:
    """What the networks that came from Caffe expect: blue first, ImageNet's mean taken off."""
    return pixels[..., ::-1] - np.array([103.939, 116.779, 123.68], np.float32)


def nearly_to_one(pixels: np.ndarray) -> np.ndarray:
    """What the EfficientNets for small devices expect."""
    return pixels / 128 - 127 / 128


# Written out anew, so that a wrong row of the table cannot agree with itself.
EXPECTED = {
    "xception": (299, 2048, to_one),
    "inceptionv3": (299, 2048, to_one),
    "vgg16-fc2": (224, 4096, caffe),
    "resnet50": (224, 2048, caffe),
    "mobilenetv2": (224, 1280, to_one),
    "mobilenet": (224, 768, to_one),
    "efficientnet-lite0": (224, 1280, nearly_to_one),
    "efficientnet-lite1": (224, 1280, nearly_to_one),
    "efficientnet-lite2": (224, 1280, nearly_to_one),
}


SMALL = ("mobilenet", "mobilenetv2", "efficientnet-lite0")


@pytest.fixture(
    scope="module", params=[name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in EXPECTED]
)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    keras.utils.set_random_seed(0)
    return build_encoder(request.param, weights=None)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.utils import file_utils

    def refused(*_):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(file_utils, "urlretrieve", refused)


def test_every_row_of_the_table_is_tested_here():
    assert set(EXPECTED) == set(ENCODERS)
    assert all(name == row.name for name, row in ENCODERS.items())


def test_features_are_those_of_the_backbone_on_pixels_preprocessed_once(encoder):
    size, feature_size, preprocess = EXPECTED[encoder.row.name]
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    pixels[1] //= 3
    features = np.asarray(encoder.model(pixels))
    assert (features.shape, features.dtype) == ((2, feature_size), np.float32)
    found = np.asarray(encoder.backbone(preprocess(pixels.astype(np.float32)), training=False))
    assert found.ndim == (2 if encoder.row.layer else 4)
    expected = found if encoder.row.layer else found.mean(axis=(1, 2))
    scale = np.abs(expected).max(axis=1, keepdims=True)  # random weights make very small features
    assert (scale > 0).all()
    np.testing.assert_allclose(features / scale, expected / scale, atol=1e-3)
    assert encoder.row.input_size == size and encoder.row.feature_size == feature_size
    identity = encoder.identity
    assert (identity.name, identity.input_size, identity.feature_size) == (encoder.row.name, size, feature_size)
    assert identity.weights in str(identity)


def test_the_grid_is_what_the_mean_is_taken_of(tiny_encoder):
    grid_encoder = with_pooling(tiny_encoder, "grid")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    grid, vectors = np.asarray(grid_encoder.model(pixels)), np.asarray(tiny_encoder.model(pixels))
    assert (grid.shape, grid.dtype) == ((2, 7, 7, 6), np.float32)
    assert grid.std(axis=(1, 2)).max() > 0.01
    np.testing.assert_allclose(grid.mean(axis=(1, 2)), vectors, rtol=1e-4)
    again = with_pooling(grid_encoder, "avg")
    np.testing.assert_allclose(again.model(pixels), vectors, rtol=1e-5)


def test_another_pooling_is_the_same_network_and_another_identity(tiny_encoder):
    grid_encoder = with_pooling(tiny_encoder, "grid")
    assert with_pooling(tiny_encoder, "avg") is tiny_encoder
    for one, other in zip(grid_encoder.model.variables, tiny_encoder.model.variables, strict=True):
        assert one is other
    identities = grid_encoder.identity, tiny_encoder.identity
    assert [identity.pooling for identity in identities] == ["grid", "avg"]
    assert identities[0] != identities[1]
    assert identities[0] == replace(identities[1], pooling="grid")  # the weights' fingerprint is the same, too


@pytest.mark.parametrize("pooling", ["avg", "grid"])
def test_an_encoder_is_built_with_the_pooling_that_was_asked_for(pooling):
    encoder = build_encoder("mobilenet", weights=None, pooling=pooling)
    assert encoder.pooling == encoder.identity.pooling == pooling
    assert encoder.model.output.shape == {"avg": (None, 768), "grid": (None, 7, 7, 768)}[pooling]


@pytest.mark.slow
def test_fc2_is_the_last_layer_but_one_of_vgg16():
    """The layer that reads it in VGG16 answers from it with the probabilities of the whole network."""
    keras.utils.set_random_seed(0)
    whole = keras.applications.VGG16(weights=None)
    encoder = build_encoder("vgg16-fc2", weights=None)
    encoder.backbone.set_weights(whole.get_weights()[:-2])
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    features = encoder.model.predict_on_batch(pixels)
    probabilities = whole.get_layer("predictions")(features)
    expected = whole.predict_on_batch(caffe(pixels.astype(np.float32)))
    np.testing.assert_allclose(probabilities, expected, rtol=1e-4)
    assert np.abs(expected[0] - expected[1]).max() > 1e-6


def test_an_encoder_of_one_vector_has_no_grid():
    with pytest.raises(CaptionError, match="vgg16-fc2 gives one vector an image and no grid"):
        build_encoder("vgg16-fc2", weights=None, pooling="grid")


def test_fine_tuning_begins_at_a_layer_that_exists():
    names = [name for name, row in ENCODERS.items() if row.early_layers_end]
    assert names == ["mobilenetv2", "mobilenet", *(f"efficientnet-lite{version}" for version in range(3))]
    for name in names:
        layers = {layer.name for layer in build_encoder(name, weights=None).backbone.layers}
        assert ENCODERS[name].early_layers_end in layers


@pytest.mark.parametrize("name", ["Xception", "resnet", ""])
def test_an_unknown_encoder_is_refused_with_the_known_ones(name):
    with pytest.raises(CaptionError, match=f"no encoder '{name}'.*xception.*mobilenet, .*lite2 or bundled"):
        build_encoder(name)
    with pytest.raises(CaptionError, match="no encoder"):
        encoder_row(name)


@pytest.mark.parametrize(
    ("file", "save"),
    [("own.weights.h5", keras.Model.save_weights), ("own.h5", keras.Model.save)],
    ids=["weights alone", "whole model"],
)
def test_a_local_weights_file_is_loaded(tmp_path, file, save):
    made = build_encoder("mobilenet", weights=None)
    save(made.backbone, tmp_path / file)
    assert build_encoder("mobilenet", weights=tmp_path / file).identity == made.identity


@pytest.mark.slow
def test_every_encoder_takes_its_weights_from_a_local_file(encoder, tmp_path):
    row, file = encoder.row, tmp_path / "own.weights.h5"
    if row.layer:  # whose file is of the whole network
        whole = keras.applications.VGG16(weights=None)
        whole.set_weights([*encoder.backbone.get_weights(), *whole.get_weights()[-2:]])
        whole.save_weights(file)
    else:
        encoder.backbone.save_weights(file)
    assert build_encoder(row.name, weights=file).identity == encoder.identity
    assert build_encoder(row.name, weights=None).identity != encoder.identity
    file.unlink()  # half a gigabyte, some of them


@pytest.mark.parametrize(("name", "network"), [("xception", "without"), ("vgg16-fc2", "with")])
def test_a_missing_weights_file_is_one_sentence(tmp_path, name, network):
    with pytest.raises(CaptionError, match=rf"own\.h5 does not exist.*weights file of \w+ {network} its classifier"):
        build_encoder(name, weights=tmp_path / "own.h5")


@pytest.mark.filterwarnings("ignore:Skipping nested container")  # Keras says it before it raises
@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("other.weights.h5", {"alpha": 0.25, "include_top": False}),
        ("other.h5", {"alpha": 0.25, "include_top": False}),
        ("other.h5", {"alpha": 0.75, "classes": 5}),
    ],
    ids=["narrower", "narrower whole model", "with classifier"],
)
def test_weights_of_another_network_are_refused_with_one_sentence(tmp_path, file, options):
    other = keras.applications.MobileNet(weights=None, **options)
    other.save_weights(tmp_path / file) if ".weights" in file else other.save(tmp_path / file)
    assert_refused(tmp_path / file)


@pytest.mark.parametrize("content", ["", "not HDF5"])
def test_a_weights_file_that_is_no_hdf5_is_refused_with_one_sentence(tmp_path, content):
    (tmp_path / "other.weights.h5").write_text(content)
    assert_refused(tmp_path / "other.weights.h5")


def assert_refused(path: Path) -> None:
    with pytest.raises(CaptionError) as error:
        build_encoder("mobilenet", weights=path)
    assert f"{path} does not hold weights of MobileNet without its classifier" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mobilenet", "mobilenet_7_5_224_tf_no_top.h5"),
        ("mobilenetv2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
        ("vgg16-fc2", "vgg16_weights_tf_dim_ordering_tf_kernels.h5"),
    ],
)
def test_without_network_the_sentence_names_the_file_its_place_and_the_way_out(keras_home, no_network, name, file):
    with pytest.raises(CaptionError) as error:
        build_encoder(name)
    message = str(error.value)
    assert f"put {file} into {keras_home / 'models'}" in message
    assert name in message and "CAPTION_SYSTEM=bundled-merge" in message
    assert "\n" not in message


def test_without_network_and_settings_the_place_is_in_the_home_folder(keras_home, no_network, monkeypatch):
    monkeypatch.delenv("KERAS_HOME")
    with pytest.raises(CaptionError, match=r"into ~/\.keras/models"):
        build_encoder("mobilenet")


def test_a_damaged_file_in_the_cache_is_not_called_a_failed_download(keras_home, no_network):
    (keras_home / "models").mkdir()
    (keras_home / "models" / "mobilenet_7_5_224_tf_no_top.h5").write_bytes(b"half of a download")
    with pytest.raises(CaptionError) as error:
        build_encoder("mobilenet")
    assert f"in {keras_home / 'models'} cannot be used" in str(error.value)
    assert "remove them" in str(error.value)


@pytest.mark.parametrize("name", ["mobilenet", "mobilenetv2"])
def test_imagenet_weights_in_the_cache_are_used(shared, keras_home, no_network, name):
    (keras_home / "models").symlink_to(shared / "keras" / "models")
    encoder = build_encoder(name)
    (file,) = (shared / "keras" / "models").glob({"mobilenet": "mobilenet_7*", "mobilenetv2": "mobilenet_v2*"}[name])
    assert encoder.identity == build_encoder(name, weights=file).identity  # random ones would differ each time


def network(seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.BatchNormalization()])


def test_a_fingerprint_survives_storage_in_16_bits():
    model = network(0)
    before = weights_fingerprint(model)
    assert re.fullmatch("[0-9a-f]{12}", before)
    model.set_weights([weight.astype(np.float16).astype(np.float32) for weight in model.get_weights()])
    assert weights_fingerprint(model) == before


def test_a_fingerprint_tells_weights_apart():
    model = network(0)
    before = weights_fingerprint(model)
    assert weights_fingerprint(network(0)) == before
    assert weights_fingerprint(network(1)) != before
    weights = model.get_weights()
    weights[-1][-1] *= 1.01  # one number, in a statistic of batch norm
    model.set_weights(weights)
    assert weights_fingerprint(model) != before


def test_a_folder_is_no_weights_file():
    with pytest.raises(CaptionError, match="does not exist"):
        build_encoder("mobilenet", weights=Path("/"))
