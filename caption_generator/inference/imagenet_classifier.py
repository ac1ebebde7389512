"""Name what the encoder's ImageNet classifier is sure of.

It tells a thousand classes apart, a lion and a school bus among them, which the training captions may seldom name or
never. Where it is sure of a thing and the caption does not name it, the search must find a caption that does.
Fine-tuning would spoil the classifier's answers, so `finetuning.forgetting` keeps them as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from caption_generator.inference.constrained_search import ConstrainedBeamSearch
from caption_generator.inference.imagenet_words import Thing, plurals, things
from caption_generator.search import BeamSearch, Caption
from caption_generator.tokenizer import Tokenizer

SURE = 0.6  # the probability from which a thing is there
# A caption with its name takes the place of one without it if the mean log-probability of a word falls by less than
# this, in nats, or if the caption without it has a lower score than this. Chosen on the dev photos.
MOST_LOST, LOW_SCORE = 0.3, 0.3
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
        members = np.zeros((len(self.bias), len(things())), np.float32)
        for number, thing in enumerate(things()):
            members[list(thing.classes), number] = 1
        return members

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The probability of each of `things()`: float32 of shape (photos, things).

        Args:
            features: of shape (photos, ..., feature_size).
        """
        vectors = features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)
        logits = vectors @ self.kernel + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds @ self._members / odds.sum(axis=1, keepdims=True)

    def unnamed(self, features: np.ndarray, captions: Sequence[Caption]) -> list[Thing | None]:
        """What each photo surely shows and its caption does not name, or None.

        Args:
            features: of shape (photos, ..., feature_size).
            captions: one of each photo.
        """
        found = []
        for likely, caption in zip(self(features), captions, strict=True):
            sure = [things()[number] for number in np.flatnonzero(likely >= SURE)]
            thing = min(sure, key=lambda thing: len(thing.classes), default=None)  # of a drake's, the duck
            found.append(thing if thing and not names(caption.text, thing) else None)
        return found

    def name(
        self, features: np.ndarray, found: Sequence[Sequence[Caption]], search: BeamSearch
    ) -> tuple[list[int], list[list[Caption]]]:
        """Search captions that name what photos surely show, where the best caption does not.

        Args:
            features: of shape (photos, ..., feature_size).
            found: the captions of each photo, the best first.
            search: the search that found them.

        Returns:
            The numbers of the photos for which there are good captions with the name, and these captions.
        """
        missing = self.unnamed(features, [captions[0] for captions in found])
        words = [search_words(thing, search.tokenizer) if thing else [] for thing in missing]
        photos = [photo for photo, forms in enumerate(words) if forms]
        if not photos:
            return [], []
        required = np.array([np.isin(search.tokenizer.words, words[photo]) for photo in photos])
        groups = ConstrainedBeamSearch(search, required)(features[photos])
        named = {
            photo: [with_name(caption, missing[photo].name, words[photo][0]) for caption in captions]
            for photo, captions in zip(photos, groups, strict=True)
            if captions and _is_acceptable(captions[0], found[photo][0])
        }
        return list(named), list(named.values())


def _is_acceptable(named: Caption, best: Caption) -> bool:
    """Whether a caption with the name may take the place of the best one without it.

    In a photo of many things, what the classifier is sure of may be one that nobody would tell of, and a sentence with
    it is improbable. But where no caption is probable, the classifier knows better.
    """
    return named.log_prob > best.log_prob - MOST_LOST or best.score < LOW_SCORE


def names(text: str, thing: Thing) -> bool:
    """Whether a caption names the thing."""
    return any(f" {word} " in f" {text} " for word in thing.words)


def search_words(thing: Thing, tokenizer: Tokenizer) -> list[str]:
    """The words of the vocabulary to search for: a word for the thing and its plural, or a stand-in, or none."""
    known = set(tokenizer.words)
    word = next((word for word in thing.candidates if word in known), None)
    if word is None:
        return []
    return [word, *(form for form in plurals(word) if word in thing.words and form in known)]


def with_name(caption: Caption, name: str, word: str) -> Caption:
    """The caption with `name` in the place of `word`, with the article that suits it.

    The parts of a name of two words share the probability and the attention weights of the word.
    """
    if word not in caption.text.split():
        return caption
    words: list[tuple[str, float]] = []
    rows: list[int] = []  # of the attention weights
    for row, (found, probability) in enumerate(caption.words):
        parts = name.split() if found == word else [found]
        if found == word and words and words[-1][0] in ("a", "an"):
            words[-1] = ("an" if name[0] in "aeiou" else "a", words[-1][1])
        words += [(part, probability) for part in parts]
        rows += [row] * len(parts)
    text = " ".join(part for part, _ in words[:-1])
    return replace(
        caption,
        text=text,
        words=tuple(words),
        attention=None if caption.attention is None else caption.attention[rows],
    )
