"""Things of which the ImageNet classifier is sure are named, and its table of words is consistent."""

import itertools
from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest

from caption_generator.imagenet_words import things
from caption_generator.inference import imagenet_classifier
from caption_generator.inference.imagenet_classifier import mentions, search_words, with_name
from caption_generator.search import BeamSearch, Caption
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.helpers import photo_of

LINES = {thing.name: number for number, thing in enumerate(things())}
DRAKE, LION, POODLE, MENU = 97, 291, 267, 922
TOKENIZER = Tokenizer(
    [*SPECIAL_TOKENS, *["a", "an", "the", "dog", "dogs", "eagle", "tiger", "grass", "sleeps", "in", "duck", "bird"]], 6
)


def thing(name: str):
    return things()[LINES[name]]


def caption(text: str, log_prob: float = log(0.5)) -> Caption:
    words = (*((word, 0.25) for word in text.split()), ("<end>", 0.5))
    return Caption(text, words, log_prob, fit=0.25, familiarity=0.75)


class Sentences:
    """A decoder that writes "a dog sleeps in the grass", and after "a" any other thing with the same probability."""

    def begin(self, features, copies):
        return features, [np.zeros((len(features) * copies, 1), np.float32)]

    def advance(self, image, state, tokens):
        usual = TOKENIZER.encode("a dog sleeps in the grass").tolist()
        following = dict(itertools.pairwise(usual))
        logits = np.zeros((len(tokens), len(TOKENIZER)), np.float32)
        logits[tokens != usual[1]] = -6
        for row, token in zip(logits, tokens, strict=True):
            row[following.get(token, following[TOKENIZER.encode("dog")[1]])] = 6
        return logits, np.eye(len(TOKENIZER), dtype=np.float32)[tokens], state


SEARCH = BeamSearch(Sentences(), TOKENIZER, beam=2)


def test_the_table_has_each_thing_once_and_only_classes_that_there_are():
    assert len(LINES) == len(things())
    for row in things():
        assert row.classes and set(row.classes) <= set(range(1000)), row.name
        assert row.name in row.words, row.name
        assert all(count == 1 for count in Counter(row.classes).values()), row.name
    covered = {number for row in things() for number in row.classes}
    assert len(covered) > 990
    assert {"geese", "flamingo", "ostriches"} <= thing("bird").words
    assert thing("bird").words >= {"duck", "rooster"}
    assert DRAKE in thing("bird").classes
    assert "butterflies" in thing("butterfly").words


def test_a_stand_in_does_not_name_the_thing():
    assert "tiger" in thing("lion").candidates
    assert "tiger" not in thing("lion").words
    assert not mentions("a tiger sleeps", thing("lion"))
    assert mentions("two hot dogs on a plate", thing("hot dog"))
    assert not mentions("a dog is hot", thing("hot dog"))


def test_a_thing_is_as_likely_as_its_classes_together(classifier):
    likely = classifier(np.concatenate([photo_of(DRAKE, LION), photo_of(POODLE), photo_of(MENU)]))
    assert likely.shape == (3, len(things()))
    assert likely.dtype == np.float32
    for name, expected in {"duck": 0.5, "bird": 0.5, "lion": 0.5, "dog": 0.0}.items():
        assert likely[0, LINES[name]] == pytest.approx(expected, abs=1e-3)
    assert likely[1, LINES["dog"]] == pytest.approx(1, abs=1e-3)
    assert likely[2].max() < 1e-3


@pytest.mark.parametrize(
    ("classes", "text", "missing"),
    [
        ([LION], "a dog sleeps", "lion"),
        ([LION], "a lion sleeps", None),
        ([LION], "two lions sleep", None),
        ([DRAKE], "a bird swims", "duck"),  # the line with fewer classes
        ([DRAKE], "a duck swims", None),
        ([LION, POODLE], "a cat sleeps", None),  # one or the other
        ([MENU], "a dog sleeps", None),  # in no line
    ],
)
def test_what_is_surely_there_and_not_in_the_caption_is_missing(classifier, classes, text, missing):
    [found] = classifier.unnamed(photo_of(*classes), [caption(text)])
    assert (found[0].name if found else None) == missing


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dog", ["dog", "dogs"]),
        ("eagle", ["eagle"]),  # its plural is not in the vocabulary
        ("lion", ["tiger"]),  # a stand-in
        ("coyote", ["dog"]),  # without the stand-in's plural
        ("pizza", []),
    ],
)
def test_the_search_is_for_words_of_the_vocabulary(name, words):
    assert search_words(thing(name), TOKENIZER) == words


@pytest.mark.parametrize(
    ("text", "name", "word", "expected"),
    [
        ("a tiger sleeps", "lion", "tiger", "a lion sleeps"),
        ("a tiger sleeps", "otter", "tiger", "an otter sleeps"),
        ("an eagle flies", "kite", "eagle", "a kite flies"),
        ("an eagle flies", "unicycle", "eagle", "a unicycle flies"),
        ("a eagle flies", "eagle", "eagle", "an eagle flies"),  # as a decoder writes that never read it
        ("the sandwich is big", "hot dog", "sandwich", "the hot dog is big"),
        ("two tigers sleep", "lion", "tiger", "two tigers sleep"),
    ],
)
def test_the_name_takes_the_place_of_the_word(text, name, word, expected):
    found = with_name(caption(text), name, 0.875, word)
    assert found.text == expected
    assert " ".join(part for part, _ in found.words) == f"{expected} <end>"
    assert found.words[-1] == ("<end>", 0.5)
    named = [probability for part, probability in found.words if part in name.split()]
    assert named == [0.875] * len(name.split()) * (word in text.split())
    assert (found.log_prob, found.fit, found.familiarity) == (log(0.5), 0.25, 0.75)


def test_each_word_keeps_its_attention_weights_and_the_parts_of_a_name_share_them():
    weights = np.eye(6, 4, dtype=np.float32)
    found = with_name(replace(caption("a sandwich on a table"), attention=weights), "hot dog", 0.875, "sandwich")
    assert found.text == "a hot dog on a table"
    np.testing.assert_array_equal(found.attention, weights[[0, 1, 1, 2, 3, 4, 5]])


def test_photos_get_captions_that_name_what_they_show(classifier):
    features = np.concatenate([photo_of(n) for n in (LION, POODLE, 22, MENU, 963)])
    found = SEARCH(features)
    assert {captions[0].text for captions in found} == {"a dog sleeps in the grass"}
    photos, named = classifier.name(features, [[replace(c, fit=-9.0) for c in captions] for captions in found], SEARCH)
    assert photos == [0, 2]  # a dog is named, a menu is nothing to name, and there is no word for pizza
    assert [captions[0].text for captions in named] == ["a lion sleeps in the grass", "an eagle sleeps in the grass"]


@pytest.mark.parametrize(
    ("log_prob", "fit", "very_sure", "taken"),
    [(-3.0, 0.0, 1.1, True), (0.0, 0.0, 1.1, False), (0.0, -2.0, 1.1, True), (0.0, 0.0, 0.9, True)],
    ids=["it loses little", "it loses much", "the best caption has a low score", "it is certain"],
)
def test_an_improbable_name_is_only_for_a_photo_without_a_good_caption(
    classifier, log_prob, fit, very_sure, taken, monkeypatch
):
    monkeypatch.setattr(imagenet_classifier, "VERY_SURE", very_sure)
    best = replace(caption("a dog sleeps", log_prob), fit=fit)
    photos, _ = classifier.name(photo_of(LION), [[best]], SEARCH)
    assert bool(photos) == taken
