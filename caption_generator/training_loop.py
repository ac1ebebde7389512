"""The training loop: `model.fit` with checkpoints, a log, a progress bar, and a resume after the last full epoch."""

import csv
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from caption_generator.checkpoint import Checkpoint, read_about, save_checkpoint
from caption_generator.common.console import progress
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import digest, only_run, replacing

History = list[dict[str, float]]


class Batches(Protocol):
    """What `fit` trains on.

    Attributes:
        epoch: the epoch to draw the order for; `fit` sets it.
        seed: of the order; None keeps the order.
    """

    epoch: int
    seed: int | None

    def dataset(self) -> tf.data.Dataset:
        """The batches of this epoch."""
        ...


def fit(
    model: keras.Model,
    train: Batches,
    dev: Batches | None,
    checkpoint: Checkpoint,
    folder: Path,
    epochs: int,
    best_by: str = "val_loss",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train, and write `model_{epoch}.h5`, `model_best.h5` and `history.csv` into `folder`.

    The same call again continues after the last full epoch, and leaves a finished run as it is, but writes its last
    checkpoint again if that is missing. More epochs continue it. A `model_best.h5` of another run is kept under another
    name.

    Args:
        model: compiled; everything that is trained.
        checkpoint: what to save of the model.
        best_by: the logged number that chooses `model_best.h5`: the lowest of a loss, else the highest.
        callbacks: come first, and may add to the log.

    Returns:
        The log of every epoch, numbered from 1.

    Raises:
        CaptionError: another run is writing into the folder, or the disk is full.
    """
    with only_run(folder):
        run = find_run(checkpoint, folder / "resume")
        checkpoint = replace(checkpoint, training=dict(checkpoint.training) | {"run": run})
        resume = ResumeFile(folder / "resume" / f"{run}.npz")
        done = resume.restore(model)
        log = folder / "history.csv"
        history = [row for row in read_history(log) if row["epoch"] <= done] if done else []
        if done < epochs:
            model.fit(
                train.dataset(),
                validation_data=None if dev is None else dev.dataset(),
                initial_epoch=done,
                epochs=epochs,
                shuffle=False,  # the batches draw their own order
                verbose=0,
                callbacks=[
                    *callbacks,
                    DrawOrder(train),
                    # The files of another run are written over from here on, so it must not be taken for finished.
                    keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: resume.remove_others()),
                    SaveCheckpoints(checkpoint, folder, best_by, history),
                    resume,  # after the files of the epoch, so that a kill between them repeats the epoch
                    ShowProgress(done),
                ],
            )
        last = folder / f"model_{epochs}.h5"
        if done == epochs and history and not last.is_file():  # its variables are in the resume file
            save_checkpoint(replace(checkpoint, training=dict(checkpoint.training) | history[-1]), last)
        return [row for row in read_history(log) if row["epoch"] <= epochs]


def find_run(checkpoint: Checkpoint, folder: Path) -> str:
    """The fingerprint of a run. A run that an earlier version began, which counted the dataset's name, keeps its own.

    Args:
        folder: of the resume files.
    """
    now, before = (run_fingerprint(checkpoint, leave_out) for leave_out in (("dataset",), ()))
    return before if (folder / f"{before}.npz").is_file() and not (folder / f"{now}.npz").is_file() else now


def run_fingerprint(checkpoint: Checkpoint, leave_out: Collection[str] = ("dataset",)) -> str:
    """A name that only a run of the same settings, data, vocabulary and encoder shares.

    Args:
        leave_out: of `checkpoint.training`. A workspace whose folder got another name is still the same.
    """
    settings = [
        asdict(checkpoint.decoder.spec),
        checkpoint.encoder_identity.to_dict(),
        checkpoint.tokenizer.fingerprint,
        {name: value for name, value in checkpoint.training.items() if name not in leave_out},
    ]
    return digest(json.dumps(settings, sort_keys=True))


def read_history(path: str | Path) -> History:
    """The numbers that `fit` logged, an epoch a row, numbered from 1.

    Raises:
        CaptionError: there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise CaptionError(
            f"{path} does not exist: train a model with notebook 4 first; if you have, remove {path.parent / 'resume'} "
            "and train again."
        )
    try:
        with open(path, newline="") as file:
            return [
                {name: float(value) for name, value in row.items()} | {"epoch": int(row["epoch"])}
                for row in csv.DictReader(file)
            ]
    except (KeyError, TypeError, ValueError, OSError, csv.Error) as error:
        raise CaptionError(
            f"{path} is not a log of this project ({first_line(error)}): remove it and {path.parent / 'resume'}, and "
            "train again."
        ) from error


class ResumeFile(keras.callbacks.Callback):
    """After every epoch, write the epoch's number and all variables of the model and its optimizer into one file.

    `keras.callbacks.BackupAndRestore` writes the number and the weights into two files. A kill between them leaves an
    old number beside new weights.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path

    def restore(self, model: keras.Model) -> int:
        """Give `model` the variables of the last full epoch; the number of epochs that are done.

        Raises:
            CaptionError: the file is damaged.
        """
        if not self.path.is_file():
            return 0
        try:
            with np.load(self.path, allow_pickle=False) as saved:
                for number, variable in enumerate(_variables(model)):
                    variable.assign(saved[str(number)])
                return int(saved["epochs"])
        except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
            raise CaptionError(f"{self.path} is damaged ({error}): remove it, and training starts again.") from error

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        arrays = {str(number): variable.numpy() for number, variable in enumerate(_variables(self.model))}
        with replacing(self.path) as temporary:
            np.savez(temporary, epochs=epoch + 1, **arrays)

    def remove_others(self) -> None:
        """Remove the resume files of other runs in this folder, which can no longer be resumed."""
        for other in self.path.parent.glob("*.npz"):
            if other != self.path:
                other.unlink()


def _variables(model: keras.Model) -> list[keras.Variable]:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*model.weights, *model.optimizer.variables]


class DrawOrder(keras.callbacks.Callback):
    """Tell the batches and the dropout layers which epoch begins.

    The state of dropout is not in the resume file, so it starts anew from the seed and the number of every epoch.
    """

    def __init__(self, batches: Batches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.batches.epoch = epoch
        for number, layer in enumerate(self.model._flatten_layers()):
            if noise := getattr(layer, "seed_generator", None):
                entropy = np.random.SeedSequence((self.batches.seed or 0, epoch, number))
                noise.state.assign(entropy.generate_state(2))


class SaveCheckpoints(keras.callbacks.Callback):
    """After every epoch, write `model_{epoch}.h5`, `history.csv` and, if it is the best so far, `model_best.h5`."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, best_by: str, history: History):
        super().__init__()
        self.checkpoint, self.folder, self.best_by, self.history = checkpoint, folder, best_by, history

    def _merit(self, row: Mapping[str, float]) -> float:
        merit = -row[self.best_by] if self.best_by.endswith("loss") else row[self.best_by]
        return -math.inf if math.isnan(merit) else merit

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        checkpoint = replace(self.checkpoint, training=dict(self.checkpoint.training) | row)
        save_checkpoint(checkpoint, self.folder / f"model_{epoch + 1}.h5")
        if not self.history or self._merit(row) > max(map(self._merit, self.history)):
            best = self.folder / "model_best.h5"
            self._keep_other(best)
            save_checkpoint(checkpoint, best)
        self.history.append(row)
        with replacing(self.folder / "history.csv") as temporary, open(temporary, "w", newline="") as file:
            table = csv.DictWriter(file, self.history[0], lineterminator="\n")
            table.writeheader()
            table.writerows(self.history)

    def _keep_other(self, best: Path) -> None:
        """Rename the best model of another run, which may have trained for hours."""
        if best.is_file():
            try:
                other = read_about(best)["training"].get("run", "earlier")
            except CaptionError:
                other = "damaged"
            if other != self.checkpoint.training["run"]:
                best.replace(best.with_stem(f"model_best_{other}"))


class ShowProgress(keras.callbacks.Callback):
    """One bar for the whole run, batch by batch; `tqdm.keras.TqdmCallback` starts from 0 after a resume."""

    def __init__(self, done: int):
        super().__init__()
        self.done = done

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        steps, epochs = self.params["steps"], self.params["epochs"]
        self.bar = progress(total=epochs * steps, initial=self.done * steps, unit="batch", ncols=110)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.bar.set_description(f"Epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.bar.set_postfix({name: f"{value:.2f}" for name, value in (logs or {}).items()})

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.bar.close()
