"""Step 5: from an image's features to words, by greedy or beam search.

The state of the LSTM holds all that it has read, so each step feeds one word and hands the state on. Many programs read
the whole sentence again for every word; that costs n times as much for a caption of n words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from caption_generator.common.console import progress
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer

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
        fit: how well its words fit the photo, in nats; see `inference.word_detector`. 0 if that is not known.
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


# The captions that end at one step: (image, index of the end in the flat array of the image's candidates).
Ends = list[tuple[int, int]]
# What is found where no word has a probability, because training diverged and the weights are not numbers.
NOTHING = Caption("", ((SPECIAL_TOKENS[END], 0.0),), log_prob=-np.inf)


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

    All beams of all images advance together. A caption that ends leaves the beam, and the next best one takes its
    place. More words can only make a caption less probable. So the search of an image stops when it has enough captions
    that ended, and each of them is more probable than every caption that goes on (Huang, Zhao and Ma 2017, "When to
    Finish? Optimal Beam Search for Neural Text Generation"). The result is sorted by the mean log-probability of a
    word: a sum prefers short captions.
    """

    def __init__(
        self,
        decoder: StepwiseDecoder,
        tokenizer: Tokenizer,
        beam: int = BEAM,
        no_repeat: int = NO_REPEAT,
        captions: int | None = None,
    ):
        """
        Args:
            decoder: any decoder.
            tokenizer: the vocabulary that the decoder was trained with.
            beam: how many captions of an image the search follows.
            no_repeat: a caption never contains the same run of this many words twice; 0 allows it.
            captions: how many captions of an image to find; by default as many as it follows.
        """
        self.decoder, self.tokenizer, self.beam = decoder, tokenizer, beam
        self.no_repeat, self.captions = no_repeat, captions or beam
        self.max_length = tokenizer.max_length + 1  # with <end>

    def __call__(self, features: np.ndarray) -> list[list[Caption]]:
        """Caption images.

        Args:
            features: float32 of shape (images, feature_size), or (images, height, width, feature_size) where the
                decoder reads a grid.

        Returns:
            The captions of each image, the best first: `captions` of them, or all where there are not so many, but one
            at least.
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
        ended: list[list[Caption]] = [[] for _ in features]  # of each image, the most probable first
        done = np.zeros(len(features), bool)

        for position in range(self.max_length):
            logits, weights, state = self.decoder.advance(image, state, last)
            if weights is not None:
                attention.append(weights)
            step = self._next_log_probs(logits, tokens, position)
            candidates = totals[..., None] + step.reshape(len(features), each, -1)
            totals, best, ends = self._choose(candidates)

            for number, place in ends:
                if not done[number]:
                    row = number * each + place // step.shape[1]
                    words = np.append(tokens[row, :position], END)
                    found = np.append(log_probs[row, :position], step[row, END])
                    ended[number].append(self._caption(words, found, [weights[row] for weights in attention]))
            for number, group in enumerate(ended):
                group.sort(key=total_log_prob, reverse=True)
                del group[self.captions :]
                done[number] = len(group) == self.captions and total_log_prob(group[-1]) >= totals[number].max()
            if done.all():
                break

            parent = (best // step.shape[1] + first_row).ravel()
            last = (best % step.shape[1]).ravel().astype(np.int32)
            tokens, log_probs = tokens[parent], log_probs[parent]
            tokens[:, position], log_probs[:, position] = last, step[parent, last]
            state = [tensor[parent] for tensor in state]
            attention = [earlier[parent] for earlier in attention]
        return [sorted(captions, key=lambda caption: -caption.log_prob) or [NOTHING] for captions in ended]

    @property
    def rows(self) -> int:
        """The captions of an image that advance together."""
        return self.beam

    def _choose(self, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray, Ends]:
        """The continuations that the search follows, and those that end.

        Args:
            candidates: the log-probability of each caption with each next word, of shape (images, rows, words). It
                may be changed.

        Returns:
            The log-probabilities of the former, of shape (images, rows), and where each is in an image's flat array. Of
            the latter, the image and the place in this array, the best of an image first.
        """
        return best_continuations(candidates, self.beam)

    def _next_log_probs(self, logits: np.ndarray, tokens: np.ndarray, position: int) -> np.ndarray:
        """The log-probability of each word at `position`, -inf for those that must not follow."""
        step = log_softmax(logits)
        if position == self.max_length - 1:  # no room for another word
            step[:, np.arange(step.shape[1]) != END] = -np.inf
        step[:, [PAD, START, UNKNOWN]] = -np.inf
        if self.no_repeat:
            forbid_repetition(step, tokens, position, self.no_repeat)
        return step

    def _caption(self, tokens: np.ndarray, log_probs: np.ndarray, attention: Sequence[np.ndarray]) -> Caption:
        """A caption of these tokens, with `<end>` as the last."""
        words = [self.tokenizer.words[token] for token in tokens]
        return Caption(
            self.tokenizer.decode(tokens),
            tuple(zip(words, np.exp(log_probs).tolist(), strict=True)),
            float(log_probs.mean()),
            attention=np.stack(attention) if attention else None,
        )


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


def total_log_prob(caption: Caption) -> float:
    """The log-probability of the whole caption, in nats."""
    return caption.log_prob * len(caption.words)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities from logits of shape (..., vocabulary_size), over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def top_k(values: np.ndarray, k: int) -> np.ndarray:
    """The indices of the k greatest values of each row, the greatest first: (rows, n) to int64 (rows, k)."""
    best = np.sort(np.argpartition(-values, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def best_continuations(candidates: np.ndarray, beam: int) -> tuple[np.ndarray, np.ndarray, Ends]:
    """The `beam` best continuations of each image that go on, and those among the `beam` best of all that end.

    Args:
        candidates: of shape (images, captions, words), -inf for what cannot follow.

    Returns:
        As `BeamSearch._choose`. Where fewer go on, the rest have a log-probability of -inf.
    """
    flat = candidates.reshape(len(candidates), -1)
    best = top_k(flat, 2 * beam)  # a caption ends in one way only, so `beam` of them go on, if so many can
    totals, is_end = np.take_along_axis(flat, best, axis=1), best % candidates.shape[2] == END
    images, places = np.nonzero((is_end & np.isfinite(totals))[:, :beam])
    ends = list(zip(images.tolist(), best[images, places].tolist(), strict=True))
    going_on = np.argsort(is_end, axis=1, kind="stable")[:, :beam]
    totals = np.where(is_end, -np.inf, totals)
    return np.take_along_axis(totals, going_on, axis=1), np.take_along_axis(best, going_on, axis=1), ends


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
