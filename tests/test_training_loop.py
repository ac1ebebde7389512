"""Tests of caption_generator.training_loop: whenever a run is killed, it ends as if nothing had happened."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from caption_generator import checkpoint as checkpoint_module
from caption_generator import training_loop
from caption_generator.batches import CaptionBatches
from caption_generator.checkpoint import Checkpoint, load_checkpoint, read_about
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import DecoderSpec, build_decoder
from caption_generator.encoders import EncoderIdentity
from caption_generator.tokenizer import Tokenizer
from caption_generator.train import WordLoss
from caption_generator.training_loop import (
    DrawOrder,
    ResumeFile,
    SaveCheckpoints,
    find_run,
    fit,
    read_history,
    run_fingerprint,
)
from tests.helpers import WORDS, Killed, killed_at, same_weights

pytestmark = pytest.mark.usefixtures("eager")

IDENTITY = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
# Each image has a word of its own, so that there is something to learn from its features.
TRAIN = {f"{n}.jpg": [f"w{n:02} w10", f"w10 w11 w{n:02} w12", f"w{n:02}"] for n in range(8)}
DEV = {f"dev{n}.jpg": [f"w{n:02} w10 w11"] for n in range(3)}
FEATURES = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
SCORES = (5.0, 1.0, 3.0, 2.0)


class LogScores(keras.callbacks.Callback):
    """As if the captions of each epoch had been scored: they are best after the first."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["val_score"] = SCORES[epoch]


def untrained(learning_rate: float = 0.01) -> Checkpoint:
    """A decoder of 8 units, compiled. `learning_rate` tells runs apart."""
    keras.utils.set_random_seed(5)
    decoder = build_decoder(DecoderSpec("merge", 6, len(WORDS), units=8, embedding_size=8, hidden=8))
    decoder.model.compile(keras.optimizers.Adam(learning_rate), WordLoss(), jit_compile=False)
    return Checkpoint(decoder, WORDS, IDENTITY, training={"learning_rate": learning_rate})


def dev_batches() -> CaptionBatches:
    return CaptionBatches(DEV, FEATURES[:3], WORDS, batch_size=5, seed=None)


def run(folder: Path, epochs: int = 3, learning_rate: float = 0.01, **options) -> list[dict[str, float]]:
    checkpoint = untrained(learning_rate)
    np.random.seed(len(str(folder)))  # whatever others drew before must not matter
    train = CaptionBatches(TRAIN, FEATURES, WORDS, batch_size=12, seed=1)
    return fit(checkpoint.decoder.model, train, dev_batches(), checkpoint, folder, epochs, **options)


def learning_rate_of(path: Path) -> float:
    return read_about(path)["training"]["learning_rate"]


def arrays_of(folder: Path) -> dict[str, np.ndarray]:
    """The variables of model and optimizer after the last epoch."""
    [path] = (folder / "resume").glob("*.npz")
    with np.load(path) as saved:
        return dict(saved)


def assert_same_run(folder: Path, other: Path) -> None:
    """Log, checkpoints, model and optimizer are equal bit for bit."""
    assert (folder / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    found, expected = arrays_of(folder), arrays_of(other)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    for path in other.glob("*.h5"):
        one, two = load_checkpoint(folder / path.name), load_checkpoint(path)
        assert one.training == two.training
        assert same_weights(one.decoder.model, two.decoder.model)


@dataclass
class Whole:
    """An uninterrupted run of three epochs."""

    folder: Path
    history: list[dict[str, float]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    return Whole(folder, run(folder))


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    """A copy of the folder of the uninterrupted run."""
    return shutil.copytree(whole.folder, tmp_path / "models")


@pytest.fixture
def not_trained(monkeypatch) -> None:
    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(keras.Model, "fit", refuse)


# What a run writes


def test_losses_fall_and_are_logged(whole):
    assert [row["epoch"] for row in whole.history] == [1, 2, 3]
    losses = [row["loss"] for row in whole.history]
    assert losses == sorted(losses, reverse=True)
    assert whole.history[0]["val_loss"] > whole.history[2]["val_loss"]
    assert read_history(whole.folder / "history.csv") == whole.history
    assert (whole.folder / "history.csv").read_text().splitlines()[0] == "epoch,loss,val_loss"


def test_every_epoch_is_kept_and_says_how_it_was_trained(whole):
    assert sorted(path.name for path in whole.folder.glob("[!.]*")) == [
        "history.csv",
        "model_1.h5",
        "model_2.h5",
        "model_3.h5",
        "model_best.h5",
        "resume",
    ]
    for row in whole.history:
        training = load_checkpoint(whole.folder / f"model_{row['epoch']}.h5").training
        assert row.items() <= training.items()
        assert training["learning_rate"] == 0.01
    best = load_checkpoint(whole.folder / "model_best.h5").training
    assert best["val_loss"] == min(row["val_loss"] for row in whole.history)


def test_the_logged_dev_loss_is_that_of_the_saved_model(whole):
    model = load_checkpoint(whole.folder / "model_2.h5").decoder.model
    model.compile(loss=WordLoss())
    loss = model.evaluate(dev_batches().dataset(), verbose=0)
    assert loss == pytest.approx(whole.history[1]["val_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("best_by", "values", "best"),
    [
        ("val_loss", (1.5, 0.9, 0.95), 2),
        ("val_score", (1.5, 0.9, 1.6), 3),
        ("val_score", (1.5, 0.9, 1.5), 1),
        ("val_loss", (math.nan, 0.9, 0.95), 2),
        ("val_loss", (0.9, math.nan, 0.95), 1),
    ],
    ids=["the least loss", "the most of a score", "the first of equals", "after no number", "before no number"],
)
def test_the_best_epoch_is_kept(best_by, values, best, tmp_path):
    checkpoint = replace(untrained(), training={"run": "this"})
    saver = SaveCheckpoints(checkpoint, tmp_path, best_by, history=[])
    for epoch, value in enumerate(values):
        saver.on_epoch_end(epoch, {"loss": 2.0 - epoch, "val_loss": 1.0 + epoch, best_by: value})
    found = load_checkpoint(tmp_path / "model_best.h5").training
    assert (found["epoch"], found[best_by]) == (best, values[best - 1])


def test_there_is_a_best_epoch_even_if_no_loss_is_a_number(tmp_path):
    saver = SaveCheckpoints(replace(untrained(), training={"run": "this"}), tmp_path, "val_loss", history=[])
    for epoch in range(2):
        saver.on_epoch_end(epoch, {"val_loss": math.nan})
    assert load_checkpoint(tmp_path / "model_best.h5").training["epoch"] == 1


# Killed runs


def test_a_run_that_was_killed_in_an_epoch_repeats_the_epoch(whole, tmp_path):
    def in_the_third_epoch(self, batch, logs=None):
        return self.batches.epoch == 2 and batch == 0

    with killed_at(DrawOrder, "on_train_batch_end", in_the_third_epoch):
        run(tmp_path)
    assert (tmp_path / "model_2.h5").is_file() and not (tmp_path / "model_3.h5").exists()
    (tmp_path / "model_1.h5").unlink()
    assert run(tmp_path) == whole.history
    assert not (tmp_path / "model_1.h5").exists()  # finished epochs are not run again
    shutil.copy(whole.folder / "model_1.h5", tmp_path)
    assert_same_run(tmp_path, whole.folder)


@pytest.mark.parametrize("files", range(5))
def test_a_run_that_was_killed_between_two_files_ends_as_if_nothing_had_happened(files, whole, tmp_path, monkeypatch):
    """Each epoch writes four files. In the second, the run is killed when some of them have got their names."""
    rename, renamed = Path.replace, []

    def kill(self, target):
        if len(renamed) == 4 + files:
            raise Killed
        renamed.append(Path(target).name if target.suffix != ".npz" else "resume")
        rename(self, target)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", kill)
        run(tmp_path)
    assert renamed[4:] == ["model_2.h5", "model_best.h5", "history.csv", "resume"][:files]
    assert run(tmp_path) == whole.history
    assert_same_run(tmp_path, whole.folder)


def test_a_run_that_was_killed_remembers_its_best_score(tmp_path):
    options = {"best_by": "val_score", "callbacks": [LogScores()]}
    with killed_at(DrawOrder, "on_epoch_begin", lambda self, epoch, logs=None: epoch == 2):
        run(tmp_path, **options)
    assert [row["val_score"] for row in run(tmp_path, **options)] == [5, 1, 3]
    assert (tmp_path / "model_3.h5").is_file()
    assert load_checkpoint(tmp_path / "model_best.h5").training["epoch"] == 1


@pytest.mark.parametrize("content", [b"", b"torn", None], ids=["empty", "no archive", "torn"])
def test_a_damaged_resume_file_is_named(content, copy):
    [path] = (copy / "resume").iterdir()
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CaptionError, match=rf"{path.name} is damaged.*remove it, and training starts again"):
        run(copy)


def test_a_resume_file_of_another_network_is_named(tmp_path):
    checkpoint = untrained()
    path = tmp_path / "other.npz"
    np.savez(path, epochs=1, **{str(number): np.zeros(3) for number in range(60)})
    with pytest.raises(CaptionError, match=r"other\.npz is damaged"):
        ResumeFile(path).restore(checkpoint.decoder.model)


# Finished runs


def test_a_finished_run_is_left_as_it_is(whole, copy, not_trained):
    before = {path: path.read_bytes() for path in copy.rglob("*.*")}
    assert run(copy) == whole.history
    assert run(copy, epochs=2) == whole.history[:2]
    assert {path: path.read_bytes() for path in copy.rglob("*.*")} == before


def test_the_last_checkpoint_of_a_finished_run_is_written_again_if_it_is_missing(whole, copy, not_trained):
    for number in (2, 3):
        (copy / f"model_{number}.h5").unlink()
    assert run(copy) == whole.history
    assert not (copy / "model_2.h5").exists()
    shutil.copy(whole.folder / "model_2.h5", copy)
    assert_same_run(copy, whole.folder)


def test_more_epochs_continue_a_finished_run(whole, tmp_path):
    run(tmp_path, epochs=1)
    assert not (tmp_path / "model_2.h5").exists()
    assert run(tmp_path, epochs=3) == whole.history
    assert_same_run(tmp_path, whole.folder)


# Several runs in one folder


def test_another_run_starts_anew_and_the_best_model_of_the_first_is_kept(copy):
    before = load_checkpoint(copy / "model_best.h5")
    other = run(copy, epochs=1, learning_rate=0.02)
    assert [row["epoch"] for row in other] == [1]
    assert learning_rate_of(copy / "model_best.h5") == 0.02
    kept = load_checkpoint(copy / f"model_best_{before.training['run']}.h5")
    assert kept.training == before.training
    assert same_weights(kept.decoder.model, before.decoder.model)


@pytest.mark.parametrize("content", [b"", b"no HDF5"])
def test_a_damaged_best_model_is_kept_too(content, tmp_path):
    (tmp_path / "model_best.h5").write_bytes(content)
    run(tmp_path, epochs=1)
    assert (tmp_path / "model_best_damaged.h5").read_bytes() == content
    assert learning_rate_of(tmp_path / "model_best.h5") == 0.01


def test_the_own_best_model_is_replaced(tmp_path):
    run(tmp_path, epochs=2)
    assert [path.name for path in tmp_path.glob("model_best*")] == ["model_best.h5"]


def test_a_run_is_not_resumed_with_what_another_left(whole, copy):
    run(copy, epochs=1, learning_rate=0.02)
    assert run(copy) == whole.history
    assert learning_rate_of(copy / "model_best.h5") == 0.01


def test_a_run_is_not_finished_once_another_has_written_over_its_files(whole, copy, monkeypatch):
    """The other was killed in its first epoch, after its log and before its resume file."""
    with killed_at(ResumeFile, "on_epoch_end", lambda *_, **__: True):
        run(copy, learning_rate=0.02)
    assert len(read_history(copy / "history.csv")) == 1
    assert run(copy) == whole.history
    assert learning_rate_of(copy / "model_best.h5") == 0.01


def test_a_run_that_was_killed_before_it_wrote_costs_the_other_nothing(whole, copy, monkeypatch):
    with killed_at(DrawOrder, "on_epoch_begin", lambda *_, **__: True):
        run(copy, learning_rate=0.02)
    assert_same_run(copy, whole.folder)
    monkeypatch.setattr(keras.Model, "fit", None)  # it is finished
    assert run(copy) == whole.history


def test_every_setting_makes_another_run(decoder):
    checkpoint = Checkpoint(decoder, WORDS, IDENTITY, training={"seed": 0})
    others = [
        replace(checkpoint, decoder=replace(decoder, spec=replace(decoder.spec, dropout=0.4))),
        replace(checkpoint, encoder_identity=replace(IDENTITY, weights="cafe")),
        replace(checkpoint, tokenizer=Tokenizer([*WORDS.words[:4], *WORDS.words[:3:-1]], 6)),
        replace(checkpoint, training={"seed": 1}),
    ]
    assert len({run_fingerprint(run) for run in (checkpoint, *others)}) == 5
    assert run_fingerprint(replace(checkpoint)) == run_fingerprint(checkpoint)


def test_a_workspace_under_another_name_is_the_same_run(decoder):
    runs = [Checkpoint(decoder, WORDS, IDENTITY, training={"seed": 0, "dataset": name}) for name in ("mine", "ours")]
    assert len({run_fingerprint(run) for run in runs}) == 1


def test_a_run_that_an_earlier_version_began_goes_on(decoder, tmp_path):
    run = Checkpoint(decoder, WORDS, IDENTITY, training={"seed": 0, "dataset": "mine"})
    assert find_run(run, tmp_path) == run_fingerprint(run)
    earlier = run_fingerprint(run, leave_out=())
    (tmp_path / f"{earlier}.npz").touch()
    assert find_run(run, tmp_path) == earlier != run_fingerprint(run)


# The log


def test_a_missing_log_is_named(tmp_path):
    with pytest.raises(CaptionError, match=r"history\.csv does not exist.*notebook 4.*remove .*resume"):
        read_history(tmp_path / "history.csv")


@pytest.mark.parametrize("text", ["loss\n1\n", "epoch,loss\none,2\n", "epoch,loss\n1,two\n", "epoch,loss\n1\n"])
def test_a_log_of_something_else_is_named(text, tmp_path):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(CaptionError, match=r"history\.csv is not a log of this project"):
        read_history(tmp_path / "history.csv")


def test_all_files_are_written_whole_or_not_at_all():
    """The tests above kill a run where files take their names, so every file must get its name in this way."""
    assert training_loop.replacing is checkpoint_module.replacing
