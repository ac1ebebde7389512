"""Name what the encoder's ImageNet classifier is sure of.

It tells a thousand classes apart, a lion and a school bus among them, which the training captions may seldom name or
never. Where it is sure of a thing and the caption does not name it, a second search finds a caption that does.
Fine-tuning would spoil the classifier's answers, so `finetuning.forgetting` keeps them as they were.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from caption_generator.imagenet_words import Thing, plurals, things
from caption_generator.inference.constrained_search import ConstrainedBeamSearch
from caption_generator.inference.out_of_distribution import mean_of_grid
from caption_generator.search import BeamSearch, Caption, log_softmax
from caption_generator.tokenizer import Tokenizer

# These numbers were chosen on the dev photos.
SURE = 0.5  # the probability from which a thing is there
# A caption with its name takes the place of the best one without it,
VERY_SURE = 0.9  # if the thing is at least so probable,
MOST_LOST = 0.3  # or if the mean log-probability of a word falls by less than this, in nats,
LOW_SCORE = 0.25  # or if the best caption without it has a lower score than this
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
        return np.exp(log_softmax(mean_of_grid(features) @ self.kernel + self.bias)) @ self._members

    def unnamed(self, features: np.ndarray, captions: Sequence[Caption]) -> list[tuple[Thing, float] | None]:
        """What each photo surely shows and its caption does not name, with its probability, or None.

        Args:
            features: of shape (photos, ..., feature_size).
            captions: one of each photo.
        """
        found = []
        for likely, caption in zip(self(features), captions, strict=True):
            sure = [(things()[number], float(likely[number])) for number in np.flatnonzero(likely >= SURE)]
            best = min(sure, key=lambda pair: len(pair[0].classes), default=None)  # of a drake's, the duck
            found.append(best if best and not mentions(caption.text, best[0]) else None)
        return found

    def name(
        self, features: np.ndarray, found: Sequence[Sequence[Caption]], search: BeamSearch
    ) -> tuple[list[int], list[list[Caption]]]:
        """Search captions that name what photos surely show, where the best caption does not.

        In a photo of many things, what the classifier is sure of may be one that nobody would tell of, and a sentence
        with it is improbable. But where no caption is probable, the classifier knows better.

        Args:
            features: of shape (photos, ..., feature_size).
            found: the captions of each photo, the best first.
            search: the search that found them.

        Returns:
            The numbers of the photos for which there are good captions with the name, and these captions.
        """
        missing = self.unnamed(features, [captions[0] for captions in found])
        words = {photo: search_words(pair[0], search.tokenizer) for photo, pair in enumerate(missing) if pair}
        photos = [photo for photo, forms in words.items() if forms]
        if not photos:
            return [], []
        required = np.array([np.isin(search.tokenizer.words, words[photo]) for photo in photos])
        groups = ConstrainedBeamSearch(search, required)(features[photos])
        named = {}
        for photo, captions in zip(photos, groups, strict=True):
            (thing, probability), best = missing[photo], found[photo][0]
            if captions and (
                probability >= VERY_SURE or captions[0].log_prob > best.log_prob - MOST_LOST or best.score < LOW_SCORE
            ):
                named[photo] = [with_name(caption, thing.name, probability, words[photo][0]) for caption in captions]
        return list(named), list(named.values())


def mentions(text: str, thing: Thing) -> bool:
    """Whether a caption names the thing."""
    return any(f" {word} " in f" {text} " for word in thing.words)


def search_words(thing: Thing, tokenizer: Tokenizer) -> list[str]:
    """The words of the vocabulary to search for: a word for the thing and its plural, or a stand-in, or none."""
    known = set(tokenizer.words)
    word = next((word for word in thing.candidates if word in known), None)
    if word is None:
        return []
    return [word, *(form for form in plurals(word) if word in thing.words and form in known)]


def with_name(caption: Caption, name: str, probability: float, word: str) -> Caption:
    """The caption with `name` in the place of `word`, with the article that suits it.

    The name has the classifier's probability, because the decoder did not choose it, and the attention weights of the
    word. The parts of a name of two words share both.
    """
    if word not in caption.text.split():
        return caption
    words: list[tuple[str, float]] = []
    rows: list[int] = []  # of the attention weights
    for row, (found, own) in enumerate(caption.words):
        parts = name.split() if found == word else [found]
        if found == word and words and words[-1][0] in ("a", "an"):
            vowel = name[0] in "aeiou" and not name.startswith("uni")  # as "unicycle" sounds
            words[-1] = ("an" if vowel else "a", words[-1][1])
        words += [(part, probability if found == word else own) for part in parts]
        rows += [row] * len(parts)
    text = " ".join(part for part, _ in words[:-1])
    return replace(
        caption,
        text=text,
        words=tuple(words),
        attention=None if caption.attention is None else caption.attention[rows],
    )
