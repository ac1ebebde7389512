"""Step 5a: from an image's features to words, by greedy or beam search.

The LSTM's state carries all it has read so far, so each step feeds one word and hands the state on: a caption of n
words costs n steps of the LSTM. Reading the padded prefix anew for every word, as is often seen, costs n times the
longest caption.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from caption_generator.decoders import Decoder
from caption_generator.tokenizer import END, PAD, START, UNKNOWN, Tokenizer

MINUS_INFINITY = np.float32(-1e9)
NO_REPEAT = 3  # the best of 0, 2 and 3 on Flickr8k's dev images


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    Attributes:
        text: its words.
        score: how sure the model is: the geometric mean of the probabilities of its words and of its end, 0 to 1;
            `Captioner` multiplies it by how well the words fit the photo, and by the photo's familiarity.
        words: each word, and last "<end>", with its probability given the image and the words before it.
    """

    text: str
    score: float
    words: tuple[tuple[str, float], ...]


def bar_special_tokens(vocabulary_size: int) -> np.ndarray:
    """What to add to logits so that no caption says `<pad>`, `<start>` or `<unk>`: float32 (vocabulary_size,)."""
    barred = np.zeros(vocabulary_size, np.float32)
    barred[[PAD, START, UNKNOWN]] = MINUS_INFINITY
    return barred


class BeamSearch:
    """Searches captions for whole batches of images; with `beam=1`, greedily.

    All beams of all images advance together, in one tensor, and the loop over words is one compiled graph. A finished
    caption keeps its place in the beam while its log-probability is among the best; the order of the result is by the
    mean log-probability of a word, since a sum would favour short captions.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        beam: int = 3,
        no_repeat: int = NO_REPEAT,
        step: Callable | None = None,
    ):
        """
        Args:
            decoder: any of `decoders.DECODERS`.
            tokenizer: the vocabulary that the decoder was trained with.
            beam: how many captions of an image are followed.
            no_repeat: no caption says a run of this many words twice; 0 lets it.
            step: in place of the decoder's own, which keeps up with training: its `frozen_step`.
        """
        self.step = step or decoder.step
        self.decoder, self.tokenizer, self.beam, self.no_repeat = decoder, tokenizer, beam, no_repeat
        self.max_length = tokenizer.max_length + 1  # and <end>
        only_padding, only_end = np.full((2, len(tokenizer)), MINUS_INFINITY, np.float32)
        only_padding[PAD] = only_end[END] = 0.0
        self._barred = bar_special_tokens(len(tokenizer))
        self._only_padding, self._only_end = only_padding, only_end
        signature = [tf.TensorSpec((None, *decoder.start.inputs[0].shape[1:]), tf.float32)]
        # It is a graph as it is written: translating Python to graphs would take longer than building this one.
        self._search = tf.function(self._search_graph, input_signature=signature, autograph=False)

    def __call__(self, features: np.ndarray) -> list[list[Caption]]:
        """The captions of each image, the best first.

        Args:
            features: float32 of shape (images, feature_size), or (images, height, width, feature_size) where the
                decoder reads a grid.

        Returns:
            `beam` captions for each image.
        """
        tokens, log_probabilities = (result.numpy() for result in self._search(features))
        return [
            sorted(map(self._caption, *image), key=lambda caption: -caption.score)
            for image in zip(tokens, log_probabilities, strict=True)
        ]

    def _caption(self, tokens: np.ndarray, log_probabilities: np.ndarray) -> Caption:
        length = max(1, np.count_nonzero(tokens != PAD))
        words = [self.tokenizer.words[token] for token in tokens[:length]]
        probabilities = np.exp(log_probabilities[:length]).tolist()
        score = float(np.exp(log_probabilities[:length].mean()))
        return Caption(self.tokenizer.decode(tokens), score, tuple(zip(words, probabilities, strict=True)))

    def _search_graph(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        beam, vocabulary, places = self.beam, len(self.tokenizer), tf.range(self.max_length)
        images = tf.shape(features)[0]
        rows = images * beam  # the beams of an image stand together
        image, *state = self.decoder.start(features)
        state = [tf.repeat(tensor, beam, axis=0) for tensor in state]
        tokens, log_probabilities = tf.zeros((rows, self.max_length), tf.int32), tf.zeros((rows, self.max_length))
        # All beams of an image begin alike: only the first counts, or the first step would find each word `beam` times.
        totals = tf.tile([[0.0] + [MINUS_INFINITY] * (beam - 1)], (images, 1))
        first_row = beam * tf.range(images)[:, None]  # of each image

        def unfinished(place, last, *_):
            return ~tf.reduce_all(is_finished(last))

        def add_word(place, last, tokens, log_probabilities, totals, state):
            logits, *state = self.step([image, *state, last])
            step = tf.nn.log_softmax(logits) + tf.where(place == self.max_length - 1, self._only_end, self._barred)
            if self.no_repeat:
                step = self._without_repetitions(step, tokens, place)
            step = tf.where(is_finished(last)[:, None], self._only_padding, step)

            candidates = totals[..., None] + tf.reshape(step, (-1, beam, vocabulary))
            totals, best = tf.math.top_k(tf.reshape(candidates, (-1, beam * vocabulary)), beam)
            parent = tf.reshape(best // vocabulary + first_row, (-1,))
            last = tf.reshape(best % vocabulary, (-1,))
            chosen = tf.gather(tf.reshape(step, (-1,)), parent * vocabulary + last)
            tokens = tf.where(places == place, last[:, None], tf.gather(tokens, parent))
            log_probabilities = tf.where(places == place, chosen[:, None], tf.gather(log_probabilities, parent))
            state = [tf.gather(tensor, parent) for tensor in state]
            return place + 1, last, tokens, log_probabilities, totals, state

        begin = (0, tf.fill((rows,), START), tokens, log_probabilities, totals, state)
        _, _, *found, _, _ = tf.while_loop(unfinished, add_word, begin, maximum_iterations=self.max_length)
        return tuple(tf.reshape(tensor, (images, beam, self.max_length)) for tensor in found)

    def _without_repetitions(self, step: tf.Tensor, tokens: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        """`step` with those words barred that would end a run of `no_repeat` words which the caption has already."""
        n = self.no_repeat
        ends = np.arange(n - 1, self.max_length)  # of every run of n places
        runs = tf.gather(tokens, ends[:, None] + np.arange(1 - n, 1), axis=1)
        last = tf.gather(tf.pad(tokens, ((0, 0), (n - 1, 0))), place + np.arange(n - 1), axis=1)  # n - 1 words
        same = tf.reduce_all(runs[..., :-1] == last[:, None], axis=-1) & (ends < place)
        rows = tf.range(tf.shape(tokens)[0])
        words = (rows * len(self.tokenizer))[:, None] + runs[..., -1]
        barred = tf.where(same, MINUS_INFINITY, tf.float32.max)
        flat = tf.tensor_scatter_nd_min(tf.reshape(step, (-1,)), words[..., None], barred)
        return tf.reshape(flat, (-1, len(self.tokenizer)))


def is_finished(last: tf.Tensor) -> tf.Tensor:
    """Whether captions have come to their end, by their last tokens."""
    return (last == END) | (last == PAD)
