"""Tests of caption_generator.train and of the checks in caption_generator.compatibility before it."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from caption_generator.captions import Dataset, captions_fingerprint
from caption_generator.checkpoint import load_checkpoint, read_about
from caption_generator.common.errors import CaptionError
from caption_generator.compatibility import check_tokenizer
from caption_generator.decoders import DecoderSpec
from caption_generator.encoders import EncoderIdentity
from caption_generator.features import Features
from caption_generator.systems import System
from caption_generator.tokenizer import Tokenizer, fit_tokenizer
from caption_generator.train import TrainSettings, WordLoss, build_system, train_decoder
from caption_generator.word_vectors import WordVectors
from caption_generator.workspace import BUNDLED_MODEL
from tests.helpers import WORDS

pytestmark = pytest.mark.usefixtures("eager")

SPEC = DecoderSpec("merge", units=8, embedding_size=7, hidden=9)
MERGE = System("merged", "mobilenet", SPEC)
GLOVE = replace(MERGE, decoder=replace(SPEC, frozen_words=True))
IDENTITY = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
TRAIN = {f"{n}.jpg": [f"w{n:02} w10", f"w10 w11 w{n:02} w12", f"w{n:02}"] for n in range(8)}
DEV = {f"dev{n}.jpg": [f"w{n:02} w10 w11"] for n in range(3)}
DATA = Dataset(TRAIN, DEV, references={}, name="drawn")
VECTORS = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
FEATURES = Features(
    dict(zip(TRAIN, VECTORS, strict=True)) | {f"dev{n}.jpg": VECTORS[n] for n in range(3)}, encoder=IDENTITY
)
EPOCH = TrainSettings(epochs=1, batch_size=8)


LOGITS = np.random.default_rng(0).normal(0, 2, (3, 4, 20)).astype(np.float32)
TARGETS = np.random.default_rng(1).integers(20, size=(3, 4)).astype(np.int32)


def test_the_loss_is_cross_entropy_and_smoothing_that_of_smoothed_labels():
    one_hot = keras.utils.to_categorical(TARGETS, 20)
    plain = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert float(WordLoss()(TARGETS, LOGITS)) == pytest.approx(float(plain(TARGETS, LOGITS)), rel=1e-5)
    found = [float(WordLoss()(TARGETS, LOGITS))]
    for smoothing in (0.1, 0.5):
        smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        found.append(float(WordLoss(smoothing)(TARGETS, LOGITS)))
        assert found[-1] == pytest.approx(float(smoothed(one_hot, LOGITS)), rel=1e-5)
    assert max(found) - min(found) > 0.01


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_padding_has_no_part_in_the_loss(smoothing):
    weights = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], np.float32)
    counted = weights.astype(bool)
    expected = float(WordLoss(smoothing)(TARGETS[counted][None], LOGITS[counted][None]))
    assert float(WordLoss(smoothing)(TARGETS, LOGITS, weights)) == pytest.approx(expected, rel=1e-5)
    other = LOGITS.copy()
    other[~counted] *= -1
    assert float(WordLoss(smoothing)(TARGETS, other, weights)) == pytest.approx(expected, rel=1e-5)


def test_a_sure_answer_loses_with_smoothing_and_does_not_without():
    sure = 30 * keras.utils.to_categorical(TARGETS, 20).astype(np.float32)
    assert float(WordLoss()(TARGETS, sure)) == pytest.approx(0, abs=1e-5)
    assert float(WordLoss(0.1)(TARGETS, sure)) == pytest.approx(0.1 * 30 * 19 / 20, rel=1e-3)


def test_checkpoints_know_what_they_were_trained_on(tmp_path):
    (row,) = train_decoder(DATA, FEATURES, WORDS, tmp_path, MERGE, replace(EPOCH, seed=3))
    checkpoint = load_checkpoint(tmp_path / "model_best.h5")
    assert checkpoint.decoder.spec == replace(SPEC, feature_size=6, vocabulary_size=20)
    assert checkpoint.encoder_identity == IDENTITY
    assert checkpoint.tokenizer.words == WORDS.words
    training = dict(checkpoint.training)
    assert len(training.pop("run")) == 12
    assert (
        training
        == {
            "dataset": "drawn",
            "system": "mobilenet-merged",
            "learning_rate": 1e-3,
            "word_vectors": None,
            "images": 8,
            "captions": 24,
            "fingerprint": captions_fingerprint(TRAIN),
            "batch_size": 8,
            "cosine": False,
            "seed": 3,
        }
        | row
    )
    # An untrained decoder is as unsure as one of 20 words can be.
    assert row["val_loss"] == pytest.approx(np.log(20), abs=0.3)


def test_the_same_seed_is_the_same_run_and_another_is_not(tmp_path):
    losses = [
        train_decoder(DATA, FEATURES, WORDS, tmp_path / str(number), MERGE, replace(EPOCH, seed=seed))[0]["val_loss"]
        for number, seed in enumerate((0, 0, 1))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("cosine", "goes_on"), [(False, True), (True, False)])
def test_more_epochs_continue_a_run_unless_the_learning_rate_depends_on_their_number(cosine, goes_on, tmp_path):
    settings = replace(EPOCH, cosine=cosine)
    [first] = train_decoder(DATA, FEATURES, WORDS, tmp_path, MERGE, settings)
    history = train_decoder(DATA, FEATURES, WORDS, tmp_path, MERGE, replace(settings, epochs=2))
    assert (history[0] == first) == goes_on
    runs = {load_checkpoint(path).training["run"] for path in tmp_path.glob("model_*.h5")}
    assert len(runs) == (1 if goes_on else 2)  # the other run's best model is kept


@pytest.mark.parametrize(("captions", "batch_size", "epochs"), [(24, 8, 100), (900, 32, 20), (30_000, 256, 20)])
def test_settings_suit_the_number_of_captions(captions, batch_size, epochs):
    settings = TrainSettings.for_captions(captions)
    assert (settings.batch_size, settings.epochs) == (batch_size, epochs)
    assert settings.epochs * -(-captions // batch_size) >= 300


def grids(pooling: str = "grid") -> Features:
    vectors = {name: np.tile(vector, (2, 3, 1)) for name, vector in FEATURES.vectors.items()}
    return Features(vectors, replace(IDENTITY, pooling=pooling))


@pytest.mark.parametrize(
    ("decoder", "features", "read", "given"),
    [("merge", grids(), "avg", "grid"), ("attention", FEATURES, "grid", "avg")],
)
def test_a_decoder_that_reads_other_features_is_refused(decoder, features, read, given, tmp_path):
    system = replace(MERGE, decoder=replace(SPEC, name=decoder))
    with pytest.raises(CaptionError, match=f"{decoder} reads features with pooling '{read}', and these have '{given}'"):
        train_decoder(DATA, features, WORDS, tmp_path, system, EPOCH)
    assert not list(tmp_path.iterdir())


def test_a_decoder_that_nobody_knows_is_refused(tmp_path):
    system = replace(MERGE, decoder=replace(SPEC, name="transformer"))
    with pytest.raises(CaptionError, match="transformer"):
        train_decoder(DATA, FEATURES, WORDS, tmp_path, system, EPOCH)


@pytest.mark.parametrize("min_count", [1, 2, 4])
def test_a_vocabulary_with_any_threshold_fits_its_captions_and_no_others(min_count):
    check_tokenizer(TRAIN, fit_tokenizer(TRAIN, min_count))
    with pytest.raises(CaptionError, match=r"not hold the most frequent words of the training captions.*notebook 3"):
        check_tokenizer({"0.jpg": ["w10 w03"]}, fit_tokenizer(TRAIN, min_count))


def test_features_of_another_encoder_than_the_systems_are_refused(tmp_path):
    for encoder in ("xception", "bundled"):
        with pytest.raises(CaptionError, match=f"{encoder}-merged reads features of the encoder {encoder}.*notebook 2"):
            train_decoder(DATA, FEATURES, WORDS, tmp_path, replace(MERGE, encoder=encoder), EPOCH)
    ships = replace(IDENTITY, weights=read_about(BUNDLED_MODEL)["encoder"]["weights"])
    train_decoder(DATA, replace(FEATURES, encoder=ships), WORDS, tmp_path, replace(MERGE, encoder="bundled"), EPOCH)


@pytest.mark.parametrize(("captions", "batch_size", "epochs"), [(1, 8, 300), (48, 8, 50), (375, 32, 25), (750, 32, 20)])
def test_the_number_of_captions_decides_how_to_train(captions, batch_size, epochs):
    assert TrainSettings.for_captions(captions) == TrainSettings(epochs, batch_size)
    assert TrainSettings.for_captions(30_000) == TrainSettings(20, 256)


class LogRates(keras.callbacks.Callback):
    """The learning rate of every batch."""

    def __init__(self):
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


@pytest.mark.parametrize("cosine", [True, False])
def test_the_learning_rate_falls_to_nothing_along_a_cosine_if_so_wanted(cosine, tmp_path):
    log, settings = LogRates(), TrainSettings(epochs=2, batch_size=8, cosine=cosine)
    train_decoder(DATA, FEATURES, WORDS, tmp_path, replace(MERGE, learning_rate=0.01), settings, callbacks=[log])
    steps = np.arange(6) / 6  # 24 captions, twice
    expected = 0.01 * (1 + np.cos(np.pi * steps)) / 2 if cosine else np.full(6, 0.01)
    np.testing.assert_allclose(log.rates, expected, rtol=1e-5)


def word_vectors(words: Tokenizer) -> WordVectors:
    matrix = np.random.default_rng(0).normal(size=(len(words), 5)).astype(np.float32)
    return WordVectors(matrix, tuple(words.words[4:]), (), "glove.drawn.5d.txt")


def test_pretrained_word_vectors_fill_the_embedding_and_stay(tmp_path):
    vectors = word_vectors(WORDS)
    before = build_system(GLOVE, 6, WORDS, vectors).model.get_layer("embedding").embeddings.numpy()
    np.testing.assert_array_equal(before, vectors.matrix)
    train_decoder(DATA, FEATURES, WORDS, tmp_path, GLOVE, EPOCH, vectors)
    trained = load_checkpoint(tmp_path / "model_best.h5")
    assert trained.training["word_vectors"] == f"glove.drawn.5d.txt {vectors.fingerprint}"
    assert trained.decoder.spec.embedding_size == 5  # the file decides
    np.testing.assert_array_equal(trained.decoder.model.get_layer("embedding").embeddings, vectors.matrix)


def test_word_vectors_that_are_missing_or_in_vain_are_refused(tmp_path):
    with pytest.raises(CaptionError, match="mobilenet-merged needs pretrained word vectors"):
        train_decoder(DATA, FEATURES, WORDS, tmp_path, GLOVE, EPOCH)
    with pytest.raises(CaptionError, match="mobilenet-merged learns its word vectors"):
        train_decoder(DATA, FEATURES, WORDS, tmp_path, MERGE, EPOCH, word_vectors(WORDS))
    fewer = Tokenizer(WORDS.words[:-1], 6)
    with pytest.raises(CaptionError, match="vectors are of 19 words, and the vocabulary has 20"):
        train_decoder(DATA, FEATURES, WORDS, tmp_path, GLOVE, EPOCH, word_vectors(fewer))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "features", "message"),
    [
        ({"train": {}}, FEATURES, "no training or no dev captions"),
        ({"dev": {}}, FEATURES, "no training or no dev captions"),
        ({}, Features(FEATURES.vectors), "features.p does not say which encoder.*notebook 2"),
        ({"train": TRAIN | {"new.jpg": ["w01"]}}, FEATURES, r"lacks 1 of 9 images, new\.jpg.*notebook 2"),
        ({"dev": DEV | {"new.jpg": ["w01"]}}, FEATURES, r"lacks 1 of 4 images, new\.jpg"),
    ],
)
def test_what_cannot_be_trained_on_is_said(change, features, message, tmp_path):
    with pytest.raises(CaptionError, match=message):
        train_decoder(replace(DATA, **change), features, WORDS, tmp_path, MERGE, EPOCH)
    assert not list(tmp_path.iterdir())
