"""Tests of caption_generator.inference.word_detector."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from caption_generator.inference.word_detector import DOUBT, RIDGE, WEIGHT, WordDetector, object_tokens
from caption_generator.search import Caption
from caption_generator.tokenizer import END, START, UNKNOWN, Tokenizer

TOKENIZER = Tokenizer(["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "cat", "car", "never"], 8)
A, DOG, CAT, CAR, NEVER = range(4, 9)
THINGS = (DOG, CAT, CAR)


def draw_photos(seed: int, photos: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Features, of which the first three tell what there is to see, and whether there is each of `THINGS`."""
    random = np.random.default_rng(seed)
    seen = random.random((photos, 3)) < (0.5, 0.3, 0.1)
    features = random.normal(3, 0.1, (photos, 6))
    features[:, :3] += 2 * seen
    return features, seen


def caption_photos(seen: np.ndarray) -> list[list[np.ndarray]]:
    """Two captions each: one of everything, the other of nothing at all."""
    everything = [[word for word, there in zip(THINGS, row, strict=True) if there] for row in seen]
    return [[np.array([START, A, *words, END]), np.array([START, A, UNKNOWN, END])] for words in everything]


@pytest.fixture(scope="module")
def detector() -> WordDetector:
    features, seen = draw_photos(0)
    return WordDetector.fit(features, caption_photos(seen), len(TOKENIZER), fewest=1)


def test_it_detects_in_new_photos_what_is_there(detector):
    features, seen = draw_photos(1)
    likely = detector(features)
    assert likely.shape == (120, len(TOKENIZER))
    for thing, word in enumerate(THINGS):
        assert likely[seen[:, thing], word].min() > likely[~seen[:, thing], word].max() + 0.1
    np.testing.assert_allclose(likely[:, A], 1, atol=1e-6)  # people say it of every photo
    np.testing.assert_array_equal(likely[:, [0, START, END, UNKNOWN, NEVER]], 0)


def test_document_frequencies_are_of_photos_and_not_of_captions(detector):
    _, seen = draw_photos(0)
    np.testing.assert_allclose(detector.document_frequency[list(THINGS)], seen.mean(axis=0), rtol=1e-6)
    assert detector.document_frequency[A] == pytest.approx(1)


def test_a_word_of_few_photos_is_not_learned():
    features, seen = draw_photos(0)
    rare = int(seen[:, 2].sum()) + 1
    assert seen[:, 1].sum() > rare
    detector = WordDetector.fit(features, caption_photos(seen), len(TOKENIZER), fewest=rare)
    likely = detector(draw_photos(1)[0])
    np.testing.assert_allclose(likely[:, CAR], seen[:, 2].mean(), rtol=1e-6)
    assert np.ptp(likely[:, CAT]) > 0.5


def test_the_threshold_is_learned_on_photos_that_the_regression_has_not_seen():
    """As if the regression had been made anew for each photo, without it."""
    features, seen = draw_photos(2, 40)
    captions = caption_photos(seen)
    detector = WordDetector.fit(features, captions, len(TOKENIZER), fewest=1)
    photos = features / np.linalg.norm(features, axis=1, keepdims=True) - detector.mean
    said = np.zeros((40, len(TOKENIZER)))
    said[:, A] = 1
    said[:, list(THINGS)] = seen
    fits = []
    for photo, (telling, _) in enumerate(captions):
        others = np.arange(40) != photo
        x, y = photos[others], said[others] - detector.document_frequency
        weights = np.linalg.solve(x.T @ x + RIDGE * np.eye(6), x.T @ y)
        words = telling[1:-1]
        rarity = -np.log(detector.document_frequency[words])
        likely = detector.document_frequency[words] + photos[photo] @ weights[:, words]
        fits += [(rarity**2 * likely).sum() / max(np.sqrt((rarity**2).sum()), 1e-9), 0.0]
    assert detector.threshold == pytest.approx(np.quantile(fits, 0.95), rel=1e-3)


def test_only_the_direction_of_features_counts_and_a_grid_by_its_mean(detector):
    features, _ = draw_photos(3, 10)
    grids = np.random.default_rng(0).normal(0, 1, (10, 2, 3, 6))
    grids += features[:, None, None] - grids.mean(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(detector(7 * grids), detector(features), atol=1e-6)


def test_a_photo_predicts_what_is_there_and_rare_elsewhere(detector):
    found = detector.predicted_words(photo_with(DOG, CAR)[0], TOKENIZER, top=3)
    assert list(found)[:2] == ["car", "dog"]
    assert len(found) == 3
    assert found["car"] == pytest.approx(detector(photo_with(DOG, CAR))[0, CAR])


def captions_of(*texts: str, score: float = 0.4) -> list[Caption]:
    return [Caption(text, (), log(score)) for text in texts]


def photo_with(*things: int) -> np.ndarray:
    features = np.full((1, 6), 3.0)
    features[0, [THINGS.index(thing) for thing in things]] += 2
    return features


@pytest.mark.parametrize(("there", "first"), [(DOG, "a dog"), (CAT, "a cat"), (CAR, "a car")])
def test_of_equally_likely_captions_the_one_that_fits_is_first(detector, there, first):
    [ranked] = detector.rank(photo_with(there), [captions_of("a dog", "a cat", "a car")], TOKENIZER)
    assert ranked[0].text == first
    assert sorted(caption.text for caption in ranked) == ["a car", "a cat", "a dog"]
    scores = [caption.score for caption in ranked]
    assert scores == sorted(scores, reverse=True)


def test_captions_that_are_equal_in_all_keep_their_order(detector):
    [ranked] = detector.rank(photo_with(DOG), [captions_of("a dog", "dog a", "dog")], TOKENIZER)
    assert [caption.text for caption in ranked] == ["a dog", "dog a", "dog"]


def test_a_much_likelier_caption_stays_first(detector):
    found = [*captions_of("a dog", score=0.9), *captions_of("a cat", score=0.1)]
    [ranked] = detector.rank(photo_with(CAT), [found], TOKENIZER)
    assert [caption.text for caption in ranked] == ["a dog", "a cat"]


def test_the_score_says_how_well_the_words_fit(detector):
    photo = photo_with(CAT)
    [[caption]] = detector.rank(photo, [captions_of("a cat cat")], TOKENIZER)  # said twice, it counts once
    rarity = -np.log(detector.document_frequency[[A, CAT]])
    fit = rarity**2 @ detector(photo)[0, [A, CAT]] / np.linalg.norm(rarity)
    doubt = 1 - min(1, detector(photo)[0, CAT])
    expected = 0.4 * np.exp(WEIGHT * (fit - detector.threshold) - DOUBT * doubt)
    assert caption.score == pytest.approx(expected, rel=1e-5)
    [[wrong]] = detector.rank(photo, [captions_of("a car")], TOKENIZER)
    assert wrong.score < caption.score


def test_the_names_of_one_object_count_together():
    """Half of the people say "dog" and half "puppy": there is a dog all the same."""
    words = Tokenizer(["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "puppy", "car", "red"], 8)
    objects = object_tokens(tuple(words.words))
    assert {number: list(group) for number, group in objects.items()} == {5: [5, 6], 6: [5, 6], 7: [7]}
    frequency = np.array([0, 0, 0, 0, 1, 0.5, 0.5, 0.25, 0.25], "f")
    detector = WordDetector(np.zeros(6, "f"), np.zeros((9, 6), "f"), frequency, threshold=0.0)
    [ranked] = detector.rank(np.ones((1, 6)), [captions_of("a dog", "a car", "a red", "a puppy car")], words)
    fits = {caption.text: caption.fit for caption in ranked}
    plain = {
        text: WEIGHT * detector._word_fit(tokens, frequency[tokens])
        for text, tokens in (
            ("a dog", np.array([4, 5])),
            ("a car", np.array([4, 7])),
            ("a red", np.array([4, 8])),
            ("a puppy car", np.array([4, 6, 7])),
        )
    }
    doubts = {"a dog": 0, "a car": 0.75, "a red": 0, "a puppy car": 0.375}
    assert fits == pytest.approx({text: plain[text] - DOUBT * doubts[text] for text in plain})


def test_no_score_is_above_1(detector):
    easily = replace(detector, threshold=0.2)
    [ranked] = easily.rank(photo_with(CAT), [captions_of("a cat", "a dog", score=0.99)], TOKENIZER)
    assert ranked[0].text == "a cat"
    assert ranked[0].score == 1
    assert ranked[1].score < 1


@pytest.mark.parametrize("text", ["", "a", "elephant", "never"])
def test_captions_without_a_telling_word_have_a_score_all_the_same(detector, text):
    [[caption]] = detector.rank(photo_with(DOG), [captions_of(text)], TOKENIZER)
    assert caption.text == text
    assert 0 < caption.score < 0.4


def test_each_photo_has_its_own_captions(detector):
    features = np.concatenate([photo_with(DOG), photo_with(CAT)])
    together = detector.rank(features, [captions_of("a dog", "a cat")] * 2, TOKENIZER)
    apart = [detector.rank(photo[None], [captions_of("a dog", "a cat")], TOKENIZER)[0] for photo in features]
    assert [[c.text for c in found] for found in together] == [["a dog", "a cat"], ["a cat", "a dog"]]
    assert together == apart
