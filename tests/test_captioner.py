"""Tests of caption_generator.captioner."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from caption_generator.captioner import Captioner, vocabulary_note
from caption_generator.checkpoint import Checkpoint, save_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DECODERS, DecoderSpec, build_decoder
from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
from caption_generator.imagenet_words import Thing
from caption_generator.images import load_pixels
from caption_generator.inference import imagenet_classifier
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.keras_engine import KerasEngine
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.search import BeamSearch, Caption
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.helpers import WORDS, draw_weights


@pytest.fixture(scope="module", params=DECODERS)
def model(request, tmp_path_factory) -> Path:
    """A checkpoint with an encoder of few pixels inside, both with random weights."""
    pooling = DECODERS[request.param].pooling
    size = {"avg": 32, "grid": 64}[pooling]  # a grid of 2 x 2
    row = EncoderRow("tiny", "MobileNet", "mobilenet", size, 256, arguments=(("alpha", 0.25),))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", row)
        keras.utils.set_random_seed(0)
        encoder = build_encoder("tiny", weights=None, pooling=pooling)
        random = np.random.default_rng(0)
        for layer in encoder.backbone.layers:  # as they are drawn, the signal dies away from layer to layer
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                layer.set_weights([random.normal(0, 0.6, layer.kernel.shape)])
        decoder = build_decoder(DecoderSpec(request.param, 256, len(WORDS), units=8, embedding_size=8, hidden=8))
        draw_weights(decoder, 0.5)
        for layer in decoder.model.layers:
            if layer.name in ("image_dense", "keys", "values", "first_h", "first_c"):
                layer.kernel.assign(1000 * layer.kernel)  # features of random networks are tiny
        path = tmp_path_factory.mktemp("workspace") / "models" / "model.h5"
        save_checkpoint(Checkpoint(decoder, WORDS, encoder.identity, encoder), path)
        yield path


@pytest.fixture(scope="module")
def captioner(model) -> Captioner:
    return Captioner.load(model, beam=2)


def test_files_are_captioned_in_order_and_broken_ones_keep_their_place(captioner, workspace):
    good = [workspace.images / name for name in workspace.image_names()[:5]]
    broken = workspace.images / "broken.jpg"
    broken.write_bytes(b"no picture")
    paths = [good[3], broken, good[0], workspace.images / "missing.jpg", *good]
    results = list(captioner.caption_files(paths, batch_size=2))
    assert [result.path for result in results] == paths
    for result in results:
        if result.path in good:
            assert len(result.captions) == 2
            assert result.best is result.captions[0]
            assert not result.error
        else:
            assert result.captions == ()
            assert result.path.name in result.error
    captions = {result.path: result.best.text for result in results if result.captions}
    assert [captions[path] for path in good] == [result.best.text for result in results[-5:]]
    assert len(set(captions.values())) > 1


def test_a_batch_without_a_single_good_file_is_no_trouble(captioner, tmp_path):
    results = list(captioner.caption_files([tmp_path / "one.jpg", tmp_path / "two.jpg"]))
    assert all("does not exist" in result.error for result in results)
    assert list(captioner.caption_files([])) == []


def test_pixels_files_and_features_give_the_same_captions(captioner, workspace):
    paths = [workspace.images / name for name in workspace.image_names()]
    pixels = np.stack([load_pixels(path, captioner.engine.input_size) for path in paths])
    from_pixels = captioner.caption_pixels(pixels)
    from_floats = captioner.caption_pixels(pixels.astype(np.float32))
    from_files = [result.captions for result in captioner.caption_files(paths)]
    features = captioner.engine.encoder.model.predict_on_batch(pixels)
    from_features = BeamSearch(captioner.engine.decoder, captioner.engine.tokenizer, 2)(features)
    for other in (from_floats, from_files, from_features):
        assert [[c.text for c in captions] for captions in other] == [[c.text for c in cs] for cs in from_pixels]


def test_the_engine_says_how_the_positions_of_attention_weights_lie(captioner, workspace):
    [result] = captioner.caption_files([workspace.images / workspace.image_names()[0]])
    for caption in result.captions:
        if captioner.engine.decoder.spec.name != "attention":
            assert captioner.engine.grid is None and caption.attention is None
        else:
            assert captioner.engine.grid == (2, 2)
            assert caption.attention.shape == (len(caption.words), 4)


def with_knowledge(captioner: Captioner, **knowledge) -> Captioner:
    """The same model, with a word detector, a classifier or an out-of-distribution score."""
    checkpoint = replace(captioner.engine.checkpoint, **knowledge)
    return Captioner(KerasEngine(checkpoint, captioner.engine.encoder), captioner.search.beam)


def test_scores_are_multiplied_by_the_familiarity_of_their_photo(captioner, workspace):
    size = captioner.engine.input_size
    pixels = np.stack([load_pixels(workspace.images / name, size) for name in workspace.image_names()])
    vectors = captioner.engine.encode(pixels).reshape(len(pixels), -1, 256).mean(axis=1)
    first = vectors[0] / np.linalg.norm(vectors[0])
    cosines = vectors @ first / np.linalg.norm(vectors, axis=1)
    usual = Familiarity(first, lowest=float(cosines.min()), usual=1.0)
    familiar = with_knowledge(captioner, familiarity=usual)
    factors = usual(vectors)
    assert factors[0] == pytest.approx(1, abs=1e-3)
    assert factors.min() == pytest.approx(0, abs=1e-4)
    for plain, scaled, factor in zip(
        captioner.caption_pixels(pixels), familiar.caption_pixels(pixels), factors, strict=True
    ):
        assert [c.text for c in scaled] == [c.text for c in plain]
        assert [c.score for c in scaled] == pytest.approx([c.score * factor for c in plain], abs=1e-3)


def test_captions_name_what_the_classifier_is_sure_of(captioner, workspace, monkeypatch):
    size = captioner.engine.input_size
    pixels = np.stack([load_pixels(workspace.images / name, size) for name in workspace.image_names()])
    wall = Thing("stone wall", frozenset({"stone wall"}), ("stone wall", WORDS.words[-1]), (825,))
    monkeypatch.setattr(imagenet_classifier, "things", lambda: (wall,))
    sure = np.zeros(1000, np.float32)
    sure[825] = 50  # whatever the picture
    naming = with_knowledge(captioner, classifier=ImageNetClassifier(np.zeros((256, 1000), np.float32), sure))
    features = captioner.engine.encode(pixels)
    dog = [[Caption("a dog", (("a", 0.5), ("dog", 0.5), ("<end>", 0.5)), -9)] for _ in pixels]
    for captions in naming.rank(features, list(dog)):
        assert len(captions) == captioner.search.beam
        assert all("stone wall" in caption.text for caption in captions)
    assert [caption.text for [caption] in captioner.rank(features, list(dog))] == ["a dog"] * len(pixels)


def test_captions_are_ranked_by_the_words_that_their_photo_predicts(captioner, workspace):
    size, tokenizer = captioner.engine.input_size, captioner.engine.tokenizer
    pixels = np.stack([load_pixels(workspace.images / name, size) for name in workspace.image_names()])
    random = np.random.default_rng(0)
    shapes = ((256,), (len(tokenizer), 256), (len(tokenizer),))
    detector = WordDetector(*(random.random(shape, np.float32) for shape in shapes), threshold=0.5)
    ranking = with_knowledge(captioner, detector=detector)
    beam, features = captioner.search.beam, captioner.engine.encode(pixels)
    found = BeamSearch(captioner.engine.decoder, tokenizer, beam, captions=2 * beam)(features)
    assert (captioner.search.captions, ranking.search.captions) == (beam, 2 * beam)
    ranked = ranking.caption_pixels(pixels)
    assert ranked == [captions[:beam] for captions in detector.rank(features, found, tokenizer)]
    assert ranked != captioner.caption_pixels(pixels)

    photo = workspace.images / workspace.image_names()[0]
    expected = detector.predicted_words(features[0], tokenizer, top=4)
    assert ranking.predicted_words(photo, top=4) == pytest.approx(expected)
    with pytest.raises(CaptionError, match="has no word detector"):
        captioner.predicted_words(photo)


def test_a_missing_model_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPTION_OUTPUTS", str(tmp_path))  # the notebooks may just have trained a model
    with pytest.raises(CaptionError, match=r"none\.h5 does not exist.*notebook 4"):
        Captioner.load(tmp_path / "none.h5")


def test_the_note_is_silent_where_nothing_is_beside_the_model_or_the_same(captioner, model):
    beside = model.parent.parent / "tokenizer.p"
    beside.unlink(missing_ok=True)
    assert vocabulary_note(captioner.engine.tokenizer, model) == ""
    Tokenizer(WORDS.words, 6).save(beside)
    assert vocabulary_note(captioner.engine.tokenizer, model) == ""


def test_the_note_says_that_tokenizer_p_is_of_another_model(captioner, model):
    Tokenizer([*SPECIAL_TOKENS, "dog"], 6).save(model.parent.parent / "tokenizer.p")
    note = vocabulary_note(captioner.engine.tokenizer, str(model))
    assert f"the vocabulary inside {model} (20 words) was used" in note
    assert "another model (5 words)" in note


def test_the_note_says_that_tokenizer_p_cannot_be_read(captioner, model):
    (model.parent.parent / "tokenizer.p").write_bytes(b"torn")
    note = vocabulary_note(captioner.engine.tokenizer, model)
    assert f"the vocabulary inside {model} was used, because" in note
    assert "tokenizer.p is not a pickle of plain data" in note
