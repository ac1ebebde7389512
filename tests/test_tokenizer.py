"""Words become numbers and come back, the most frequent first, and `tokenizer.p` is plain data."""

import pickle

import numpy as np
import pytest

from caption_generator.common.errors import CaptionError
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer, fit_tokenizer

CAPTIONS = ["a dog runs", "a dog sits", "a cat runs past a dog"]


def test_words_are_numbered_by_frequency_and_then_by_the_alphabet():
    assert Tokenizer.fit(CAPTIONS, min_count=1).words == [
        *SPECIAL_TOKENS,
        "a",
        "dog",
        "runs",
        "cat",
        "past",
        "sits",
    ]


def test_numbers_do_not_depend_on_the_order_of_the_captions():
    assert Tokenizer.fit(CAPTIONS[::-1], 1).words == Tokenizer.fit(CAPTIONS, 1).words


@pytest.mark.parametrize(("min_count", "words"), [(2, ["a", "dog", "runs"]), (3, ["a", "dog"]), (4, ["a"])])
def test_rare_words_are_left_out(min_count, words):
    tokenizer = Tokenizer.fit(CAPTIONS, min_count)
    assert tokenizer.words[4:] == words
    assert len(tokenizer) == 4 + len(words)


def test_the_longest_caption_counts_all_its_words():
    assert Tokenizer.fit(CAPTIONS, min_count=4).max_length == 6


@pytest.mark.parametrize("captions", [[], [""], ["a dog", "a cat"]])
def test_captions_without_a_frequent_word_are_refused(captions):
    with pytest.raises(CaptionError, match=f"no word occurs 4 times in {len(captions)} captions.*min_count"):
        Tokenizer.fit(captions)


def test_a_caption_is_encoded_between_start_and_end():
    tokenizer = Tokenizer.fit(CAPTIONS, min_count=2)
    tokens = tokenizer.encode("a zebra runs")
    assert tokens.tolist() == [START, 4, UNKNOWN, 6, END]
    assert tokens.dtype == np.int32
    assert tokenizer.encode("").tolist() == [START, END]


@pytest.mark.parametrize("caption", [*CAPTIONS, ""])
def test_a_caption_of_known_words_comes_back(caption):
    tokenizer = Tokenizer.fit(CAPTIONS, min_count=1)
    assert tokenizer.decode(tokenizer.encode(caption)) == caption


def test_decoding_stops_at_the_end_and_says_no_special_token():
    tokenizer = Tokenizer.fit(CAPTIONS, min_count=1)
    assert tokenizer.decode([START, 4, UNKNOWN, PAD, 5, END, 6, 7]) == "a dog"
    assert tokenizer.decode(np.array([4, 5], np.int64)) == "a dog"  # without an end
    assert tokenizer.decode([]) == ""


def test_a_tokenizer_comes_back_from_its_file(tmp_path):
    tokenizer = Tokenizer.fit([*CAPTIONS, "caf\u00e9"], min_count=1)
    tokenizer.save(tmp_path / "tokenizer.p")
    loaded = Tokenizer.load(tmp_path / "tokenizer.p")
    assert loaded.to_dict() == tokenizer.to_dict()
    assert loaded.encode("a caf\u00e9").tolist() == tokenizer.encode("a caf\u00e9").tolist()
    with open(tmp_path / "tokenizer.p", "rb") as file:
        assert pickle.load(file) == {"words": tokenizer.words, "max_length": 6}


def test_the_fingerprint_tells_vocabularies_apart():
    words = [*SPECIAL_TOKENS, "a", "dog"]
    fingerprint = Tokenizer(words, 6).fingerprint
    assert Tokenizer(words, 6).fingerprint == fingerprint
    assert len(fingerprint) == 12
    others = [[*words, "cat"], words[:-1], [*SPECIAL_TOKENS, "dog", "a"], [*SPECIAL_TOKENS, "adog"]]
    assert len({fingerprint, *(Tokenizer(other, 6).fingerprint for other in others)}) == 5


@pytest.mark.parametrize(
    "value",
    [
        None,
        ["<pad>", "<start>", "<end>", "<unk>", "a"],
        {"words": ["a", "dog"], "max_length": 3},
        {"words": None, "max_length": 3},
        {"words": 7},
        {"words": [*SPECIAL_TOKENS, "a"]},
        {"dog": 1, "cat": 2},
        {"a.jpg": np.zeros(6, np.float32)},
    ],
)
def test_plain_data_of_another_kind_is_refused_with_the_way_out(tmp_path, value):
    (tmp_path / "tokenizer.p").write_bytes(pickle.dumps(value))
    with pytest.raises(CaptionError, match=r"tokenizer\.p does not hold this project's vocabulary.*notebook 3"):
        Tokenizer.load(tmp_path / "tokenizer.p")


def test_an_empty_tokenizer_p_is_refused(tmp_path):
    (tmp_path / "tokenizer.p").touch()
    with pytest.raises(CaptionError, match=r"tokenizer\.p does not hold"):
        Tokenizer.load(tmp_path / "tokenizer.p")


def test_a_missing_tokenizer_p_is_one_sentence(tmp_path):
    with pytest.raises(CaptionError, match=r"tokenizer\.p does not exist: run notebook 3"):
        Tokenizer.load(tmp_path / "tokenizer.p")


@pytest.mark.parametrize("name", ["Karan14-11_tokenizer.p", "akd15102091_tokenizer.p"])
def test_an_ancestors_tokenizer_is_refused_with_the_way_out(shared, name):
    with pytest.raises(CaptionError, match=f"{name}.*Tokenizer, which is not plain data.*make it again"):
        Tokenizer.load(shared / "ancestors" / name)


@pytest.mark.parametrize(("captions", "kept"), [(40, 1), (50, 2), (149, 3), (150, 4), (5000, 4)])
def test_few_captions_keep_rarer_words(captions, kept):
    words = [f"word{chr(97 + count)}" for count in range(1, 8) for _ in range(count)]
    train = {f"{n}.jpg": ["dog" if n >= len(words) else words[n]] for n in range(captions)}
    assert fit_tokenizer(train).words[-1] == f"word{chr(97 + kept)}"
