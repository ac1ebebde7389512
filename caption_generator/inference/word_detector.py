"""Predict the words of a photo, and rank captions by them.

A decoder predicts the next word from the words before it, so a frequent word that has little to do with the photo costs
it little. A second model, apart from any sentence, predicts from the photo alone which words people use for it. Among
the captions that beam search finds, those with these words move up. Fang et al. 2015, "From Captions to Visual Concepts
and Back", also detect words and rank captions by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from caption_generator.inference.out_of_distribution import directions
from caption_generator.objects import synonyms
from caption_generator.search import Caption
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

RIDGE = 1.0  # regularises the regression
MOST_WEIGHTS = 1 << 28  # of a detector that a file describes
FEWEST = 20  # photos that a word is learned from; with 4, captions of the dev images score the same
WEIGHT = 0.5  # of the fit, beside the mean log-probability of a word; both were chosen on Flickr8k's dev images
DOUBT = 0.4  # of the penalty for objects that the photo does not predict; chosen on all dev images


@dataclass(frozen=True)
class WordDetector:
    """The probability of each word in people's captions of a photo: a ridge regression on the photo's features.

    Attributes:
        mean: the mean direction of the training photos' features, float32 of shape (feature_size,).
        weights: float32 of shape (vocabulary_size, feature_size).
        document_frequency: the fraction of training photos with the word in a caption, float32 of shape
            (vocabulary_size,).
        threshold: a caption that fits better than this gains; one in twenty of people's own captions does.
    """

    mean: np.ndarray
    weights: np.ndarray
    document_frequency: np.ndarray
    threshold: float

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        captions: Sequence[Sequence[np.ndarray]],
        vocabulary_size: int,
        fewest: int = FEWEST,
    ) -> "WordDetector":
        """Learn the words from photos and people's captions of them.

        Args:
            features: of shape (photos, ..., feature_size).
            captions: the captions of each photo, as `Tokenizer.encode` gives them.
            fewest: a word that fewer photos have counts as equally probable in all.
        """
        photos = directions(features)
        mean = photos.mean(axis=0)
        photos = photos - mean
        words = [_words(np.concatenate(group)) for group in captions]
        counts, sums = np.zeros(vocabulary_size), np.zeros((vocabulary_size, photos.shape[1]))
        for photo, present in zip(photos, words, strict=True):
            counts[present] += 1
            sums[present] += photo
        frequency, learned = counts / len(photos), counts >= fewest
        inverse = np.linalg.inv(photos.T @ photos + RIDGE * np.eye(photos.shape[1]))
        weights = np.where(learned[:, None], sums @ inverse, 0.0)
        detector = cls(mean.astype("f"), weights.astype("f"), frequency.astype("f"), threshold=0.0)

        # The prediction for a training photo is too good. The leverage of a photo tells how much it counts for itself,
        # and so what the prediction is without it (leave-one-out).
        leverage, fits = np.sum(photos @ inverse * photos, axis=1), []
        for photo, own, group in zip(photos, leverage, captions, strict=True):
            for caption in map(_words, group):
                itself = own * learned[caption]
                probabilities = (frequency[caption] + weights[caption] @ photo - itself) / (1 - itself)
                fits.append(detector._word_fit(caption, probabilities))
        return replace(detector, threshold=float(np.quantile(fits, 0.95)))

    @property
    def learned(self) -> np.ndarray:
        """The words that it has learned, int64, ascending. The weights of other words are 0, and no file has them."""
        return np.flatnonzero(self.weights.any(axis=1))

    @cached_property
    def inverse_document_frequency(self) -> np.ndarray:
        """How much each word tells of a photo, in nats; 0 for words that nobody uses."""
        return -np.log(np.where(self.document_frequency > 0, self.document_frequency, 1))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The probability of each word, (photos, vocabulary_size); as a regression gives it, it may leave 0 to 1.

        Args:
            features: of shape (photos, ..., feature_size).
        """
        return self.document_frequency + (directions(features) - self.mean) @ self.weights.T

    def predicted_words(self, features: np.ndarray, tokenizer: Tokenizer, top: int = 12) -> dict[str, float]:
        """The words that tell most of a photo and their probabilities.

        Args:
            features: of one photo, (..., feature_size).
            top: the number of words. Those that are probable here and rare elsewhere come first.
        """
        [probabilities] = self(features[None])
        order = np.argsort(-probabilities * self.inverse_document_frequency)
        return {tokenizer.words[word]: float(probabilities[word]) for word in order[:top]}

    def rank(
        self, features: np.ndarray, found: Sequence[Sequence[Caption]], tokenizer: Tokenizer
    ) -> list[list[Caption]]:
        """Sort the captions of each photo by their log-probability and their fit together.

        The fit falls with every object in the caption that the photo does not predict, by any of its names.

        Args:
            features: of shape (photos, ..., feature_size).
            found: the captions of each photo.
            tokenizer: the vocabulary of the captions and of this detector.

        Returns:
            The same captions with their `fit`.
        """
        ranked, objects = [], object_tokens(tuple(tokenizer.words))
        for photo, captions in zip(directions(features) - self.mean, found, strict=True):
            fitted = []
            for caption in captions:
                words = _words(tokenizer.encode(caption.text))
                # Of these words alone: the whole vocabulary would take longer than the last layer of the decoder.
                fit = self._word_fit(words, self._probabilities(photo, words))
                fit = WEIGHT * (fit - self.threshold) - DOUBT * self._doubt(photo, words, objects)
                fitted.append(replace(caption, fit=fit))
            ranked.append(sorted(fitted, key=lambda caption: -(caption.log_prob + caption.fit)))
        return ranked

    def _probabilities(self, photo: np.ndarray, words: np.ndarray) -> np.ndarray:
        return self.document_frequency[words] + self.weights[words] @ photo

    def _doubt(self, photo: np.ndarray, words: np.ndarray, objects: Mapping[int, np.ndarray]) -> float:
        """How improbable the objects among `words` are on average, 0 to 1; 0 if there is none."""
        groups = [objects[word] for word in words.tolist() if word in objects]
        named = [min(1.0, self._probabilities(photo, group).clip(0, 1).sum()) for group in groups]
        return 1 - float(np.mean(named)) if named else 0.0

    def _word_fit(self, words: np.ndarray, probabilities: np.ndarray) -> float:
        """How well `words` with these probabilities fit. Rare words count most; the number of words does not count."""
        idf = self.inverse_document_frequency[words]
        return float(idf**2 @ probabilities / max(np.linalg.norm(idf), 1e-9))


def weights_of_all(learned: Sequence[int] | np.ndarray, weights: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """The weights of all words, float32 of shape (vocabulary_size, feature_size), from those that a file has.

    Args:
        learned: as `WordDetector.learned`.
        weights: of these words, of shape (words, feature_size).

    Raises:
        ValueError: `learned` are not numbers of words in ascending order, or the result would take gigabytes.
    """
    rows = np.asarray(learned)
    if rows.ndim != 1 or (rows.size and rows.dtype.kind not in "iu"):
        raise ValueError("the words of its detector are not a list of whole numbers")
    if rows.size and not (rows[0] >= 0 and rows[-1] < vocabulary_size and (rows[1:] > rows[:-1]).all()):
        raise ValueError("the words of its detector are not in ascending order")
    if weights.ndim != 2 or len(weights) != len(rows):
        raise ValueError("its detector does not have weights for each of its words")
    if vocabulary_size * weights.shape[1] > MOST_WEIGHTS:  # for the file may hold few of them
        raise ValueError("its word detector is too large")
    found = np.zeros((vocabulary_size, weights.shape[1]), np.float32)
    found[rows.astype(int)] = weights
    return found


@lru_cache(maxsize=8)
def object_tokens(words: tuple[str, ...]) -> dict[int, np.ndarray]:
    """The objects in a vocabulary: the number of each such word, and those of all words that may stand for the same."""
    known = {word: number for number, word in enumerate(words)}
    return {
        known[word]: np.array(sorted(known[other] for other in group & known.keys()))
        for word, group in synonyms().items()
        if word in known
    }


def _words(tokens: np.ndarray) -> np.ndarray:
    """The ordinary words among `tokens`, each once."""
    return np.unique(tokens[tokens >= len(SPECIAL_TOKENS)])
