"""Step 5: from an image's features to words, by greedy or beam search.

The state of the LSTM holds all that it has read, so each step feeds one word and hands the state on. Many programs read
the whole sentence again for every word; that costs n times as much for a caption of n words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from caption_generator.common.console import progress
from caption_generator.tokenizer import END, PAD, START, UNKNOWN, Tokenizer

BEAM = 5  # on the dev images, captions of 5 score a little better than those of 3
NO_REPEAT = 3  # the best of 0, 2 and 3 on Flickr8k's dev images


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    Attributes:
        text: its words.
        words: each word, and last "<end>", with its probability given the image and the words before it. The name of
            a thing that the search had to name has the probability of the thing; see `inference.imagenet_classifier`.
        log_prob: the mean log-probability of its words and its end, in nats.
        fit: how well its words fit the photo, in nats; see `inference.word_ranking`. 0 if that is not known.
        familiarity: how much the photo resembles the training photos, 0 to 1; see `inference.out_of_distribution`.
        attention: the attention weights of each word and of the end, float32 of shape (words + 1, positions), or None.
    """

    text: str
    words: tuple[tuple[str, float], ...]
    log_prob: float
    fit: float = 0.0
    familiarity: float = 1.0
    attention: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def score(self) -> float:
        """How much to trust the caption, 0 to 1."""
        return min(1.0, float(np.exp(self.log_prob + self.fit))) * self.familiarity


class StepwiseDecoder(Protocol):
    """A decoder that reads one word at a time: `decoders.Decoder`, or an exported one."""

    def begin(self, features: np.ndarray, copies: int) -> tuple[Any, Sequence[np.ndarray]]:
        """Encode images.

        Args:
            features: float32 of shape (images, feature_size), or (images, height, width, feature_size).
            copies: captions of each image. Their states stand together.

        Returns:
            The encoded images, for `advance` alone, and the initial state, a list of float32 (images x copies, units).
        """
        ...

    def advance(
        self, image: Any, state: Sequence[np.ndarray], tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, Sequence[np.ndarray]]:
        """Read one more word of each caption.

        Args:
            image: from `begin`.
            state: from `begin` or from the word before.
            tokens: int32 of shape (captions,).

        Returns:
            Logits of the next word, float32 (captions, vocabulary_size); attention weights, float32 (captions,
            positions), or None; and the new state.
        """
        ...


class BeamSearch:
    """Beam search for whole batches of images; with `beam=1` it is greedy search.

    All beams of all images advance together. A finished caption keeps its place in the beam while its log-probability
    is among the best. The result is sorted by the mean log-probability of a word, because a sum prefers short captions.
    """

    def __init__(self, decoder: StepwiseDecoder, tokenizer: Tokenizer, beam: int = BEAM, no_repeat: int = NO_REPEAT):
        """
        Args:
            decoder: any decoder.
            tokenizer: the vocabulary that the decoder was trained with.
            beam: how many captions of an image the search follows.
            no_repeat: a caption never contains the same run of this many words twice; 0 allows it.
        """
        self.decoder, self.tokenizer, self.beam, self.no_repeat = decoder, tokenizer, beam, no_repeat
        self.max_length = tokenizer.max_length + 1  # with <end>

    def __call__(self, features: np.ndarray) -> list[list[Caption]]:
        """Caption images.

        Args:
            features: float32 of shape (images, feature_size), or (images, height, width, feature_size) where the
                decoder reads a grid.

        Returns:
            `beam` captions of each image, the best first.
        """
        if not len(features):
            return []
        each, rows = self.rows, len(features) * self.rows
        image, state = self.decoder.begin(features, each)
        first_row = np.arange(0, rows, each)[:, None]  # of each image
        tokens = np.full((rows, self.max_length), PAD, np.int32)
        log_probs = np.zeros((rows, self.max_length), np.float32)
        attention: list[np.ndarray] = []
        last = np.full(rows, START, np.int32)
        # All beams of an image start alike. Only the first may count, or each would find the same words.
        totals = np.full((len(features), each), -np.inf, np.float32)
        totals[:, 0] = 0

        for position in range(self.max_length):
            logits, weights, state = self.decoder.advance(image, state, last)
            step = self._next_log_probs(logits, tokens, position)
            candidates = totals[..., None] + step.reshape(len(features), each, -1)
            totals, best = self._choose(candidates)
            parent = (best // step.shape[1] + first_row).ravel()
            last = (best % step.shape[1]).ravel().astype(np.int32)

            tokens, log_probs = tokens[parent], log_probs[parent]
            tokens[:, position], log_probs[:, position] = last, step[parent, last]
            log_probs[np.isneginf(totals.ravel()), 0] = -np.inf  # there are fewer captions than rows
            state = [tensor[parent] for tensor in state]
            if weights is not None:
                attention = [earlier[parent] for earlier in (*attention, weights)]
            if self._is_done(last.reshape(-1, each)):
                break
        return self._captions(tokens, log_probs, np.stack(attention, axis=1) if attention else None)

    @property
    def rows(self) -> int:
        """The captions of an image that advance together."""
        return self.beam

    def _choose(self, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The continuations that the search follows.

        Args:
            candidates: the log-probability of each caption with each next word, of shape (images, rows, words).

        Returns:
            The best log-probabilities, of shape (images, rows), and where each is in an image's flat array.
        """
        flat = candidates.reshape(len(candidates), -1)
        best = top_k(flat, self.beam)
        return np.take_along_axis(flat, best, axis=1), best

    def _is_done(self, last: np.ndarray) -> bool:
        """Whether the search may stop after these words, of shape (images, rows)."""
        return bool(is_finished(last).all())

    def _next_log_probs(self, logits: np.ndarray, tokens: np.ndarray, position: int) -> np.ndarray:
        """The log-probability of each word at `position`, -inf for those that must not follow."""
        step = log_softmax(logits)
        if position == self.max_length - 1:  # no room for another word
            step[:, np.arange(step.shape[1]) != END] = -np.inf
        step[:, [PAD, START, UNKNOWN]] = -np.inf
        if self.no_repeat:
            forbid_repetition(step, tokens, position, self.no_repeat)
        if position:
            finished = is_finished(tokens[:, position - 1])
            step[finished] = -np.inf
            step[finished, PAD] = 0
        return step

    def _captions(self, tokens: np.ndarray, log_probs: np.ndarray, attention: np.ndarray | None) -> list[list[Caption]]:
        captions = []
        for row in range(len(tokens)):
            length = max(1, np.count_nonzero(tokens[row] != PAD))
            words = [self.tokenizer.words[token] for token in tokens[row, :length]]
            probabilities = np.exp(log_probs[row, :length]).tolist()
            captions.append(
                Caption(
                    self.tokenizer.decode(tokens[row]),
                    tuple(zip(words, probabilities, strict=True)),
                    float(log_probs[row, :length].mean()),
                    attention=None if attention is None else attention[row, :length],
                )
            )
        groups = [captions[row : row + self.beam] for row in range(0, len(captions), self.beam)]
        return [sorted(group, key=lambda caption: -caption.log_prob) for group in groups]


def caption_features(search: BeamSearch, features: np.ndarray, batch_size: int = 64) -> list[Caption]:
    """The best caption of each image, with a progress bar.

    Args:
        features: as for `BeamSearch`.
    """
    captions = []
    with progress(total=len(features), unit="image", desc="Captions") as bar:
        for start in range(0, len(features), batch_size):
            found = search(features[start : start + batch_size])
            captions += [best for best, *_ in found]
            bar.update(len(found))
    return captions


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities from logits, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def top_k(values: np.ndarray, k: int) -> np.ndarray:
    """The indices of the k greatest values of each row, the greatest first."""
    best = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def forbid_repetition(log_probs: np.ndarray, tokens: np.ndarray, position: int, n: int) -> None:
    """Set to -inf every word that would complete a run of n words which the caption already contains.

    Args:
        log_probs: float32 of shape (captions, vocabulary_size); it is changed.
        tokens: int32 of shape (captions, length), of which the first `position` are written.
    """
    last = tokens[:, position - n + 1 : position]
    for start in range(position - n + 1):
        same = (tokens[:, start : start + n - 1] == last).all(axis=1)
        log_probs[same, tokens[same, start + n - 1]] = -np.inf


def is_finished(tokens: np.ndarray) -> np.ndarray:
    """Whether captions that end in these tokens are finished."""
    return (tokens == END) | (tokens == PAD)
