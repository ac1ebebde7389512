"""Captions are corrected where the ImageNet classifier is sure, and its table of words is consistent."""

from collections import Counter
from dataclasses import replace
from math import log

import numpy as np
import pytest

from caption_generator.inference.imagenet_classifier import ImageNetClassifier, correct_caption
from caption_generator.inference.imagenet_words import KINDS, THINGS
from caption_generator.search import Caption

LINES = {thing.name: number for number, thing in enumerate(THINGS)}
DRAKE, LION, POODLE, WOK = 97, 291, 267, 909


@pytest.fixture
def classifier() -> ImageNetClassifier:
    """Each class is a number of the features."""
    return ImageNetClassifier(np.eye(1000, dtype=np.float32) * 20, np.zeros(1000, np.float32))


def photo_of(*classes: int) -> np.ndarray:
    """Features of shape (1, 2, 2, 1000)."""
    features = np.zeros((1, 2, 2, 1000), np.float32)
    features[..., list(classes)] = 1
    return features


def caption(text: str) -> Caption:
    words = (*((word, 0.25) for word in text.split()), ("<end>", 0.5))
    return Caption(text, words, log(0.5), fit=0.25, familiarity=0.75)


def test_the_table_has_each_thing_once_and_only_classes_that_there_are():
    assert Counter(thing.kind for thing in THINGS).keys() == KINDS.keys()
    assert len(LINES) == len(THINGS)
    for thing in THINGS:
        assert thing.classes or thing.name == "giraffe"
        assert len(set(thing.classes)) == len(thing.classes)
        assert set(thing.classes) <= set(range(1000))
        assert {thing.name, thing.plural} <= thing.words
    bird = THINGS[LINES["bird"]]
    assert {"geese", "flamingo", "ostrich"} <= bird.words  # of its second and third row
    assert bird.plurals >= {"birds", "swans"} and not bird.plurals & {"goose", "bird", "ostrich"}
    assert {"duck", "rooster"} <= bird.words and DRAKE in bird.classes


def test_a_thing_is_as_likely_as_its_classes_together(classifier):
    likely = classifier(np.concatenate([photo_of(DRAKE, LION), photo_of(POODLE), photo_of(WOK)]))
    assert likely.shape == (3, len(THINGS))
    assert likely.dtype == np.float32
    for name, expected in {"duck": 0.5, "bird": 0.5, "lion": 0.5, "dog": 0.0}.items():
        assert likely[0, LINES[name]] == pytest.approx(expected, abs=1e-3)
    assert likely[1, LINES["dog"]] == pytest.approx(1, abs=1e-3)
    assert likely[2].max() < 1e-3


@pytest.mark.parametrize(
    ("classes", "before", "after"),
    [
        ([LION], "a brown dog lies in the grass", "a brown lion lies in the grass"),
        ([386], "a dog and a cat in a field", "an elephant and an elephant in a field"),
        ([340], "two horses are in an enclosure", "two zebras are in an enclosure"),
        ([348], "dogs on a hill", "sheep on a hill"),
        ([99], "three sheep on a pond", "three geese on a pond"),
        ([99], "a sheep on a pond", "a goose on a pond"),
        ([934], "a pizza on a table", "a hot dog on a table"),
        ([779], "a car in a street", "a bus in a street"),
        ([779], "a bike in front of a bus", "a bike in front of a bus"),  # it is named
        ([DRAKE], "a bird swims", "a bird swims"),  # so it is, less exactly
        ([DRAKE], "a dog swims", "a duck swims"),  # not only a bird
        ([LION], "a man sits on a rock", "a man sits on a rock"),  # nothing of the kind
        ([LION], "a man in a car", "a man in a car"),
        ([LION, POODLE], "a cat sleeps", "a cat sleeps"),  # one or the other
        ([LION], "a giraffe by a tree", "a lion by a tree"),  # no class of ImageNet's
        ([WOK], "a dog sleeps", "a dog sleeps"),
    ],
)
def test_a_caption_is_put_right_where_the_classifier_is_sure(classifier, classes, before, after):
    [[found, untouched]] = classifier.correct(photo_of(*classes), [[caption(before), caption("a picture")]])
    assert found.text == after
    assert untouched == caption("a picture")
    assert " ".join(word for word, _ in found.words) == f"{after} <end>"
    assert found.words[-1] == ("<end>", 0.5)
    assert (found.log_prob, found.fit, found.familiarity) == (log(0.5), 0.25, 0.75)
    if before != after:
        new = [chance for word, chance in found.words if word not in [*before.split(), "a", "an", "<end>"]]
        assert new and new == pytest.approx([1] * len(new), abs=1e-3)


def test_what_may_be_there_as_well_stays():
    likely = np.zeros(len(THINGS), np.float32)
    likely[[LINES["lion"], LINES["dog"]]] = 0.75, 0.2
    assert correct_caption(caption("a dog and a cat"), likely).text == "a dog and a lion"


def test_each_word_keeps_its_attention_weights_and_new_ones_have_those_of_the_old(classifier):
    weights = np.eye(6, 4, dtype=np.float32)
    attended = replace(caption("a pizza on a table"), attention=weights)
    [[found]] = classifier.correct(photo_of(934), [[attended]])
    assert found.text == "a hot dog on a table"
    np.testing.assert_array_equal(found.attention, weights[[0, 1, 1, 2, 3, 4, 5]])
    [[untouched]] = classifier.correct(photo_of(WOK), [[attended]])
    assert untouched is attended
