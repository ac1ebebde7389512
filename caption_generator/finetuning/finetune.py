"""Step 4, continued: train on the images themselves, and let the caption loss into the encoder.

The early layers of a CNN see edges and textures, which captions do not change, and cost most of its time. So their
activations are computed once, for every image and for some random views of it, and the layers after them are trained
together with the decoder, or only run where the decoder is to settle first.
"""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from pycocoevalcap.cider.cider import Cider

from caption_generator.captions import Descriptions
from caption_generator.checkpoint import Checkpoint, check_encoder
from caption_generator.encoders import Encoder
from caption_generator.finetuning.grids import GridBatches, Grids
from caption_generator.finetuning.late_layers import freeze, split_encoder
from caption_generator.search import BeamSearch
from caption_generator.train import History, WordLoss, check_captions, check_pooling, fit

LOGGED = ("epoch", "loss", "val_loss", "val_cider", "reward", "words")


class EncoderDecoder(keras.Model):
    """The late layers of the encoder and the decoder as one network: (grids, tokens) to logits."""

    def __init__(self, late: keras.Model, decoder: keras.Model):
        super().__init__()
        self.late, self.decoder = late, decoder
        self.built = True  # as both are; without it, a backup is not restored

    def call(self, inputs: tuple, training: bool = False) -> tf.Tensor:
        grids, tokens = inputs
        features = self.late(grids, training=False)  # batch norm keeps its statistics
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
        names, found = list(self.dev), {}
        for start in range(0, len(names), 64):
            features = self.late.predict_on_batch(self.grids[start : start + 64].astype(np.float32))
            found |= {name: [best.text] for name, (best,) in zip(names[start:], self.search(features), strict=False)}
        logs["val_cider"] = 100 * float(Cider().compute_score(self.dev, found)[0])


def train_captioner(
    checkpoint: Checkpoint,
    encoder: Encoder,
    images: str | Path,
    train: Descriptions,
    dev: Descriptions,
    folder: str | Path,
    epochs: int = 10,
    images_per_batch: int = 32,
    learning_rate: float = 2e-4,
    smoothing: float = 0.1,
    freeze_encoder: bool = False,
    views: int = 7,
    seed: int = 0,
) -> History:
    """Train the decoder on images, and the encoder with it; interrupted, the same call goes on after the last epoch.

    Writes what `train_decoder` writes, with the greedy dev CIDEr in the history, by which `model_best.h5` is chosen
    here. The checkpoints contain the encoder.

    Args:
        checkpoint: the decoder to train: a new one with a frozen encoder, one that has settled without.
        encoder: the one it belongs to; its weights are changed, unless it is frozen.
        images: the folder of images.
        folder: where checkpoints go. Stored views go into `grids/` beside it, which the stages share: 50 kB for each
            view of an image with MobileNetV2.
        learning_rate: of Adam; with a frozen encoder it stays as it is, else it falls to 0 along a cosine.
        smoothing: of the labels, see `WordLoss`.
        freeze_encoder: train the decoder alone.
        views: how many random views of each image are stored, see `Grids`.

    Raises:
        CaptionError: there are no captions, the encoder is another than the checkpoint's, the decoder cannot read its
            features, or an image is broken.
    """
    check_captions(train, dev)
    check_encoder(checkpoint.encoder_identity, encoder.identity)
    check_pooling(checkpoint.decoder.spec.name, encoder.pooling)
    keras.utils.set_random_seed(seed)
    folder = Path(folder)
    early, late = split_encoder(encoder)
    train_grids = Grids(early, images, list(train), folder.parent / "grids", views)
    dev_grids = Grids(early, images, list(dev), folder.parent / "grids")
    freeze(late, freeze_encoder)
    batches = GridBatches(train, train_grids, checkpoint.tokenizer, images_per_batch, seed)
    model = EncoderDecoder(late, checkpoint.decoder.model)
    # A decoder that settles is not to come to rest: the next stage goes on with it.
    cosine = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batches))
    optimizer = keras.optimizers.Adam(learning_rate if freeze_encoder else cosine, global_clipnorm=5.0)
    model.compile(optimizer=optimizer, loss=WordLoss(smoothing), jit_compile=False)
    stage = {
        "freeze_encoder": freeze_encoder,
        "epochs": epochs,
        "images_per_batch": images_per_batch,
        "learning_rate": learning_rate,
        "smoothing": smoothing,
        "views": views,
        "seed": seed,
    }
    return fit(
        model,
        batches,
        GridBatches(dev, dev_grids, checkpoint.tokenizer, images_per_batch, seed=None),
        add_stage(replace(checkpoint, encoder=encoder), stage),
        folder,
        epochs,
        best_by="val_cider",
        callbacks=[ScoreDev(late, checkpoint, dev, dev_grids)],
    )


def add_stage(checkpoint: Checkpoint, stage: dict) -> Checkpoint:
    """Note in the checkpoint how it is trained further, in place of what was logged of its last epoch."""
    training = {name: value for name, value in checkpoint.training.items() if name not in LOGGED}
    if not stage.get("freeze_encoder"):  # what it knew of photos was of the features from before
        checkpoint = replace(checkpoint, familiarity=None, detector=None)
    return replace(checkpoint, training=training | {"stages": [*training.get("stages", []), stage]})
