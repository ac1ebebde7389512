"""Tests of caption_generator.train."""

import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from caption_generator.batches import CaptionBatches
from caption_generator.captions import fingerprint
from caption_generator.checkpoint import Checkpoint, load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DecoderSpec, build_decoder
from caption_generator.encoders import EncoderIdentity
from caption_generator.features import Features
from caption_generator.systems import System
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from caption_generator.train import (
    DrawOrder,
    SaveCheckpoints,
    WordLoss,
    _run_name,
    build_system,
    check_tokenizer,
    fit,
    read_history,
    train_decoder,
)
from caption_generator.word_vectors import WordVectors

MERGE = System("merged", "mobilenet", "merge", units=8, embedding_size=7, hidden=9)
IDENTITY = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
# Each image has a word of its own, so that there is something to learn from its features.
TRAIN = {f"{n}.jpg": [f"w{n:02} w10", f"w10 w11 w{n:02} w12", f"w{n:02}"] for n in range(8)}
DEV = {f"dev{n}.jpg": [f"w{n:02} w10 w11"] for n in range(3)}
VECTORS = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
FEATURES = Features(
    dict(zip(TRAIN, VECTORS, strict=True)) | {f"dev{n}.jpg": VECTORS[n] for n in range(3)}, encoder=IDENTITY
)


class Killed(BaseException):
    """As KeyboardInterrupt, nothing on the way catches it."""


class LogScores(keras.callbacks.Callback):
    """As if the captions of each epoch had been scored: they are best after the first."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["val_score"] = (5.0, 1.0, 3.0)[epoch]


def run(folder: Path, tokenizer, epochs: int = 3, learning_rate: float = 0.01, **options):
    """`train_decoder` with a decoder of 8 units: its network and its history."""
    keras.utils.set_random_seed(5)
    decoder = build_decoder(DecoderSpec("merge", 6, len(tokenizer), units=8, embedding_size=8, hidden=8))
    decoder.model.compile(keras.optimizers.Adam(learning_rate), WordLoss(), jit_compile=False)
    checkpoint = Checkpoint(decoder, tokenizer, IDENTITY, training={"learning_rate": learning_rate})
    batches = CaptionBatches(TRAIN, FEATURES.matrix(list(TRAIN)), tokenizer, batch_size=5, seed=1)
    dev = CaptionBatches(DEV, FEATURES.matrix(list(DEV)), tokenizer, batch_size=5, seed=None)
    history = fit(decoder.model, batches, dev, checkpoint, folder, epochs, **options)
    return decoder.model, history


@pytest.fixture(scope="module")
def words():
    return Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], max_length=6)


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """An uninterrupted run of three epochs: its folder, network and history."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *run(folder, words)


def run_and_kill(folder: Path, tokenizer, **options) -> None:
    """As `run`, killed at the second batch of the third epoch."""

    def kill(self, batch, logs=None):
        if self.batches.epoch == 2 and batch == 1:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DrawOrder, "on_train_batch_end", kill)
        with pytest.raises(Killed):
            run(folder, tokenizer, **options)


@pytest.fixture(scope="module")
def killed(words, tmp_path_factory):
    """The folder of a like run that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    run_and_kill(folder, words)
    return folder


@pytest.fixture
def folder(killed, tmp_path) -> Path:
    """A copy of the killed run's folder."""
    return shutil.copytree(killed, tmp_path / "models")


def test_losses_fall_and_are_logged(whole):
    folder, _, history = whole
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[0]["loss"] > history[1]["loss"] > history[2]["loss"]
    assert history[0]["val_loss"] > history[2]["val_loss"]
    assert read_history(folder / "history.csv") == history
    assert (folder / "history.csv").read_text().splitlines()[0] == "epoch,loss,val_loss"


def test_every_epoch_is_kept_and_the_best_is_the_one_of_the_lowest_dev_loss(whole):
    folder, network, history = whole
    assert sorted(p.name for p in folder.iterdir()) == [
        "history.csv",
        "model_1.h5",
        "model_2.h5",
        "model_3.h5",
        "model_best.h5",
        "resume",
    ]
    assert not list((folder / "resume").iterdir())
    last, best = load_checkpoint(folder / "model_3.h5"), load_checkpoint(folder / "model_best.h5")
    assert_same_weights(last.decoder.model, network)
    assert last.training["epoch"] == 3
    assert last.training["val_loss"] == pytest.approx(history[2]["val_loss"])
    assert last.training["learning_rate"] == 0.01
    assert best.training["val_loss"] == pytest.approx(min(row["val_loss"] for row in history))


def assert_same_weights(one: keras.Model, other: keras.Model) -> None:
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def assert_same_history(one: list[dict], other: list[dict]) -> None:
    assert [row["epoch"] for row in one] == [row["epoch"] for row in other]
    for name in ("loss", "val_loss"):
        assert [row[name] for row in one] == pytest.approx([row[name] for row in other], rel=1e-4)


def test_the_logged_dev_loss_is_that_of_the_saved_model(whole, words):
    folder, _, history = whole
    model = load_checkpoint(folder / "model_2.h5").decoder.model
    dev = CaptionBatches(DEV, FEATURES.matrix(list(DEV)), words, batch_size=5, seed=None)
    model.compile(loss=WordLoss())
    assert model.evaluate(dev.dataset(), verbose=0) == pytest.approx(history[1]["val_loss"], rel=1e-4)


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(whole, words, folder):
    _, network, history = whole
    assert (folder / "model_2.h5").is_file()
    assert not (folder / "model_3.h5").exists()
    (folder / "model_1.h5").unlink()
    resumed, resumed_history = run(folder, words)
    assert_same_history(resumed_history, history)
    assert_same_weights(resumed, network)
    assert_same_weights(load_checkpoint(folder / "model_3.h5").decoder.model, network)
    assert not (folder / "model_1.h5").exists()  # finished epochs are not run again


def test_a_kill_while_the_backup_is_written_costs_an_epoch_and_not_the_run(whole, words, folder):
    _, network, history = whole
    (backup,) = folder.glob("resume/*/latest.weights.h5")
    backup.write_bytes(backup.read_bytes()[:1000])
    resumed, resumed_history = run(folder, words)
    assert_same_history(resumed_history, history)
    assert_same_weights(resumed, network)


def test_a_run_with_other_settings_does_not_go_on_with_anothers_backup(words, folder):
    _, history = run(folder, words, epochs=1, learning_rate=0.02)
    assert [row["epoch"] for row in history] == [1]
    assert load_checkpoint(folder / "model_best.h5").training["learning_rate"] == 0.02


def test_every_setting_makes_another_run(decoder, words):
    checkpoint = Checkpoint(decoder, words, IDENTITY, training={"seed": 0})
    other_spec = replace(decoder, spec=replace(decoder.spec, dropout=0.4))
    others = [
        replace(checkpoint, decoder=other_spec),
        replace(checkpoint, encoder_identity=replace(IDENTITY, weights="cafe")),
        replace(checkpoint, tokenizer=Tokenizer([*words.words[:4], *words.words[:3:-1]], 6)),
        replace(checkpoint, training={"seed": 1}),
    ]
    assert len({_run_name(run) for run in (checkpoint, *others)}) == 5
    assert _run_name(replace(checkpoint)) == _run_name(checkpoint)


def test_a_finished_run_is_not_resumed(whole, words, tmp_path):
    again = shutil.copytree(whole[0], tmp_path / "models")
    _, history = run(again, words, epochs=1)
    assert_same_history(history, whole[2][:1])


@pytest.mark.parametrize(
    ("best_by", "values", "best"),
    [("val_loss", (1.5, 0.9, 0.95), 2), ("val_score", (1.5, 0.9, 1.6), 3), ("val_score", (1.5, 0.9, 1.5), 1)],
    ids=["the least loss", "the most of a score", "the first of equals"],
)
def test_the_best_epoch_is_kept(best_by, values, best, words, decoder, tmp_path):
    saver = SaveCheckpoints(Checkpoint(decoder, words, IDENTITY), tmp_path, best_by, before=[])
    for epoch, value in enumerate(values):
        saver.on_epoch_end(epoch, {"loss": 2.0 - epoch, "val_loss": 1.0 + epoch, best_by: value})
    found = load_checkpoint(tmp_path / "model_best.h5").training
    assert (found["epoch"], found[best_by]) == (best, values[best - 1])


@pytest.mark.parametrize(("best_by", "better", "worse"), [("val_loss", 0.9, 1.1), ("val_score", 1.1, 0.9)])
def test_a_resumed_run_keeps_a_better_model_of_before(best_by, better, worse, words, decoder, tmp_path):
    before = [{"epoch": 1, best_by: 1.0}, {"epoch": 2, best_by: worse}]
    saver = SaveCheckpoints(Checkpoint(decoder, words, IDENTITY), tmp_path, best_by, before)
    for epoch, value in ((2, worse), (3, 1.0), (4, better)):
        saver.on_epoch_end(epoch, {best_by: value})
        assert (tmp_path / "model_best.h5").exists() == (epoch == 4)
    assert load_checkpoint(tmp_path / "model_best.h5").training["epoch"] == 5


def test_a_killed_run_that_goes_on_remembers_its_best_score(words, tmp_path):
    options = {"best_by": "val_score", "callbacks": [LogScores()]}
    run_and_kill(tmp_path, words, **options)
    assert load_checkpoint(tmp_path / "model_best.h5").training["val_score"] == 5
    _, history = run(tmp_path, words, **options)
    assert [row["val_score"] for row in history] == [5, 1, 3]
    assert (tmp_path / "model_3.h5").is_file()
    assert load_checkpoint(tmp_path / "model_best.h5").training["epoch"] == 1


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


def test_train_decoder_writes_checkpoints_that_know_what_they_were_trained_on(words, tmp_path):
    (row,) = train_decoder(
        TRAIN, DEV, FEATURES, words, tmp_path, MERGE, epochs=1, batch_size=8, seed=3, dataset="drawn"
    )
    checkpoint = load_checkpoint(tmp_path / "model_best.h5")
    assert checkpoint.decoder.spec == DecoderSpec("merge", 6, 20, units=8, embedding_size=7, hidden=9)
    assert checkpoint.encoder_identity == IDENTITY
    assert checkpoint.tokenizer.words == words.words
    assert checkpoint.training == {
        "dataset": "drawn",
        "system": "mobilenet-merged",
        "word_vectors": None,
        "images": 8,
        "captions": 24,
        "fingerprint": fingerprint(TRAIN),
        "batch_size": 8,
        "learning_rate": 1e-3,
        "cosine_epochs": None,
        "seed": 3,
        "epoch": 1,
        "loss": pytest.approx(row["loss"]),
        "val_loss": pytest.approx(row["val_loss"]),
    }
    # An untrained decoder is as unsure as one of 20 words can be.
    assert row["val_loss"] == pytest.approx(np.log(20), abs=0.3)


def grids(pooling: str = "grid") -> Features:
    vectors = {name: np.tile(vector, (2, 3, 1)) for name, vector in FEATURES.vectors.items()}
    return Features(vectors, replace(IDENTITY, pooling=pooling))


@pytest.mark.parametrize(
    ("decoder", "features", "read", "given"),
    [("merge", grids(), "avg", "grid"), ("attention", FEATURES, "grid", "avg")],
)
def test_a_decoder_that_reads_other_features_is_refused(decoder, features, read, given, words, tmp_path):
    system = replace(MERGE, decoder=decoder)
    with pytest.raises(CaptionError, match=f"{decoder} reads features with pooling '{read}', and these have '{given}'"):
        train_decoder(TRAIN, DEV, features, words, tmp_path, system, epochs=1)
    assert not list(tmp_path.iterdir())


def test_a_decoder_that_nobody_knows_is_refused(words, tmp_path):
    with pytest.raises(CaptionError, match="transformer"):
        train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, replace(MERGE, decoder="transformer"), epochs=1)


def test_the_vocabulary_of_another_system_is_refused():
    check_tokenizer(MERGE, TRAIN, Tokenizer.fit([text for group in TRAIN.values() for text in group], 4))
    with pytest.raises(CaptionError, match=r"have 4 times or more, which mobilenet-merged reads.*notebook 3"):
        check_tokenizer(MERGE, TRAIN, Tokenizer.fit([text for group in TRAIN.values() for text in group], 1))


def test_features_of_another_encoder_than_the_systems_are_refused(words, tmp_path):
    with pytest.raises(CaptionError, match=r"xception-merged reads features of the encoder xception.*notebook 2"):
        train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, replace(MERGE, encoder="xception"), epochs=1)
    train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, replace(MERGE, encoder="bundled"), epochs=1)


class LogRates(keras.callbacks.Callback):
    """The learning rate of every batch."""

    def __init__(self):
        super().__init__()
        self.rates: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.rates.append(float(self.model.optimizer.learning_rate))


@pytest.mark.parametrize("cosine", [True, False])
def test_the_learning_rate_falls_to_nothing_along_a_cosine_if_so_wanted(cosine, words, tmp_path):
    log = LogRates()
    system, options = replace(MERGE, learning_rate=0.01), {"epochs": 2, "batch_size": 8, "callbacks": [log]}
    train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, system, cosine=cosine, **options)
    steps = np.arange(6) / 6  # 24 captions, twice
    expected = 0.01 * (1 + np.cos(np.pi * steps)) / 2 if cosine else np.full(6, 0.01)
    np.testing.assert_allclose(log.rates, expected, rtol=1e-5)
    assert load_checkpoint(tmp_path / "model_2.h5").training["cosine_epochs"] == (2 if cosine else None)


def test_train_decoder_trains_on_stored_grids_too(words, tmp_path):
    system = replace(MERGE, decoder="attention")
    (row,) = train_decoder(TRAIN, DEV, grids(), words, tmp_path, system, epochs=1, batch_size=8)
    assert np.isfinite(row["val_loss"])


def word_vectors(words: Tokenizer) -> WordVectors:
    matrix = np.random.default_rng(0).normal(size=(len(words), 5)).astype(np.float32)
    return WordVectors(matrix, tuple(words.words[4:]), (), "glove.drawn.5d.txt")


@pytest.mark.parametrize("kind", ["frozen", "finetuned"])
def test_pretrained_word_vectors_are_where_the_words_begin_and_if_frozen_end(kind, words, tmp_path):
    system, vectors = replace(MERGE, words=kind), word_vectors(words)
    before = build_system(system, 6, words, vectors).model.get_layer("embedding").embeddings.numpy()
    np.testing.assert_array_equal(before, vectors.matrix)
    train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, system, vectors, epochs=1, batch_size=8)
    trained = load_checkpoint(tmp_path / "model_best.h5")
    assert trained.training["word_vectors"] == f"glove.drawn.5d.txt {vectors.fingerprint}"
    assert trained.decoder.spec.embedding_size == 5
    after = trained.decoder.model.get_layer("embedding").embeddings.numpy()
    assert (np.abs(after - vectors.matrix).max() == 0) == (kind == "frozen")


def test_word_vectors_that_are_missing_or_in_vain_are_refused(words, tmp_path):
    with pytest.raises(CaptionError, match="mobilenet-merged begins with pretrained word vectors"):
        train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, replace(MERGE, words="frozen"), epochs=1)
    with pytest.raises(CaptionError, match="mobilenet-merged learns its words"):
        train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, MERGE, word_vectors(words), epochs=1)
    fewer = Tokenizer(words.words[:-1], 6)
    with pytest.raises(CaptionError, match="vectors are of 19 words, and the vocabulary has 20"):
        train_decoder(TRAIN, DEV, FEATURES, words, tmp_path, replace(MERGE, words="frozen"), word_vectors(fewer))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("train", "dev", "features", "message"),
    [
        ({}, DEV, FEATURES, "no training or no dev captions"),
        (TRAIN, {}, FEATURES, "no training or no dev captions"),
        (TRAIN, DEV, Features(FEATURES.vectors), "features.p does not say which encoder.*notebook 2"),
        (TRAIN | {"new.jpg": ["w01"]}, DEV, FEATURES, r"lacks 1 of 9 images, new\.jpg.*notebook 2"),
        (TRAIN, DEV | {"new.jpg": ["w01"]}, FEATURES, r"lacks 1 of 4 images, new\.jpg"),
    ],
)
def test_what_cannot_be_trained_on_is_said(train, dev, features, message, words, tmp_path):
    with pytest.raises(CaptionError, match=message):
        train_decoder(train, dev, features, words, tmp_path, MERGE, epochs=1)
    assert not list(tmp_path.iterdir())


def test_a_missing_history_is_named(tmp_path):
    with pytest.raises(CaptionError, match=r"history\.csv does not exist.*notebook 4"):
        read_history(tmp_path / "history.csv")


def test_the_last_row_of_a_repeated_epoch_counts(tmp_path):
    log = tmp_path / "history.csv"
    log.write_text("epoch,loss,val_loss\n0,3,3\n1,2,2.5\n1,1.9,2.4\n2,1,2\n")
    assert read_history(log) == [
        {"epoch": 1, "loss": 3, "val_loss": 3},
        {"epoch": 2, "loss": 1.9, "val_loss": 2.4},
        {"epoch": 3, "loss": 1, "val_loss": 2},
    ]


def test_a_run_is_not_resumed_with_what_another_left_in_its_folder(folder, whole, words):
    run(folder, words, epochs=1, learning_rate=0.02)
    _, history = run(folder, words)
    assert history == whole[2]
    assert load_checkpoint(folder / "model_best.h5").training["learning_rate"] == 0.01
