"""Step 4: teach the decoder with teacher forcing, in a way that a kill costs one epoch and not the run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
from keras import ops

from caption_generator.batches import CaptionBatches
from caption_generator.captions import Descriptions, fingerprint
from caption_generator.checkpoint import Checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import Decoder, build_decoder
from caption_generator.features import Features
from caption_generator.systems import System
from caption_generator.tokenizer import Tokenizer
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
