"""Tests of caption_generator.checkpoint."""

import json
from dataclasses import replace
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from caption_generator import checkpoint as checkpoint_module
from caption_generator.checkpoint import Checkpoint, find_encoder, load_checkpoint, load_encoder, save_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DECODERS, DecoderSpec, build_decoder
from caption_generator.encoders import (
    ENCODERS,
    EncoderIdentity,
    EncoderRow,
    build_encoder,
    check_encoder,
    with_pooling,
)
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.tokenizer import Tokenizer
from tests.helpers import same_weights

IDENTITY = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
TOKENS = np.array([[1, 7, 9], [1, 4, 0]], np.int32)


@pytest.fixture
def checkpoint(decoder, tokenizer) -> Checkpoint:
    return Checkpoint(decoder, tokenizer, IDENTITY, training={"dataset": "drawn", "epoch": 3, "val_loss": 1.5})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "models" / "model.h5"


@pytest.fixture(params=DECODERS)
def with_encoder(request, monkeypatch, tokenizer) -> Checkpoint:
    """A checkpoint with an encoder inside, which is a MobileNet of 64 pixels, with a last grid of 2 x 2."""
    row = EncoderRow("tiny", "MobileNet", "mobilenet", 64, 256, "conv_pw_5_relu", (("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "tiny", row)
    keras.utils.set_random_seed(0)
    encoder = build_encoder("tiny", weights=None, pooling=DECODERS[request.param].pooling)
    decoder = build_decoder(DecoderSpec(request.param, 256, len(tokenizer), units=8, embedding_size=8, hidden=8))
    return Checkpoint(decoder, tokenizer, encoder.identity, encoder)


def without_encoder(name: str, tokenizer: Tokenizer, feature_size: int, units: int) -> Checkpoint:
    decoder = build_decoder(DecoderSpec(name, feature_size, len(tokenizer), units))
    identity = replace(IDENTITY, feature_size=feature_size, pooling=DECODERS[name].pooling)
    return Checkpoint(decoder, tokenizer, identity, training={"dataset": "drawn", "epoch": 3, "val_loss": 1.5})


def features_for(checkpoint: Checkpoint) -> np.ndarray:
    """Of two images."""
    identity = checkpoint.encoder_identity
    shape = {"avg": (2,), "grid": (2, 3, 2)}[identity.pooling]
    return np.random.default_rng(0).normal(size=(*shape, identity.feature_size)).astype(np.float32)


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_comes_back_with_all_that_it_belongs_to(name, tokenizer, path):
    checkpoint = without_encoder(name, tokenizer, feature_size=6, units=8)
    save_checkpoint(checkpoint, path)
    found = load_checkpoint(path)
    assert same_weights(found.decoder.model, checkpoint.decoder.model)
    assert found.decoder.spec == checkpoint.decoder.spec
    assert found.tokenizer.to_dict() == checkpoint.tokenizer.to_dict()
    assert found.encoder_identity == checkpoint.encoder_identity
    assert found.encoder is None
    assert found.training == {"dataset": "drawn", "epoch": 3, "val_loss": 1.5}
    inputs = [features_for(checkpoint), TOKENS]
    np.testing.assert_array_equal(found.decoder.model(inputs), checkpoint.decoder.model(inputs))


def test_an_encoder_inside_comes_back(with_encoder, path):
    save_checkpoint(with_encoder, path)
    keras.utils.set_random_seed(99)  # the networks are first built with other random weights
    found = load_checkpoint(path)
    assert same_weights(found.encoder.model, with_encoder.encoder.model)
    assert same_weights(found.decoder.model, with_encoder.decoder.model)
    assert found.encoder.identity == found.encoder_identity == with_encoder.encoder_identity
    assert found.encoder.pooling == DECODERS[found.decoder.spec.name].pooling
    pixels = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3)).astype(np.uint8)
    expected = with_encoder.network.predict_on_batch([pixels, TOKENS])
    np.testing.assert_allclose(found.network.predict_on_batch([pixels, TOKENS]), expected, rtol=1e-6)
    assert find_encoder(found) is found.encoder


def test_the_network_reads_several_captions_of_each_picture(with_encoder):
    pixels = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3)).astype(np.uint8)
    tokens = np.array([[1, 7, 9], [1, 4, 5], [1, 8, 8], [1, 6, 0]], np.int32)  # two of the first, two of the second
    features = with_encoder.encoder.model.predict_on_batch(pixels)
    expected = with_encoder.decoder.model([np.repeat(features, 2, axis=0), tokens])
    np.testing.assert_allclose(with_encoder.network([pixels, tokens]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_a_checkpoint_whose_encoder_was_frozen_is_like_any_other(with_encoder, path, half):
    frozen = with_encoder.encoder.backbone.layers[-6:]
    for layer in frozen:  # as training with a frozen encoder does it
        layer.trainable = False
    save_checkpoint(with_encoder, path, half)
    found = load_checkpoint(path)
    assert found.encoder.identity == found.encoder_identity == with_encoder.encoder_identity
    if not half:
        assert same_weights(found.network, with_encoder.network)
    assert not any(layer.trainable for layer in frozen)  # saving between two epochs thaws nothing


@pytest.mark.parametrize("half", [False, True])
def test_what_photos_usually_look_like_comes_back(half, checkpoint, path):
    usual = Familiarity(np.random.default_rng(0).normal(size=6).astype(np.float32), lowest=0.25, usual=0.75)
    save_checkpoint(replace(checkpoint, familiarity=usual), path, half=half)
    found = load_checkpoint(path).familiarity
    np.testing.assert_array_equal(found.mean, usual.mean)
    assert (found.lowest, found.usual) == (0.25, 0.75)


@pytest.mark.parametrize("half", [False, True])
def test_the_word_detector_comes_back(half, checkpoint, path):
    random = np.random.default_rng(0)
    shapes = ((6,), (len(checkpoint.tokenizer), 6), (len(checkpoint.tokenizer),))
    learned = WordDetector(*(random.random(shape, np.float32) for shape in shapes), threshold=1.25)
    save_checkpoint(replace(checkpoint, detector=learned), path, half=half)
    found = load_checkpoint(path).detector
    for name in ("mean", "weights", "document_frequency"):
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name), getattr(learned, name), rtol=1e-3 if half else 0)
    assert found.threshold == 1.25


def draw_detector(words: int, learned: list[int]) -> WordDetector:
    random = np.random.default_rng(0)
    weights = np.zeros((words, 6), np.float32)
    weights[learned] = random.random((len(learned), 6), np.float32)
    return WordDetector(random.random(6, np.float32), weights, random.random(words, np.float32), threshold=1.25)


@pytest.mark.parametrize("learned", [[], [4, 7, 19]])
def test_only_the_words_that_the_detector_has_learned_are_stored(learned, checkpoint, path):
    detector = draw_detector(len(checkpoint.tokenizer), learned)
    save_checkpoint(replace(checkpoint, detector=detector), path)
    with h5py.File(path) as file:
        assert file["detector/weights"].shape == (len(learned), 6)
    np.testing.assert_array_equal(load_checkpoint(path).detector.weights, detector.weights)


def test_a_file_of_before_some_words_were_left_out_has_weights_of_all(checkpoint, path):
    detector = draw_detector(len(checkpoint.tokenizer), [4, 7])
    save_checkpoint(replace(checkpoint, detector=detector), path)
    with h5py.File(path, "a") as file:
        del file["detector/rows"], file["detector/weights"]
        file["detector/weights"] = detector.weights
    edit_about(path, arrays=None)
    np.testing.assert_array_equal(load_checkpoint(path).detector.weights, detector.weights)


@pytest.mark.parametrize("half", [False, True])
def test_the_classifier_comes_back(half, checkpoint, path):
    random = np.random.default_rng(0)
    kept = ImageNetClassifier(random.random((6, 1000), np.float32), random.random(1000, np.float32))
    save_checkpoint(replace(checkpoint, classifier=kept), path, half=half)
    found = load_checkpoint(path).classifier
    for name in ("kernel", "bias"):
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name), getattr(kept, name), rtol=1e-3 if half else 0)


@pytest.mark.parametrize("name", DECODERS)
def test_sixteen_bits_halve_the_file_and_hardly_change_a_logit(name, tokenizer, tmp_path):
    # So large that the weights are most of the file.
    checkpoint = without_encoder(name, tokenizer, feature_size=64, units=128)
    whole, half = tmp_path / "whole.h5", tmp_path / "half.h5"
    save_checkpoint(checkpoint, whole)
    save_checkpoint(checkpoint, half, half=True)
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    inputs = [features_for(checkpoint), TOKENS]
    found, exact = (load_checkpoint(p).decoder.model(inputs).numpy() for p in (half, whole))
    assert found.dtype == np.float32
    assert 0 < np.abs(found - exact).max() < 1e-2


def test_an_encoder_in_sixteen_bits_keeps_its_identity(with_encoder, path):
    save_checkpoint(with_encoder, path, half=True)
    found = load_checkpoint(path)
    assert found.encoder.identity == found.encoder_identity == with_encoder.encoder.identity
    for a, b in zip(found.network.get_weights(), with_encoder.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("half", [False, True])
def test_a_failure_while_saving_leaves_the_old_file_and_no_other(half, checkpoint, path, monkeypatch):
    save_checkpoint(checkpoint, path)
    before = path.read_bytes()
    write = Path.write_bytes

    def disk_full_after_half(path: Path, content: bytes) -> None:
        write(path, content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", disk_full_after_half)
    with pytest.raises(CaptionError, match="disk is full"):
        save_checkpoint(checkpoint, path, half=half)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_named_with_the_way_out(path, monkeypatch):
    monkeypatch.setenv("CAPTION_OUTPUTS", str(path.parent / "none"))  # the notebooks may just have trained a model
    with pytest.raises(CaptionError, match=r"model\.h5 does not exist.*notebook 4"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all" * 100])
def test_a_file_that_is_not_hdf5_is_named(content, path):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CaptionError, match=r"model\.h5 is not a checkpoint in HDF5"):
        load_checkpoint(path)


def test_a_file_of_another_kind_is_no_model(tmp_path):
    (tmp_path / "README.md").write_text("# A model")
    with pytest.raises(CaptionError, match=r"README\.md is not a model: name an \.h5 or \.litert file\.$"):
        load_checkpoint(tmp_path / "README.md")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(share, checkpoint, path):
    save_checkpoint(checkpoint, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CaptionError, match=r"model\.h5 .*(damaged|not a checkpoint).*again"):
        load_checkpoint(path)


def test_a_plain_keras_file_is_said_to_be_foreign(decoder, path):
    path.parent.mkdir()
    decoder.model.save(path)
    with pytest.raises(CaptionError, match=r"model\.h5 does not say which encoder.*this project did not make it"):
        load_checkpoint(path)


def edit_about(path: Path, **changes) -> None:
    with h5py.File(path, "a") as file:
        about = json.loads(file["about"][()])
        del file["about"]
        file["about"] = json.dumps({k: v for k, v in {**about, **changes}.items() if v is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": None},
        {"training": None},
        {"decoder": {"name": "merge"}},
        {"encoder": {"name": "mobilenet", "surprise": 1}},
        {"decoder": {"name": "merge", "feature_size": 6, "vocabulary_size": 21, "units": 8}},
    ],
)
def test_a_file_whose_description_does_not_fit_is_damaged(changes, checkpoint, path):
    save_checkpoint(checkpoint, path)
    edit_about(path, **changes)
    with pytest.raises(CaptionError, match=r"model\.h5 is damaged"):
        load_checkpoint(path)


def test_a_decoder_that_this_version_lacks_is_named(checkpoint, path):
    save_checkpoint(checkpoint, path)
    edit_about(path, decoder={"name": "transformer", "feature_size": 6, "vocabulary_size": 20})
    with pytest.raises(CaptionError, match="transformer"):
        load_checkpoint(path)


@pytest.mark.parametrize("about", [5, np.zeros(3), "no JSON"])
def test_a_description_that_is_no_json_is_refused(about, checkpoint, path):
    save_checkpoint(checkpoint, path)
    with h5py.File(path, "a") as file:
        del file["about"]
        file["about"] = about
    with pytest.raises(CaptionError, match=r"model\.h5"):
        load_checkpoint(path)


def test_loading_runs_nothing_that_the_file_brings(checkpoint, path, tmp_path, monkeypatch):
    """A Lambda layer in a model's configuration is code of whoever made the file; here it is never looked at."""
    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((2,))
    leave_a_trace = keras.layers.Lambda(lambda x: (open("ran", "w").close(), x)[1])
    keras.Model(inputs, leave_a_trace(inputs)).save("evil.h5")
    Path("ran").unlink()
    save_checkpoint(checkpoint, path)
    with h5py.File("evil.h5", "r") as evil, h5py.File(path, "a") as file:
        file.attrs["model_config"] = evil.attrs["model_config"]

    found = load_checkpoint(path)
    assert not Path("ran").exists()
    assert same_weights(found.decoder.model, checkpoint.decoder.model)
    keras.models.load_model("evil.h5", compile=False, safe_mode=False)
    assert Path("ran").exists(), "the Lambda does not run anyway: this test would prove nothing"


def test_features_of_another_encoder_are_refused_by_name(checkpoint):
    check_encoder(IDENTITY, replace(IDENTITY))
    with pytest.raises(CaptionError, match=r"mobilenet \(weights 0123456789ab, pooling avg\).*xception.*notebook 2"):
        check_encoder(IDENTITY, EncoderIdentity("xception", 299, "xception", 2048, "ffff"))
    with pytest.raises(CaptionError, match="cafe"):
        check_encoder(IDENTITY, replace(IDENTITY, weights="cafe"))
    with pytest.raises(CaptionError, match="unnamed encoder"):
        check_encoder(IDENTITY, None)


def test_a_file_of_before_there_were_grids_has_vectors(checkpoint, path):
    save_checkpoint(checkpoint, path)
    edit_about(path, encoder={name: value for name, value in IDENTITY.to_dict().items() if name != "pooling"})
    assert load_checkpoint(path).encoder_identity == IDENTITY
    assert IDENTITY.pooling == "avg"


@pytest.mark.parametrize("pooling", ["avg", "grid"])
def test_features_of_the_other_pooling_are_refused(pooling):
    wanted, found = (replace(IDENTITY, pooling=p) for p in (pooling, {"avg": "grid", "grid": "avg"}[pooling]))
    check_encoder(wanted, replace(wanted))
    with pytest.raises(CaptionError, match="notebook 2"):
        check_encoder(wanted, found)


def test_a_complaint_about_the_pooling_tells_the_two_apart():
    assert str(IDENTITY) != str(replace(IDENTITY, pooling="grid"))


def test_an_encoder_with_other_weights_is_not_taken_for_the_models_own(with_encoder, monkeypatch, tmp_path):
    monkeypatch.setattr(checkpoint_module, "BUNDLED_MODEL", tmp_path / "none.h5")
    weights = tmp_path / "weights.weights.h5"
    with_encoder.encoder.backbone.save_weights(weights)
    apart = replace(with_encoder, encoder=None)
    found = find_encoder(apart, weights)
    assert found.identity == with_encoder.encoder_identity
    assert found.pooling == with_encoder.encoder.pooling
    stranger = replace(apart, encoder_identity=replace(apart.encoder_identity, weights="cafe"))
    with pytest.raises(CaptionError, match="cafe"):
        find_encoder(stranger, weights)


@pytest.mark.parametrize("pooling", ["avg", "grid"])
def test_the_shipped_models_encoder_serves_with_either_pooling(pooling, checkpoint, tiny_encoder, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "BUNDLED_MODEL", Path(__file__))  # any file that is there
    about = {"encoder": tiny_encoder.identity.to_dict()}
    monkeypatch.setattr(checkpoint_module, "read_about", lambda _: about)
    monkeypatch.setattr(checkpoint_module, "load_checkpoint", lambda _: replace(checkpoint, encoder=tiny_encoder))
    assert load_encoder("bundled", pooling=pooling).identity == replace(tiny_encoder.identity, pooling=pooling)
    wanted = with_pooling(tiny_encoder, pooling).identity
    found = find_encoder(replace(checkpoint, encoder_identity=wanted))
    assert found.identity == wanted
    assert found.backbone is tiny_encoder.backbone
