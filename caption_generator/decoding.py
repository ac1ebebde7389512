"""Step 5a: from an image's features to words, by greedy or beam search.

The LSTM's state carries all it has read so far, so each step feeds one word and hands the state on: a caption of n
words costs n steps of the LSTM. Reading the padded prefix anew for every word, as is often seen, costs n times the
longest caption.
"""

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
            `Captioner` multiplies it by the photo's familiarity.
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

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, beam: int = 3, no_repeat: int = NO_REPEAT):
        """
        Args:
            decoder: any of `decoders.DECODERS`.
            tokenizer: the vocabulary that the decoder was trained with.
            beam: how many captions of an image are followed.
            no_repeat: no caption says a run of this many words twice; 0 lets it.
        """
        self.decoder, self.tokenizer, self.beam, self.no_repeat = decoder, tokenizer, beam, no_repeat
        self.max_length = tokenizer.max_length + 1  # and <end>
        only_padding, only_end = np.full((2, len(tokenizer)), MINUS_INFINITY, np.float32)
        only_padding[PAD] = only_end[END] = 0.0
        self._barred = bar_special_tokens(len(tokenizer))
        self._only_padding, self._only_end = only_padding, only_end
        signature = [tf.TensorSpec((None, *decoder.start.inputs[0].shape[1:]), tf.float32)]
        self._search = tf.function(self._search_graph, input_signature=signature)

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
        beam, vocabulary = self.beam, len(self.tokenizer)
        images = tf.shape(features)[0]
        image, *state = self.decoder.start(features)
        state = [tf.repeat(tensor, beam, axis=0) for tensor in state]
        # All beams of an image begin alike: only the first counts, or the first step would find each word `beam` times.
        totals = tf.tile([[0.0] + [MINUS_INFINITY] * (beam - 1)], (images, 1))
        tokens = tf.zeros((images, beam, 0), tf.int32)
        log_probabilities = tf.zeros((images, beam, 0))
        last = tf.fill((images, beam), START)
        finished = tf.zeros((images, beam), tf.bool)

        for place in tf.range(self.max_length):
            tf.autograph.experimental.set_loop_options(
                shape_invariants=[
                    (tokens, tf.TensorShape((None, beam, None))),
                    (log_probabilities, tf.TensorShape((None, beam, None))),
                ]
            )
            logits, *state = self.decoder.step([image, *state, tf.reshape(last, (-1,))])
            barred = tf.where(place == self.max_length - 1, self._only_end, self._barred)
            step = tf.reshape(tf.nn.log_softmax(logits) + barred, (images, beam, vocabulary))
            if self.no_repeat:
                step = tf.where(self._repetitions(tokens), MINUS_INFINITY, step)
            step = tf.where(finished[..., None], self._only_padding, step)
            totals, best = tf.math.top_k(tf.reshape(totals[..., None] + step, (images, beam * vocabulary)), beam)
            parent, last = best // vocabulary, best % vocabulary

            chosen = tf.gather(tf.reshape(step, (images, -1)), best, batch_dims=1)
            tokens = tf.concat([tf.gather(tokens, parent, batch_dims=1), last[..., None]], axis=-1)
            log_probabilities = tf.concat(
                [tf.gather(log_probabilities, parent, batch_dims=1), chosen[..., None]], axis=-1
            )
            finished = tf.gather(finished, parent, batch_dims=1) | (last == END)
            row = tf.reshape(parent + beam * tf.range(images)[:, None], (-1,))
            state = [tf.gather(tensor, row) for tensor in state]
            if tf.reduce_all(finished):
                break
        return tokens, log_probabilities

    def _repetitions(self, tokens: tf.Tensor) -> tf.Tensor:
        """Whether a word would end a run of `no_repeat` words which the caption has already: bool, shaped as logits."""
        n = self.no_repeat
        runs = tf.signal.frame(tokens, n, 1, axis=-1)  # (images, beam, runs, n); none as long as the caption is short
        last = tf.pad(tokens, ((0, 0), (0, 0), (n, 0)))[..., tf.shape(tokens)[2] + 1 :]  # n - 1 words
        same = tf.reduce_all(runs[..., :-1] == last[:, :, None], axis=-1)
        words = tf.one_hot(runs[..., -1], len(self.tokenizer), True, False, dtype=tf.bool)
        return tf.reduce_any(same[..., None] & words, axis=2)
