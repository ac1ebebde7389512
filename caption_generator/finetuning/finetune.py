"""Train on the images themselves, and let the caption loss into the encoder.

The early layers of a CNN see edges and textures, which captions do not change, and cost most of its time. So their
activations are computed once, for every image and for some random views of it, and the layers after them are trained
together with the decoder, or only run where the decoder is to settle first.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pycocoevalcap.cider.cider import Cider

from caption_generator.captions import Dataset, Descriptions
from caption_generator.checkpoint import Checkpoint
from caption_generator.compatibility import check_captions, check_pooling
from caption_generator.encoders import Encoder, check_encoder
from caption_generator.finetuning.forgetting import forgotten
from caption_generator.finetuning.grids import GridBatches, Grids
from caption_generator.finetuning.late_layers import freeze, split_encoder
from caption_generator.inference.folding import fold
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.search import BeamSearch
from caption_generator.train import WordLoss
from caption_generator.training_loop import History, fit

LOGGED = ("epoch", "loss", "val_loss", "val_cider", "reward", "words", "run")


class EncoderDecoder(keras.Model):
    """The late layers of the encoder and the decoder as one network: (grids, tokens) to logits."""

    def __init__(self, late: keras.Model, decoder: keras.Model, penalty: Callable | None = None):
        """
        Args:
            penalty: a second loss, of the early layers' grids and the features.
        """
        super().__init__()
        self.late, self.decoder, self.penalty = late, decoder, penalty
        self.built = True  # as both are; without it, a backup is not restored

    def call(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        grids, tokens = inputs
        features = self.late(grids, training=False)  # batch norm keeps its statistics
        if training and self.penalty:
            self.add_loss(self.penalty(grids, features))
        return self.decoder([features, tokens], training=training)


class ScoreDev(keras.callbacks.Callback):
    """Caption the dev images greedily after every epoch, and log their CIDEr as `val_cider`, in per cent.

    The loss stops falling long before the captions stop improving. Both sides are clean captions here, which needs no
    Java and comes out a little higher than the scores of `evaluate`.
    """

    def __init__(self, late: keras.Model, checkpoint: Checkpoint, dev: Descriptions, grids: Grids):
        super().__init__()
        self.late, self.dev, self.grids = late, dev, grids.views[0]
        self.search = BeamSearch(checkpoint.decoder, checkpoint.tokenizer, beam=1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        names = list(self.dev)
        found: dict[str, list[str]] = {}
        for start in range(0, len(names), 64):
            features = self.late.predict_on_batch(self.grids[start : start + 64].astype(np.float32))
            found |= {name: [best.text] for name, (best,) in zip(names[start:], self.search(features), strict=False)}
        logs["val_cider"] = 100 * float(Cider().compute_score(self.dev, found)[0])


@dataclass(frozen=True)
class FinetuneSettings:
    """How to train on images. A checkpoint stores them as one of its stages.

    Attributes:
        epochs: passes over the training images.
        images_per_batch: images in a batch, each with all its captions.
        learning_rate: of Adam. It falls to 0 along a cosine, except with a frozen encoder: the next stage continues
            from a decoder that still learns.
        smoothing: of the labels; see `WordLoss`.
        freeze_encoder: train the decoder alone.
        views: how many random views of each image are stored beside the whole image; see `Grids`.
        seed: of the order, views and dropout.
        keep: weight of the loss that keeps the answers of the checkpoint's classifier, if it has one and the encoder is
            not frozen; see `forgetting`.
    """

    epochs: int = 10
    images_per_batch: int = 32
    learning_rate: float = 2e-4
    smoothing: float = 0.1
    freeze_encoder: bool = False
    views: int = 7
    seed: int = 0
    keep: float = 0.5


def train_captioner(
    checkpoint: Checkpoint,
    encoder: Encoder,
    images: str | Path | Sequence[str | Path],
    data: Dataset,
    folder: str | Path,
    settings: FinetuneSettings | None = None,
    teacher: Encoder | None = None,
) -> History:
    """Train the decoder on images, and the encoder with it; the same call again continues after the last full epoch.

    Writes what `train_decoder` writes. The log also has the greedy dev CIDEr, which chooses `model_best.h5`. The
    checkpoints contain the encoder.

    Args:
        checkpoint: the decoder to train: a new one with a frozen encoder, or one that was trained so.
        encoder: the one that it belongs to. Its weights change, unless it is frozen.
        images: the folder of images, or several, of which each image is in one.
        data: training and dev captions.
        folder: where checkpoints go. Stored views go into `grids/` beside it, which the stages share: 50 kB for each
            view of an image with MobileNetV2.
        settings: how to train.
        teacher: the encoder whose classifier answers are kept: one with the same early layers, as ImageNet's weights
            make it. By default it is `encoder` as it is now.

    Raises:
        CaptionError: there are no captions, the encoder is not the checkpoint's, the decoder cannot read its features,
            or an image is broken.
    """
    settings = settings or FinetuneSettings()
    check_captions(data.train, data.dev)
    check_encoder(checkpoint.encoder_identity, encoder.identity)
    check_pooling(checkpoint.decoder.spec.name, encoder.pooling)
    keras.utils.set_random_seed(settings.seed)
    folder = Path(folder)
    early, late = split_encoder(encoder)
    train_grids = Grids(early, images, list(data.train), folder.parent / "grids", settings.views)
    dev_grids = Grids(early, images, list(data.dev), folder.parent / "grids")
    freeze(late, settings.freeze_encoder)
    batches = GridBatches(data.train, train_grids, checkpoint.tokenizer, settings.images_per_batch, settings.seed)
    dev_batches = GridBatches(data.dev, dev_grids, checkpoint.tokenizer, settings.images_per_batch, seed=None)
    rate = settings.learning_rate
    if not settings.freeze_encoder:
        rate = keras.optimizers.schedules.CosineDecay(rate, settings.epochs * len(batches))
    penalty = None
    if checkpoint.classifier and not settings.freeze_encoder:
        penalty = _keep_answers(checkpoint.classifier, teacher or encoder, settings.keep)
    model = EncoderDecoder(late, checkpoint.decoder.model, penalty)
    optimizer = keras.optimizers.Adam(rate, global_clipnorm=5.0)
    model.compile(optimizer=optimizer, loss=WordLoss(settings.smoothing), jit_compile=False)
    return fit(
        model,
        batches,
        dev_batches,
        add_stage(replace(checkpoint, encoder=encoder), settings),
        folder,
        settings.epochs,
        best_by="val_cider",
        callbacks=[ScoreDev(late, checkpoint, data.dev, dev_grids)],
    )


def _keep_answers(classifier: ImageNetClassifier, encoder: Encoder, weight: float) -> Callable:
    """A function of grids and features that penalises other answers than those of `encoder` with its weights as now."""
    before = fold(encoder.backbone, after=encoder.row.early_layers_end)
    return lambda grids, features: weight * forgotten(classifier, before(grids), features)


def add_stage(checkpoint: Checkpoint, settings: Any) -> Checkpoint:
    """Note in the checkpoint how it is trained further, in place of what was logged of its last epoch.

    Args:
        settings: a dataclass with `freeze_encoder`.
    """
    training = {name: value for name, value in checkpoint.training.items() if name not in LOGGED}
    if not settings.freeze_encoder:  # learned on features that training now changes
        checkpoint = replace(checkpoint, familiarity=None, detector=None)
    return replace(checkpoint, training=training | {"stages": [*training.get("stages", []), asdict(settings)]})
