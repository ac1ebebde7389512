"""Step 6b: which words does the photo call for?

A decoder asks which word may follow those before it, and a likely one that has little to do with the photo costs it
little. So the photo is asked once more, apart from any sentence, which words people would use of it. Of the captions
that a search has found, the one that has them comes first. Fang et al. 2015, "From Captions to Visual Concepts and
Back", detect words and rank captions by what was detected, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from caption_generator.inference.out_of_distribution import directions
from caption_generator.search import Caption
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

RIDGE = 1.0  # keeps the regression from learning single photos by heart
WEIGHT = 0.5  # of the fit, beside the mean log-probability of a word; both were chosen on Flickr8k's dev images


@dataclass(frozen=True)
class WordDetector:
    """How likely each word of the vocabulary is in people's captions of a photo: a ridge regression on its features.

    Attributes:
        mean: the mean direction of the training photos' features, float32 of shape (feature_size,).
        weights: float32 of shape (vocabulary_size, feature_size).
        share: of the training photos, those with the word in a caption, 0 to 1: float32 of shape (vocabulary_size,).
        good: the fit that one in twenty of people's own captions exceeds.
    """

    mean: np.ndarray
    weights: np.ndarray
    share: np.ndarray
    good: float

    @classmethod
    def fit(
        cls, features: np.ndarray, captions: Sequence[Sequence[np.ndarray]], vocabulary_size: int
    ) -> "WordDetector":
        """Learn the words from photos and people's captions of them.

        Args:
            features: of shape (photos, ..., feature_size).
            captions: the captions of each photo, as `Tokenizer.encode` gives them.
        """
        photos = directions(features)
        mean = photos.mean(axis=0)
        photos = photos - mean
        words = [_words(np.concatenate(group)) for group in captions]
        share, sums = np.zeros(vocabulary_size), np.zeros((vocabulary_size, photos.shape[1]))
        for photo, present in zip(photos, words, strict=True):
            share[present] += 1 / len(photos)
            sums[present] += photo
        inverse = np.linalg.inv(photos.T @ photos + RIDGE * np.eye(photos.shape[1]))
        weights = sums @ inverse
        detector = cls(*(array.astype(np.float32) for array in (mean, weights, share)), good=0.0)

        # What it says of a photo that it has learned from is too good. How much each photo counts for itself is known
        # (its leverage), and so what it would say, had it not learned from that one.
        leverage = np.sum(photos @ inverse * photos, axis=1)
        fits = [
            detector._fit(caption, (share[caption] + weights[caption] @ photo - own) / (1 - own))
            for photo, own, group in zip(photos, leverage, captions, strict=True)
            for caption in map(_words, group)
        ]
        return replace(detector, good=float(np.quantile(fits, 0.95)))

    @cached_property
    def rarity(self) -> np.ndarray:
        """How much each word tells of a photo, in nats: its inverse document frequency, and 0 for what nobody says."""
        return -np.log(np.where(self.share > 0, self.share, 1))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """How likely each word is: about 0 to 1, of shape (photos, vocabulary_size).

        Args:
            features: of shape (photos, ..., feature_size).
        """
        return self.share + (directions(features) - self.mean) @ self.weights.T

    def called_for(self, features: np.ndarray, tokenizer: Tokenizer, top: int = 12) -> dict[str, float]:
        """The words that tell most of a photo, and how likely each is.

        Args:
            features: of one photo.
            top: so many words, that which tells most first: likely here, and rare elsewhere.
        """
        [likely] = self(features[None])
        return {tokenizer.words[word]: float(likely[word]) for word in np.argsort(-likely * self.rarity)[:top]}

    def rank(
        self, features: np.ndarray, found: Sequence[Sequence[Caption]], tokenizer: Tokenizer
    ) -> list[list[Caption]]:
        """Put first the captions that are likely and fit their photo.

        Args:
            features: of shape (photos, ..., feature_size).
            found: the captions of each photo.
            tokenizer: the vocabulary that both the captions and this detector are of.

        Returns:
            The same captions. Their scores are lower the worse their words fit; where they fit very well, a little
            higher, and at most 1.
        """
        ranked = []
        for photo, captions in zip(directions(features) - self.mean, found, strict=True):
            scores = []
            for caption in captions:
                words = _words(tokenizer.encode(caption.text))
                # Of these words alone: all of them would take longer than the search's last layer.
                fit = self._fit(words, self.share[words] + self.weights[words] @ photo)
                scores.append(caption.score * float(np.exp(WEIGHT * (fit - self.good))))
            order = np.argsort(-np.array(scores), kind="stable")
            ranked.append([replace(captions[i], score=min(1.0, scores[i])) for i in order])
        return ranked

    def _fit(self, words: np.ndarray, likely: np.ndarray) -> float:
        """How well `words`, which are so `likely`, fit. The rare ones, by which photos differ, count most; how many
        there are does not."""
        rarity = self.rarity[words]
        return float(rarity**2 @ likely / max(np.linalg.norm(rarity), 1e-9))


def _words(tokens: np.ndarray) -> np.ndarray:
    """The ordinary words among `tokens`, each once."""
    return np.unique(tokens[tokens >= len(SPECIAL_TOKENS)])
