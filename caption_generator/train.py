"""Step 4: teach the decoder with teacher forcing, in a way that a kill costs one epoch and not the run."""

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from caption_generator.batches import CaptionBatches
from caption_generator.captions import Descriptions, fingerprint
from caption_generator.checkpoint import Checkpoint, save_checkpoint
from caption_generator.decoders import Decoder, build_decoder, decoder_row
from caption_generator.encoders import BUNDLED
from caption_generator.features import Features
from caption_generator.files import CaptionError, digest
from caption_generator.progress import progress
from caption_generator.systems import System
from caption_generator.tokenizer import Tokenizer, fit_tokenizer
from caption_generator.word_vectors import WordVectors

History = list[dict[str, float]]


def train_decoder(
    train: Descriptions,
    dev: Descriptions,
    features: Features,
    tokenizer: Tokenizer,
    folder: str | Path,
    system: System,
    vectors: WordVectors | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    seed: int = 0,
    dataset: str = "",
    cosine: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> History:
    """Train a decoder on frozen features; interrupted, the same call goes on after the last finished epoch.

    Writes `model_{epoch}.h5`, `model_best.h5` (by dev loss) and `history.csv` into `folder`.

    Args:
        train: image name to clean captions.
        dev: likewise.
        features: of all these images.
        tokenizer: fitted on `train`.
        folder: the workspace's `models/`.
        system: what to train; its encoder is the one that made the features.
        vectors: of the tokenizer's words, for a system whose words begin with them.
        batch_size: captions in a batch.
        dataset: the dataset's name, noted in the checkpoint.
        cosine: let the learning rate fall to 0 along a cosine, over all epochs.
        callbacks: as those of `fit`.

    Returns:
        For every epoch its number, mean training loss and mean dev loss, in nats a word.

    Raises:
        CaptionError: there are no training captions, an image has no features, or the features or the word vectors are
            not those of the system.
    """
    check_captions(train, dev)
    check_features(system, features)
    keras.utils.set_random_seed(seed)
    network = build_system(system, features.encoder.feature_size, tokenizer, vectors)
    batches = CaptionBatches(train, features.matrix(list(train)), tokenizer, batch_size, seed)
    rate = system.learning_rate
    if cosine:
        rate = keras.optimizers.schedules.CosineDecay(rate, epochs * len(batches))
    network.model.compile(optimizer=keras.optimizers.Adam(rate), loss=WordLoss(), jit_compile=False)
    checkpoint = Checkpoint(
        network,
        tokenizer,
        features.encoder,
        training={
            "dataset": dataset,
            "system": system.name,
            "word_vectors": vectors and f"{vectors.source} {vectors.fingerprint}",
            "images": len(train),
            "captions": sum(map(len, train.values())),
            "fingerprint": fingerprint(train),
            "batch_size": batch_size,
            "learning_rate": system.learning_rate,
            "cosine_epochs": epochs if cosine else None,
            "seed": seed,
        },
    )
    return fit(
        network.model,
        batches,
        CaptionBatches(dev, features.matrix(list(dev)), tokenizer, batch_size, seed=None),
        checkpoint,
        Path(folder),
        epochs,
        callbacks=callbacks,
    )


def build_system(
    system: System, feature_size: int, tokenizer: Tokenizer, vectors: WordVectors | None = None
) -> Decoder:
    """The untrained decoder of a system, its words' embedding filled with `vectors` where it begins with such.

    Raises:
        CaptionError: there are no vectors and the system needs them, or the reverse, or they are of other words.
    """
    if system.pretrained and vectors is None:
        raise CaptionError(f"{system.name} begins with pretrained word vectors: load them with `load_word_vectors`.")
    if vectors is not None and not system.pretrained:
        raise CaptionError(f"{system.name} learns its words from the captions: give it no word vectors.")
    if vectors is None:
        return build_decoder(system.decoder_spec(feature_size, len(tokenizer)))
    if len(vectors.matrix) != len(tokenizer):
        raise CaptionError(
            f"the word vectors are of {len(vectors.matrix)} words, and the vocabulary has {len(tokenizer)}: load them "
            "again for this vocabulary."
        )
    # As long as the file has them, whatever the row says.
    system = replace(system, embedding_size=vectors.matrix.shape[1])
    decoder = build_decoder(system.decoder_spec(feature_size, len(tokenizer)))
    decoder.model.get_layer("embedding").embeddings.assign(vectors.matrix)
    return decoder


def check_tokenizer(system: System, train: Descriptions, tokenizer: Tokenizer) -> None:
    """Refuse the vocabulary of another system, or of other captions.

    Raises:
        CaptionError: it is not that of the training captions with the words that the system keeps.
    """
    if fit_tokenizer(train, system.min_count).fingerprint != tokenizer.fingerprint:
        raise CaptionError(
            f"tokenizer.p does not hold the words that these captions have {system.min_count} times or more, which "
            f"{system.name} reads: make it again with notebook 3."
        )


def check_captions(train: Descriptions, dev: Descriptions) -> None:
    """Refuse to train without captions.

    Raises:
        CaptionError: there are none.
    """
    if not train or not dev:
        raise CaptionError(
            "there are no training or no dev captions: check the split files in Flickr8k_text/, or, without these, add "
            "photos until there are 8."
        )


def check_features(system: System, features: Features) -> None:
    """Refuse features of another encoder than the system's.

    Raises:
        CaptionError: they are, or do not say what made them.
    """
    if features.encoder is None:
        raise CaptionError(
            "features.p does not say which encoder made it: extract the features again with notebook 2, or take those "
            "of an older project over with python -m caption_generator.legacy."
        )
    if system.encoder not in (features.encoder.name, BUNDLED):
        raise CaptionError(
            f"{system.name} reads features of the encoder {system.encoder}, and features.p comes from "
            f"{features.encoder}: extract them again with notebook 2."
        )
    check_pooling(system.decoder, features.encoder.pooling)


def check_pooling(decoder: str, pooling: str) -> None:
    """Refuse features that a decoder cannot read.

    Raises:
        CaptionError: it reads one vector an image and the features are grids, or the reverse.
    """
    wanted = decoder_row(decoder).pooling
    if wanted != pooling:
        raise CaptionError(
            f"the decoder {decoder} reads features with pooling {wanted!r}, and these have {pooling!r}: choose another "
            f"decoder, or build the encoder with pooling={wanted!r}."
        )


class WordLoss(keras.losses.Loss):
    """Cross-entropy of the next word: over a batch, the mean of its words. Padding has weight 0 and does not count.

    With smoothing (Szegedy et al. 2016) that share of the answer is spread evenly over the vocabulary, which keeps the
    model from being surer than its five differing references allow.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__(reduction="mean_with_sample_weight", name="word_loss")
        self.smoothing = smoothing

    def call(self, targets, logits):
        loss = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        if not self.smoothing:
            return loss
        even = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        return (1 - self.smoothing) * loss + self.smoothing * even


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
