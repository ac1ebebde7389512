"""Step 4a: captions and features to training batches, one at a time.

The tutorials make a row of every prefix of every caption, and a one-hot vector as long as the vocabulary of every next
word. Here a caption is one row: teacher forcing shows the decoder all its words at once, and each target is one number.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from caption_generator.tokenizer import PAD, Tokenizer


def pad(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stack int32 rows of differing lengths, filled up with `<pad>` on the right: shape (rows, longest)."""
    return keras.utils.pad_sequences(rows, padding="post", value=PAD)


def teacher_forcing(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Split padded captions into what the decoder reads, what it must answer, and which answers count.

    Args:
        tokens: int32 of shape (..., length), `<start>` first, `<end>` and padding last.

    Returns:
        inputs, all but the last token; targets, all but the first; weights, float32, 0 at padding. Each has the shape
        (..., length - 1).
    """
    inputs, targets = tokens[..., :-1], tokens[..., 1:]
    inputs = np.where(targets == PAD, PAD, inputs)  # nothing is to be read after <end>
    return inputs, targets, (targets != PAD).astype(np.float32)


class CaptionBatches:
    """Batches of captions of similar length with their images' feature vectors.

    Sorting by length keeps padding, and so wasted work, to a few per cent. The order is drawn anew for each epoch from
    `seed` and the epoch's number alone, so that a resumed run sees what an uninterrupted one would have seen.

    Iterating yields `((features, inputs), targets, weights)`: float32 (batch, ..., feature_size), then as
    `teacher_forcing`.
    """

    def __init__(
        self,
        descriptions: Mapping[str, Sequence[str]],
        features: np.ndarray,
        tokenizer: Tokenizer,
        batch_size: int = 128,
        seed: int | None = 0,
    ):
        """
        Args:
            descriptions: image name to clean captions.
            features: float32 of shape (images, feature_size), or (images, height, width, feature_size), in the order
                of `descriptions`.
            tokenizer: fitted on the training captions.
            batch_size: captions in a batch.
            seed: None keeps the batches in order of length, as for the dev set.
        """
        self.features = features
        self.tokens = [tokenizer.encode(caption) for group in descriptions.values() for caption in group]
        self.images = np.repeat(np.arange(len(descriptions)), [len(group) for group in descriptions.values()])
        self.lengths = np.array([len(tokens) for tokens in self.tokens])
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.batch_size)

    def __iter__(self) -> Iterator:
        for rows in self._order():
            inputs, targets, weights = teacher_forcing(pad([self.tokens[row] for row in rows]))
            yield (self.features[self.images[rows]], inputs), targets, weights

    def _order(self) -> list[np.ndarray]:
        """The captions of each batch of this epoch, by number."""
        random = np.random.default_rng((self.seed or 0, self.epoch))
        shuffled = random.permutation(len(self.tokens))
        by_length = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        batches = [by_length[i : i + self.batch_size] for i in range(0, len(by_length), self.batch_size)]
        return batches if self.seed is None else [batches[i] for i in random.permutation(len(batches))]

    def dataset(self) -> tf.data.Dataset:
        """The batches as a stream for `fit`."""
        captions = tf.TensorSpec((None, None), tf.int32)
        features = tf.TensorSpec((None, *self.features.shape[1:]), tf.float32)
        weights = tf.TensorSpec((None, None), tf.float32)
        return stream(self, ((features, captions), captions, weights))


class SizedBatches(Protocol):
    """Batches whose number is known."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator: ...


def stream(batches: SizedBatches, signature: Any) -> tf.data.Dataset:
    """What iterating `batches` gives, the next batch made while one is trained on.

    Args:
        signature: `tf.TensorSpec`s, nested as a batch is.
    """
    made = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    # Nothing is left to tune, and at the end of an epoch the tuner would sleep on: until second 5, 10, 20, 41, 82 ...
    options = tf.data.Options()
    options.autotune.enabled = False
    return made.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(2).with_options(options)
