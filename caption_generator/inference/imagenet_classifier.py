"""Correct captions by what the encoder's ImageNet classifier knows.

It tells a thousand classes apart, a lion and a school bus among them, which the training captions may seldom name or
never. Where it is sure of one thing and the caption names another of the same kind, that word is replaced. Among the
ways to name what no caption taught, as in Hendricks et al. 2016, "Deep Compositional Captioning", this is the simplest.
Fine-tuning would spoil the classifier's answers, so `finetuning.forgetting` keeps them as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from caption_generator.inference.imagenet_words import THINGS
from caption_generator.search import Caption

SURE, UNLIKELY = 0.6, 0.1  # the probability from which a thing is there, and below which it is not
CLASSES = 1000


@dataclass(frozen=True)
class ImageNetClassifier:
    """The last layer of an ImageNet network, which reads the mean of its last grid.

    Attributes:
        kernel: float32 of shape (feature_size, 1000).
        bias: float32 of shape (1000,).
    """

    kernel: np.ndarray
    bias: np.ndarray

    @cached_property
    def _members(self) -> np.ndarray:
        members = np.zeros((len(self.bias), len(THINGS)), np.float32)
        for number, thing in enumerate(THINGS):
            members[list(thing.classes), number] = 1
        return members

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The probability of each of `THINGS`: float32 of shape (photos, things).

        Args:
            features: of shape (photos, ..., feature_size).
        """
        vectors = features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)
        logits = vectors @ self.kernel + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds @ self._members / odds.sum(axis=1, keepdims=True)

    def correct(self, features: np.ndarray, found: Sequence[Sequence[Caption]]) -> list[list[Caption]]:
        """Replace words that name another thing than the photo surely shows, where it is of the same kind.

        Args:
            features: of shape (photos, ..., feature_size).
            found: the captions of each photo.

        Returns:
            The captions in their order. A new word has the classifier's probability, and the attention weights of the
            word whose place it takes.
        """
        return [
            [correct_caption(caption, likely) for caption in captions]
            for likely, captions in zip(self(features), found, strict=True)
        ]


def correct_caption(caption: Caption, likely: np.ndarray) -> Caption:
    """As `ImageNetClassifier.correct`, of one caption.

    Args:
        likely: the probability of each of `THINGS`, of shape (things,).
    """
    sure = [number for number in range(len(THINGS)) if likely[number] >= SURE]
    if not sure:
        return caption
    right = min(sure, key=lambda number: len(THINGS[number].classes))  # of a drake's lines, the duck's
    thing = THINGS[right]
    same_kind = [number for number, other in enumerate(THINGS) if other.kind == thing.kind]

    def likeliest(noun: str) -> float | None:
        """How likely the photo shows what `noun` names, None if that is not of this kind."""
        return max((float(likely[number]) for number in same_kind if noun in THINGS[number].words), default=None)

    named = {place: likeliest(word) for place, word in enumerate(caption.text.split())}
    nouns = {place: chance for place, chance in named.items() if chance is not None}
    if not nouns or max(nouns.values()) >= SURE:
        return caption
    words: list[tuple[str, float]] = []
    places: list[int] = []  # where each of them stood
    for place, (word, probability) in enumerate(caption.words):
        if nouns.get(place, 1.0) >= UNLIKELY:
            words.append((word, probability))
            places.append(place)
            continue
        article = bool(words) and words[-1][0] in ("a", "an")
        if article:
            words[-1] = ("an" if thing.name[0] in "aeiou" else "a", words[-1][1])
        several = not article and any(word in THINGS[number].plurals for number in same_kind)
        parts = (thing.plural if several else thing.name).split()
        words += [(part, float(likely[right])) for part in parts]
        places += [place] * len(parts)
    text = " ".join(word for word, _ in words[:-1])
    attention = None if caption.attention is None else caption.attention[places]
    return replace(caption, text=text, words=tuple(words), attention=attention)
