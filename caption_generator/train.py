"""Step 4: train a decoder with teacher forcing on features that are already extracted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras
import tensorflow as tf
from keras import ops

from caption_generator.batches import CaptionBatches
from caption_generator.captions import Dataset, captions_fingerprint
from caption_generator.checkpoint import Checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.compatibility import check_captions, check_features
from caption_generator.decoders import Decoder, build_decoder
from caption_generator.features import Features
from caption_generator.systems import System
from caption_generator.tokenizer import Tokenizer
from caption_generator.training_loop import History, fit
from caption_generator.word_vectors import WordVectors


@dataclass(frozen=True)
class TrainSettings:
    """How to train a decoder on features. A checkpoint stores them.

    Attributes:
        epochs: passes over the training captions.
        batch_size: captions in a batch.
        cosine: let the learning rate fall to 0 along a cosine over all epochs; else it stays constant.
        seed: of the weights, the order and dropout.
    """

    epochs: int = 20
    batch_size: int = 128
    cosine: bool = False
    seed: int = 0

    @classmethod
    def for_captions(cls, captions: int) -> "TrainSettings":
        """Settings that suit a number of training captions.

        Few captions need small batches, or there are too few steps to learn from: 32 for some 900 captions, 256 for
        Flickr8k's 30,000. Fewer still need more epochs: training takes at least 300 steps.
        """
        batch_size = 8
        while batch_size < 256 and batch_size**2 <= captions:  # the power of two above the square root
            batch_size *= 2
        steps = -(-captions // batch_size)
        return cls(epochs=max(20, -(-300 // max(1, steps))), batch_size=batch_size)


def train_decoder(
    data: Dataset,
    features: Features,
    tokenizer: Tokenizer,
    folder: str | Path,
    system: System,
    settings: TrainSettings | None = None,
    vectors: WordVectors | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    strategy: tf.distribute.Strategy | None = None,
) -> History:
    """Train a decoder; the same call again continues after the last full epoch.

    Writes `model_{epoch}.h5`, `model_best.h5` (by dev loss) and `history.csv` into `folder`.

    Args:
        data: training and dev captions.
        features: of all their images.
        tokenizer: fitted on the training captions.
        folder: the workspace's `models/`.
        system: what to train; its encoder made the features.
        settings: by default `TrainSettings.for_captions`.
        vectors: pretrained vectors of the tokenizer's words, for a system that needs them.
        callbacks: as those of `fit`.
        strategy: divides every batch among the devices of this machine, as `tf.distribute.MirroredStrategy()` does.
            The result is that of one device, apart from rounding and dropout.

    Returns:
        For every epoch its number, mean training loss and mean dev loss, in nats a word.

    Raises:
        CaptionError: there are no training captions, an image has no features, the features or the word vectors are
            not those of the system, or a batch cannot be divided among the devices.
    """
    check_captions(data.train, data.dev)
    check_features(system, features)
    captions = sum(map(len, data.train.values()))
    settings = settings or TrainSettings.for_captions(captions)
    keras.utils.set_random_seed(settings.seed)
    strategy = strategy or tf.distribute.get_strategy()
    shared = strategy.num_replicas_in_sync > 1
    if shared:
        check_batches(data, settings.batch_size, strategy.num_replicas_in_sync)
    kind = SharedCaptionBatches if shared else CaptionBatches
    batches = kind(data.train, features.matrix(list(data.train)), tokenizer, settings.batch_size, settings.seed)
    dev = kind(data.dev, features.matrix(list(data.dev)), tokenizer, settings.batch_size, seed=None)
    rate = system.learning_rate
    if settings.cosine:
        rate = keras.optimizers.schedules.CosineDecay(rate, settings.epochs * len(batches))
    with strategy.scope():  # the variables are copied to every device
        decoder = build_system(system, features.encoder.feature_size, tokenizer, vectors)
        loss = WordLoss(reduction="sum") if shared else WordLoss()
        decoder.model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, jit_compile=False)
    noted = asdict(settings)
    if not settings.cosine:  # more epochs continue the same run, unless the schedule hangs on their number
        del noted["epochs"]
    training = {
        "dataset": data.name,
        "system": system.name,
        "learning_rate": system.learning_rate,
        "word_vectors": vectors and f"{vectors.source} {vectors.fingerprint}",
        "images": len(data.train),
        "captions": captions,
        "fingerprint": captions_fingerprint(data.train),
        **noted,
    }
    checkpoint = Checkpoint(decoder, tokenizer, features.encoder, training=training)
    return fit(decoder.model, batches, dev, checkpoint, Path(folder), settings.epochs, callbacks=callbacks)


class SharedCaptionBatches(CaptionBatches):
    """Batches that several devices share. The weights of a batch add up to 1.

    A device knows only its own part of a batch. With the mean over that part as its loss, a word would count more where
    its part has fewer words. So each device sums up its weighted losses, and their sum is the mean over the batch.
    """

    def dataset(self) -> tf.data.Dataset:
        return (
            super().dataset().map(lambda inputs, targets, weights: (inputs, targets, weights / tf.reduce_sum(weights)))
        )


def check_batches(data: Dataset, batch_size: int, devices: int) -> None:
    """Refuse batches that Keras cannot divide among devices.

    Raises:
        CaptionError: the first batch of the training or of the dev captions cannot be divided evenly.
    """
    for captions in (data.train, data.dev):
        first = min(batch_size, sum(map(len, captions.values())))
        if first % devices:
            raise CaptionError(
                f"a batch of {first} captions cannot be divided among {devices} devices: choose another batch size, or "
                "use another number of devices."
            )


def build_system(
    system: System, feature_size: int, tokenizer: Tokenizer, vectors: WordVectors | None = None
) -> Decoder:
    """The untrained decoder of a system. Pretrained word vectors, if it needs them, fill its embedding.

    Raises:
        CaptionError: the system needs vectors and there are none, or the reverse, or they are of another vocabulary.
    """
    spec = replace(system.decoder, feature_size=feature_size, vocabulary_size=len(tokenizer))
    if system.pretrained and vectors is None:
        raise CaptionError(f"{system.name} needs pretrained word vectors: load them with `system.load_vectors`.")
    if vectors is None:
        return build_decoder(spec)
    if not system.pretrained:
        raise CaptionError(f"{system.name} learns its word vectors from the captions: give it none.")
    if len(vectors.matrix) != len(tokenizer):
        raise CaptionError(
            f"the word vectors are of {len(vectors.matrix)} words, and the vocabulary has {len(tokenizer)}: load them "
            "again for this vocabulary."
        )
    # The file decides how long the vectors are, whatever the table of systems says.
    decoder = build_decoder(replace(spec, embedding_size=vectors.matrix.shape[1]))
    decoder.model.get_layer("embedding").embeddings.assign(vectors.matrix)
    return decoder


class WordLoss(keras.losses.Loss):
    """Cross-entropy of the next word: the mean over the words of a batch. Padding has weight 0 and does not count.

    Label smoothing (Szegedy et al. 2016, "Rethinking the Inception Architecture") spreads that fraction of the target
    evenly over the vocabulary. Five people describe a photo in five ways, so no single word deserves probability 1.
    """

    def __init__(self, smoothing: float = 0.0, reduction: str = "mean_with_sample_weight"):
        super().__init__(reduction=reduction, name="word_loss")
        self.smoothing = smoothing

    def call(self, targets, logits):
        loss = ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
        if not self.smoothing:
            return loss
        uniform = ops.logsumexp(logits, axis=-1) - ops.mean(logits, axis=-1)
        return (1 - self.smoothing) * loss + self.smoothing * uniform
