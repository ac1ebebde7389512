"""The training loop: `model.fit` with checkpoints, a log, a progress bar, and a resume after the last full epoch."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from caption_generator.checkpoint import Checkpoint, save_checkpoint
from caption_generator.common.console import progress
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest

History = list[dict[str, float]]


def fit(
    model: keras.Model,
    train: Any,
    dev: Any,
    checkpoint: Checkpoint,
    folder: Path,
    epochs: int,
    best_by: str = "val_loss",
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """`model.fit` with checkpoints, resumption, a log and a bar.

    Args:
        model: compiled; the whole of what is trained.
        train: has an `epoch` to draw its order from, and a `dataset()`.
        dev: likewise, or None.
        checkpoint: what to save of the model.
        folder: where to save it.
        best_by: the logged number that chooses `model_best.h5`: the least of a loss, else the most.
        callbacks: come first, and may add to what is logged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "history.csv"
    backup = folder / "resume" / _run_name(checkpoint)
    resuming = (backup / "training_metadata.json").is_file()
    if not resuming:  # from here on the folder is this run's, and no other finds its own history in it
        shutil.rmtree(folder / "resume", ignore_errors=True)
    model.fit(
        train.dataset(),
        validation_data=None if dev is None else dev.dataset(),
        epochs=epochs,
        shuffle=False,  # the batches draw their own order
        verbose=0,
        callbacks=[
            *callbacks,
            DrawOrder(train),
            SaveCheckpoints(checkpoint, folder, best_by, read_history(log) if resuming else []),
            keras.callbacks.CSVLogger(log, append=resuming),
            keras.callbacks.BackupAndRestore(backup, double_checkpoint=True),
            ShowProgress(),
        ],
    )
    return read_history(log)


def _run_name(checkpoint: Checkpoint) -> str:
    """A name that only a run of the same settings, vocabulary and encoder shares: no other may resume its backup."""
    settings = [
        asdict(checkpoint.decoder.spec),
        checkpoint.encoder_identity.to_dict(),
        checkpoint.tokenizer.fingerprint,
        dict(checkpoint.training),
    ]
    return digest(json.dumps(settings, sort_keys=True))


def read_history(path: str | Path) -> History:
    """The losses that `fit` logged, an epoch a row, numbered from 1."""
    path = Path(path)
    if not path.is_file():
        raise CaptionError(f"{path} does not exist: train a model with notebook 4 first.")
    with open(path, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    # A run killed between the log and the backup repeats an epoch: its last row counts.
    latest = {int(row["epoch"]): row | {"epoch": int(row["epoch"]) + 1} for row in rows}
    return [latest[epoch] for epoch in sorted(latest)]


class DrawOrder(keras.callbacks.Callback):
    """Tell the batches and dropout which epoch begins: after a resume, the first is not 0.

    Keras' backup does not hold the state of dropout, so it, too, starts anew from the seed and the epoch.
    """

    def __init__(self, batches: Any):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.batches.epoch = epoch
        for number, layer in enumerate(self.model._flatten_layers()):
            if noise := getattr(layer, "seed_generator", None):
                entropy = np.random.SeedSequence((self.batches.seed or 0, epoch, number))
                noise.state.assign(entropy.generate_state(2))


class ShowProgress(keras.callbacks.Callback):
    """One bar for the whole run, batch by batch."""

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        self.bar = progress(total=self.params["epochs"] * self.params["steps"], unit="batch", ncols=110)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.bar.n = epoch * self.params["steps"]
        self.bar.set_description(f"Epoch {epoch + 1}/{self.params['epochs']}")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self.bar.set_postfix({name: f"{value:.2f}" for name, value in (logs or {}).items()})

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        self.bar.close()


class SaveCheckpoints(keras.callbacks.Callback):
    """Write `model_{epoch}.h5` after every epoch, and `model_best.h5` whenever an epoch is the best yet."""

    def __init__(self, checkpoint: Checkpoint, folder: Path, best_by: str, before: History):
        super().__init__()
        self.checkpoint, self.folder, self.best_by = checkpoint, folder, best_by
        self.best = max(map(self._merit, before), default=float("-inf"))

    def _merit(self, logs: Mapping[str, float]) -> float:
        return -logs[self.best_by] if self.best_by.endswith("loss") else logs[self.best_by]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float]) -> None:
        losses = {name: float(value) for name, value in logs.items()}
        training = dict(self.checkpoint.training) | {"epoch": epoch + 1} | losses
        checkpoint = replace(self.checkpoint, training=training)
        save_checkpoint(checkpoint, self.folder / f"model_{epoch + 1}.h5")
        if self._merit(losses) > self.best:
            self.best = self._merit(losses)
            save_checkpoint(checkpoint, self.folder / "model_best.h5")
