"""Tests of caption_generator.inference.constrained_search, with a decoder that looks at the word before alone."""

from itertools import pairwise, product

import numpy as np
import pytest

from caption_generator.inference.constrained_search import ConstrainedBeamSearch
from caption_generator.search import BeamSearch, log_softmax
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer

TOKENIZER = Tokenizer([*SPECIAL_TOKENS, "a", "dog", "cat", "runs"], max_length=3)
WORDS = range(len(SPECIAL_TOKENS), len(TOKENIZER))
NEVER = [PAD, START, UNKNOWN]


class Bigrams:
    """The features of an image are the logits of each word after each word; attention weights tell which was read."""

    def begin(self, features, copies):
        return np.repeat(features, copies, axis=0), [np.zeros((len(features) * copies, 1), np.float32)]

    def advance(self, image, state, tokens):
        return image[np.arange(len(tokens)), tokens], np.eye(len(TOKENIZER), dtype=np.float32)[tokens], state


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, len(TOKENIZER), len(TOKENIZER))).astype(np.float32)


def required(*words: str) -> np.ndarray:
    return np.isin(TOKENIZER.words, words)


def best_caption(logits: np.ndarray, allowed: np.ndarray) -> tuple[str, float]:
    """Of all captions with an allowed word, the one with the greatest mean log-probability."""
    step = log_softmax(logits)
    found = {}
    for length in range(1, TOKENIZER.max_length + 1):
        for words in product(WORDS, repeat=length):
            if allowed[list(words)].any():
                path = [START, *words, END]
                log_probs = [step[last, word] for last, word in pairwise(path)]
                found[TOKENIZER.decode(words)] = float(np.mean(log_probs))
    return max(found.items(), key=lambda item: item[1])


def test_it_finds_the_best_caption_with_a_required_word(images):
    wanted = np.array([required(*words) for words in (["dog"], ["cat"], ["dog", "cat"], ["runs"], ["a"])])
    search = BeamSearch(Bigrams(), TOKENIZER, beam=100, no_repeat=0)
    for captions, logits, allowed in zip(ConstrainedBeamSearch(search, wanted)(images), images, wanted, strict=True):
        text, log_prob = best_caption(logits, allowed)
        assert captions[0].text == text
        assert captions[0].log_prob == pytest.approx(log_prob, abs=1e-5)
        assert len({caption.text for caption in captions}) == len(captions)
        assert all(allowed[TOKENIZER.encode(caption.text)].any() for caption in captions)


def test_where_every_word_is_allowed_it_is_beam_search(images):
    search = BeamSearch(Bigrams(), TOKENIZER, beam=3)
    everything = np.ones((len(images), len(TOKENIZER)), bool)
    for found, plain in zip(ConstrainedBeamSearch(search, everything)(images), search(images), strict=True):
        assert found[0].log_prob == pytest.approx(plain[0].log_prob, abs=1e-6)
        np.testing.assert_array_equal(found[0].attention, plain[0].attention)


def test_it_does_not_stop_while_a_caption_without_the_word_may_still_win():
    logits = np.full((1, len(TOKENIZER), len(TOKENIZER)), -20, np.float32)
    after = {word: logits[0, TOKENIZER.words.index(word)] for word in TOKENIZER.words}
    dog, cat, runs = map(TOKENIZER.words.index, ("dog", "cat", "runs"))
    after["<start>"][[dog, cat]] = 0, -4  # "cat" is a caption after one step, and hardly probable
    after["dog"][runs] = after["runs"][cat] = after["cat"][END] = 0
    search = BeamSearch(Bigrams(), TOKENIZER, beam=1)
    [[caption]] = ConstrainedBeamSearch(search, required("cat")[None])(logits)
    assert caption.text == "dog runs cat"


def test_images_do_not_share_their_words(images):
    wanted = np.array([required(word) for word in ("dog", "cat", "runs", "a", "dog")])
    search = BeamSearch(Bigrams(), TOKENIZER, beam=2)
    together = ConstrainedBeamSearch(search, wanted)(images)
    alone = [ConstrainedBeamSearch(search, wanted[[n]])(images[[n]])[0] for n in range(len(images))]
    assert together == alone


def test_there_are_no_captions_where_the_word_cannot_come(images):
    images[:, :, TOKENIZER.words.index("cat")] = -np.inf
    search = BeamSearch(Bigrams(), TOKENIZER, beam=2)
    wanted = np.tile(required("cat"), (len(images), 1))
    with np.errstate(invalid="ignore"):
        assert ConstrainedBeamSearch(search, wanted)(images) == [[]] * len(images)
