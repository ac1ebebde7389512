"""Tests of caption_generator.rewards, against the code of the COCO challenge and against sums done by hand."""

from math import exp

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from caption_generator.finetuning.rewards import Reward, ngrams

END = "<end>"
REFERENCES = {
    "dog.jpg": ["a dog runs over the grass", "the brown dog runs", "a brown dog is running over green grass"],
    "man.jpg": ["a man sits on a bench", "an old man is sitting on a wooden bench in the park"],
    "girls.jpg": ["two girls play in the water", "two girls in red play", "girls are playing in the blue water"],
    "empty.jpg": ["a street at night"],
}
CANDIDATES = {
    "dog.jpg": "a brown dog runs over the grass",
    "man.jpg": "a man is sitting on a bench on a bench",  # says a phrase twice
    "girls.jpg": "a dog",
    "empty.jpg": "zebra",
}


def random_captions(images: int, each: int, longest: int, seed: int) -> dict[str, list[str]]:
    """Of so few words that runs of four repeat."""
    random = np.random.default_rng(seed)
    return {
        f"{image}.jpg": [
            " ".join(f"w{word}" for word in random.integers(5, size=random.integers(1, longest + 1)))
            for _ in range(each)
        ]
        for image in range(images)
    }


def ended(captions: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: [f"{caption} {END}" for caption in group] for name, group in captions.items()}


@pytest.mark.parametrize(
    ("references", "candidates"),
    [
        (REFERENCES, {name: [caption] for name, caption in CANDIDATES.items()}),
        (random_captions(30, 5, 12, seed=0), random_captions(30, 1, 12, seed=1)),
    ],
    ids=["sentences", "random"],
)
def test_without_bleu_it_is_the_cider_of_the_coco_challenge(references, candidates):
    reward = Reward(references, bleu=0)
    found = [reward(image, [*caption.split(), END]) for image, (caption,) in enumerate(candidates.values())]
    _, expected = Cider().compute_score(ended(references), ended(candidates))
    assert np.count_nonzero(expected > 0.1) > 0.4 * len(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_caption_that_was_cut_off_is_compared_without_an_end():
    reward = Reward(REFERENCES, bleu=0)
    found = [reward(image, caption.split()) for image, caption in enumerate(CANDIDATES.values())]
    without_end = {name: [caption] for name, caption in CANDIDATES.items()}
    _, expected = Cider().compute_score(ended(REFERENCES), without_end)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("references", "caption", "expected"),
    [
        # 3 of 4 words, 1 of 3 pairs, no runs of 3 and 4, which are 2 and 1; the reference is a word longer.
        (["a b c d"], ["a", "b", "x", END], exp(1 - 5 / 4) * (3 / 4 * 2 / 4 * 1 / 3 * 1 / 2) ** (1 / 4)),
        # References of 3 and 5 words are equally near to 4: the shorter counts, and nothing is taken off.
        (["a b", "a b c d"], ["a", "b", "c", END], (4 / 4 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4)),
        # No more hits than the reference has: "a" twice, since one reference says it twice, and "a a" once.
        (["a a b", "a c"], ["a", "a", "a"], (2 / 3 * 2 / 3 * 1 / 2 * 1 / 1) ** (1 / 4)),
        (["a b c d"], ["a", "b", "c", "d", END], 1.0),
        (["a b c d"], ["x", "y"], 0.0),
        (["a b c d"], [], 0.0),
    ],
    ids=["shorter", "two lengths", "repeated", "the same", "nothing in common", "no word"],
)
def test_bleu_is_what_comes_out_by_hand(references, caption, expected):
    reward = Reward({"other.jpg": ["x y z"], "x.jpg": references})
    assert reward.bleu_4(1, ngrams(caption)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_reward_is_cider_and_a_share_of_bleu(share):
    words = [*CANDIDATES["dog.jpg"].split(), END]
    reward = Reward(REFERENCES, bleu=share)
    cider, bleu = reward.cider_d(0, ngrams(words)), reward.bleu_4(0, ngrams(words))
    assert cider > 1 and 0.3 < bleu < 1
    assert reward(0, words) == pytest.approx(cider + share * bleu, rel=1e-12)


def test_each_object_that_no_reference_names_costs_something():
    plain, strict = Reward(REFERENCES), Reward(REFERENCES, hallucination=0.5)
    for caption, invented in [
        ("a brown dog runs over the grass", 0),
        ("a puppy runs", 0),  # a dog by another name
        ("a dog runs with a frisbee and a frisbee", 1),
        ("a man throws a frisbee", 2),
    ]:
        words = [*caption.split(), END]
        assert strict(0, words) == pytest.approx(plain(0, words) - 0.5 * invented)


@pytest.mark.parametrize("bleu", [0.0, 1.0])
def test_the_end_of_a_caption_is_worth_something(bleu):
    reward = Reward(REFERENCES, bleu)
    for image, group in enumerate(REFERENCES.values()):
        for caption in group:
            words = caption.split()
            assert reward(image, words) < reward(image, [*words, END])


@pytest.mark.parametrize("bleu", [0.0, 1.0])
def test_a_caption_that_stops_in_the_middle_of_a_phrase_gains_nothing(bleu):
    """Were the end no word, "a man sits on a" would lose hardly anything."""
    reward = Reward(REFERENCES, bleu)
    whole = [*REFERENCES["man.jpg"][0].split(), END]
    for length in range(1, len(whole) - 1):
        assert reward(1, whole[:length]) < reward(1, whole)
        assert reward(1, [*whole[:length], END]) < reward(1, whole)


def test_a_reference_is_worth_more_than_one_of_another_image():
    reward = Reward(REFERENCES)
    groups = [[[*caption.split(), END] for caption in group] for group in REFERENCES.values()]
    for image, own in enumerate(groups):
        worst = min(reward(image, words) for words in own)
        for other, group in enumerate(groups):
            if other != image:
                assert worst > max(reward(image, words) for words in group)


def test_words_that_tell_images_apart_weigh_most():
    reward = Reward({"0": ["a cat", "a cat"], "1": ["a dog", "a dog"], "2": ["a cow", "a cow"]}, bleu=0)
    assert reward(1, ["dog"]) > 1
    assert reward(1, ["a"]) == 0  # in every image


def test_a_single_image_has_no_cider_and_no_trouble():
    reward = Reward({"x.jpg": ["a dog runs"]})
    assert reward(0, ["a", "dog", "runs", END]) == pytest.approx(1)


def test_runs_of_one_to_four_words_are_counted():
    assert ngrams(["a", "b", "a", "b"]) == {
        ("a",): 2,
        ("b",): 2,
        ("a", "b"): 2,
        ("b", "a"): 1,
        ("a", "b", "a"): 1,
        ("b", "a", "b"): 1,
        ("a", "b", "a", "b"): 1,
    }
    assert not ngrams([])


@pytest.mark.parametrize(
    ("references", "caption", "expected"),
    [
        # Of 3 words 2 are right, and of the reference's 5 it has 2: more recall would have counted more.
        (["a b c d"], ["a", "b", "x"], (2 / 3 * 2 / 5) / (0.85 * 2 / 3 + 0.15 * 2 / 5)),
        (["a b c d", "a x"], ["a", "x", END], 1.0),  # the reference that is matched best
        (["a b"], ["a", "a", "a", END], (2 / 4 * 2 / 3) / (0.85 * 2 / 4 + 0.15 * 2 / 3)),  # a word counts once
        (["a b"], ["x"], 0.0),
        (["a b"], [], 0.0),
    ],
    ids=["shorter", "two references", "repeated", "nothing in common", "no word"],
)
def test_recall_is_the_f_score_of_words_by_hand(references, caption, expected):
    references = {"x.jpg": references}
    without, with_recall = Reward(references, bleu=0), Reward(references, bleu=0, recall=2)
    assert with_recall.f_score(0, ngrams(caption)) == pytest.approx(expected)
    assert with_recall(0, caption) == pytest.approx(without(0, caption) + 2 * expected)
