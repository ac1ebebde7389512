"""Tests of caption_generator.evaluate."""

# ruff: noqa: RUF001 - captions of other languages have letters that look like English ones

import gc
import os
import shutil

import numpy as np
import pytest

from caption_generator import evaluate
from caption_generator.captions import clean_caption, read_captions
from caption_generator.common.errors import CaptionError
from caption_generator.evaluate import has_java, score

REFERENCES = {
    "dog.jpg": ["A brown dog runs over the grass .", "The dog plays outside ."],
    "cat.jpg": ["A small cat sleeps on a red chair .", "Somebody's cat isn't awake ."],
    "bird.jpg": ["Two black birds sit on the wet roof .", "Birds on a house ."],
}
PERFECT = {
    "dog.jpg": "a brown dog runs over the grass",
    "cat.jpg": "a small cat sleeps on a red chair",
    "bird.jpg": "two black birds sit on the wet roof",
}
needs_java = pytest.mark.skipif(not has_java(), reason="METEOR and the Penn Treebank tokenizer are Java programs")


@pytest.fixture
def no_java(monkeypatch):
    monkeypatch.setattr(evaluate, "has_java", lambda: False)


def test_without_java_meteor_is_missing_and_the_tokenizer_is_named(no_java):
    scores = score(PERFECT, REFERENCES)
    assert list(scores.corpus) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert scores.tokenizer == "regular expression (no Java)"


def test_the_words_of_a_human_score_a_hundred(no_java):
    scores = score(PERFECT, REFERENCES)
    for measure in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"):
        assert scores.corpus[measure] == pytest.approx(100, abs=1e-3)
        assert scores.by_image[measure] == pytest.approx([100] * 3, abs=1e-3)
    assert scores.corpus["CIDEr"] > 300
    assert scores.images == list(PERFECT)


def test_scores_are_those_computed_by_hand(no_java):
    # 6 of 7 words and 4 of 6 pairs of words are the reference's, and the lengths are equal.
    scores = score({"dog.jpg": "a brown cat runs over the grass"}, {"dog.jpg": ["A brown dog runs over the grass."]})
    assert scores.corpus["BLEU-1"] == pytest.approx(100 * 6 / 7, abs=1e-3)
    assert scores.corpus["BLEU-2"] == pytest.approx(100 * (6 / 7 * 4 / 6) ** 0.5, abs=1e-3)
    # The longest common subsequence has 6 words of both sentences' 7.
    assert scores.corpus["ROUGE-L"] == pytest.approx(100 * 6 / 7, abs=1e-3)


def test_short_captions_pay_the_brevity_penalty(no_java):
    scores = score({"dog.jpg": "a brown dog"}, {"dog.jpg": ["A brown dog runs over the grass."]})
    assert scores.corpus["BLEU-1"] == pytest.approx(100 * np.exp(1 - 7 / 3), abs=1e-3)


def test_a_wrong_caption_scores_less_than_a_right_one(no_java):
    swapped = dict(zip(PERFECT, [PERFECT["cat.jpg"], PERFECT["bird.jpg"], PERFECT["dog.jpg"]], strict=True))
    wrong, right = score(swapped, REFERENCES), score(PERFECT, REFERENCES)
    for measure, value in wrong.corpus.items():
        assert value < 0.6 * right.corpus[measure], measure
        assert wrong.by_image[measure].shape == (3,)


def test_an_empty_caption_is_scored_as_nothing(no_java):
    scores = score(PERFECT | {"cat.jpg": ""}, REFERENCES)
    assert scores.by_image["ROUGE-L"] == pytest.approx([100, 0, 100], abs=1e-3)
    assert 0 < scores.corpus["BLEU-4"] < 100


@needs_java
def test_with_java_the_penn_treebank_and_meteor_take_part():
    scores = score(PERFECT | {"cat.jpg": ""}, REFERENCES)
    assert scores.tokenizer == "PTB"
    assert list(scores.corpus)[4:] == ["METEOR", "ROUGE-L", "CIDEr"]
    assert scores.by_image["METEOR"] == pytest.approx([100, 0, 100], abs=1e-3)
    assert 50 < scores.corpus["METEOR"] < 100
    assert scores.by_image["BLEU-4"][0] == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    ("raw", "tokens"),
    [
        ("A dog , running .", "a dog running"),
        ("The boy's ball isn't \"here\"!", "the boy 's ball is n't here"),
        ("A black-and-white dog ; it barks...", "a black-and-white dog it barks"),
        ("", ""),
    ],
)
def test_plain_tokens_are_the_penn_treebanks(raw, tokens):
    assert evaluate._plain({"x": [raw]}) == {"x": [tokens]}
    if has_java() and raw:
        assert evaluate._ptb({"x": [raw]}) == {"x": [tokens]}


@needs_java
def test_plain_tokens_of_real_captions_are_nearly_always_the_penn_treebanks(shared):
    captions = read_captions(shared / "flickr8k" / "Flickr8k_text" / "Flickr8k.token.txt").captions
    chosen = {name: captions[name] for name in sorted(captions)[::40]}
    plain, ptb = evaluate._plain(chosen), evaluate._ptb(chosen)
    pairs = [pair for name in chosen for pair in zip(plain[name], ptb[name], strict=True)]
    assert len(pairs) >= 800
    different = [pair for pair in pairs if pair[0] != pair[1]]
    assert len(different) <= 0.005 * len(pairs), different


@pytest.mark.parametrize("java", [False, pytest.param(True, marks=needs_java)])
def test_a_character_that_ends_lines_moves_no_reference_to_another_photo(monkeypatch, java):
    monkeypatch.setattr(evaluate, "has_java", lambda: java)
    monkeypatch.setattr(evaluate, "_meteor", lambda _, found: (0.0, [0.0] * len(found)))  # it takes long
    odd = ["\u2028", "\u2029", "\x0b", "\x0c", "\r", "\x85", "\n", "\x1c", "\r\n", "\x00", "\ud800", "\ufeff"]
    references = {
        str(n): [f"A {sign}brown dog{sign} runs {n} .{sign}", f"{sign}It plays ."] for n, sign in enumerate(odd)
    }
    scores = score({str(n): f"a brown dog runs {n}" for n in range(len(odd))}, references)
    assert scores.by_image["ROUGE-L"] == pytest.approx([100] * len(odd), abs=1e-3)
    assert scores.corpus["BLEU-4"] == pytest.approx(100, abs=1e-3)


@pytest.mark.parametrize(
    "change", [lambda lines: lines[1:], lambda lines: ["one more", *lines], lambda lines: lines[:-1]]
)
def test_a_tokenizer_that_loses_count_gives_no_score(monkeypatch, change):
    def tokenize(_, captions):
        lines = change([entry["caption"] for group in captions.values() for entry in group])
        owners = [name for name, group in captions.items() for _ in group]
        found = {}
        for name, line in zip(owners, lines, strict=False):
            found.setdefault(name, []).append(line)
        return found

    monkeypatch.setattr(evaluate, "has_java", lambda: True)
    monkeypatch.setattr(evaluate.PTBTokenizer, "tokenize", tokenize)
    with pytest.raises(CaptionError, match=r"other lines than it got, from (dog|bird)\.jpg on"):
        score(PERFECT, REFERENCES)


LANGUAGES = {
    "Hindi": "एक कुत्ता घास पर बैठे हैं ।",
    "German, decomposed": "Ein Ma\u0308dchen la\u0308uft u\u0308ber die Straße .",
    "French": "Un chien court sur l'herbe, qu’il n'a pas vue aujourd'hui .",
    "Italian": "L'uomo guarda l'acqua dell'isola .",
    "Spanish": "¿Qué hace el niño? ¡Corre por el agua!",
    "Ukrainian": "Дев'ять собак біжать по траві .",
    "Persian": "سگ در آب می\u200cدود، تند .",
    "Hebrew": "כלב רץ בבית־ספר של צה״ל .",
    "Turkish": "İstanbul'da bir köpek koşuyor .",
    "Chinese, in words": "两 只 狗 在 水里 奔跑 。",
    "Vietnamese": "một con chó đang chạy trên cỏ .",
    "Korean": "고양이가 의자에서 잔다 .",
    "Tamil": "ஒரு நாய் புல் மீது ஓடுகிறது .",
}


@pytest.mark.parametrize("java", [False, pytest.param(True, marks=needs_java)])
def test_a_perfect_caption_scores_a_hundred_in_any_language_with_spaces(monkeypatch, java):
    monkeypatch.setattr(evaluate, "has_java", lambda: java)
    monkeypatch.setattr(evaluate, "_meteor", lambda _, found: (0.0, [0.0] * len(found)))  # it takes long
    references = {name: [text, "x y z"] for name, text in LANGUAGES.items()}
    scores = score({name: clean_caption(text) for name, text in LANGUAGES.items()}, references)
    rouge = dict(zip(scores.images, scores.by_image["ROUGE-L"], strict=True))
    assert rouge == pytest.approx(dict.fromkeys(LANGUAGES, 100), abs=1e-3)
    bleu = dict(zip(scores.images, scores.by_image["BLEU-1"], strict=True))
    assert bleu == pytest.approx(dict.fromkeys(LANGUAGES, 100), abs=1e-3)


REAL = shutil.which("java")
JAVAS = {  # what `java` does, and what then is known
    "cannot have 2 GB": (
        f'case "$*" in *Xmx2G*) echo "Could not reserve enough space for 2097152KB object heap"; '
        f'echo "Could not reserve enough space for the heap" >&2; exit 1;; esac\nexec {REAL} "$@"',
        "PTB",
        "Could not reserve enough space",
    ),
    "only answers -version": (
        "exit 0",
        "regular expression (Java does not run the Penn Treebank's)",
        "it said nothing",
    ),
    "fails at all but -version": (
        '[ "$1" = -version ] && exit 0\necho "Unable to access jarfile" >&2; exit 1',
        "regular expression (Java does not run the Penn Treebank's)",
        "Unable to access jarfile",
    ),
    "says no numbers": (
        'case "$*" in *Xmx2G*) while read -r line; do echo "no number"; done;; esac',
        "regular expression (Java does not run the Penn Treebank's)",
        "without a result",
    ),
    "fails": ("exit 1", "regular expression (no Java)", "there is no Java"),
}


@pytest.mark.parametrize("what", JAVAS)
@pytest.mark.filterwarnings("error")
def test_where_java_fails_meteor_is_left_out_by_name_and_the_rest_is_given(tmp_path, monkeypatch, capfd, what):
    script, tokenizer, reason = JAVAS[what]
    if REAL is None and tokenizer == "PTB":
        pytest.skip("there is no Java to be wrapped")
    (tmp_path / "java").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    has_java.cache_clear()
    try:
        scores = score(PERFECT, REFERENCES)
        gc.collect()  # the wrapper's destructor must neither wait nor complain
    finally:
        has_java.cache_clear()
    assert list(scores.corpus) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
    assert scores.corpus["BLEU-4"] == pytest.approx(100, abs=1e-3)
    assert scores.tokenizer == tokenizer
    assert list(scores.left_out) == ["METEOR"] and reason in scores.left_out["METEOR"]
    assert capfd.readouterr().err == ""


def test_a_java_that_never_answers_is_ended(tmp_path, monkeypatch):
    (tmp_path / "java").write_text(
        '#!/bin/sh\n[ "$1" = -version ] && exit 0\n[ "$1" = -cp ] && exit 0\nexec sleep 100\n'
    )
    (tmp_path / "java").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(evaluate, "METEOR_SECONDS", (0.5, 0))
    has_java.cache_clear()
    try:
        scores = score(PERFECT, REFERENCES)
    finally:
        has_java.cache_clear()
    assert "METEOR" in scores.left_out and "CIDEr" in scores.corpus


def test_a_package_folder_that_cannot_be_written_to_costs_the_penn_treebank_alone(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(evaluate.PTBTokenizer, "tokenize", refuse)
    monkeypatch.setattr(evaluate, "has_java", lambda: True)
    monkeypatch.setattr(evaluate, "_meteor", lambda _, found: (0.0, [0.0] * len(found)))
    scores = score(PERFECT, REFERENCES)
    assert scores.tokenizer == "regular expression (the Penn Treebank's does not run, Permission denied)"
    assert scores.left_out == {} and "METEOR" in scores.corpus


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        (PERFECT | {"new.jpg": "a dog"}, r"1 of 4 captions have no references, new\.jpg"),
        (PERFECT | {"empty.jpg": "a dog"}, r"1 of 4 .*empty\.jpg"),
        ({}, "0 of 0 captions"),
    ],
)
def test_captions_without_references_are_named(candidates, message):
    with pytest.raises(CaptionError, match=message):
        score(candidates, REFERENCES | {"empty.jpg": []})


def test_diversity_counts_captions_and_words():
    found = evaluate.diversity(["a dog runs", "a dog runs", "two dogs"])
    assert (found.captions, found.distinct, found.vocabulary) == (3, 2, 5)
    assert found.words == pytest.approx(8 / 3)


def test_word_rates_count_captions_and_not_occurrences():
    rates = evaluate.word_rates(["a dog and a dog", "a cat", "two cats", "a bird"])
    assert rates["a"] == 75
    assert rates["dog"] == 25
    assert next(iter(rates)) == "a"


def test_scores_by_length_group_each_image_by_its_own_caption(no_java):
    scores = score(PERFECT | {"cat.jpg": "a dog"}, REFERENCES)
    groups = evaluate.scores_by_length(PERFECT | {"cat.jpg": "a dog"}, scores)
    assert list(groups) == [2, 7, 8]
    assert groups[2].tolist() == [scores.by_image["CIDEr"][1]]
    assert groups[7].tolist() == [scores.by_image["CIDEr"][0]]


@pytest.mark.parametrize(
    ("candidate", "invented", "missed", "repeated"),
    [
        ("a brown dog runs", [], [], []),
        ("a brown cat runs", ["cat"], ["dog"], []),
        ("a dog and a dog on the grass", [], ["brown"], ["dog"]),
        ("", [], ["brown", "dog"], []),
    ],
)
def test_mistakes_are_named(candidate, invented, missed, repeated):
    references = ["a brown dog runs", "a brown dog on the grass", "the dog is out", "some brown dog in the sun"]
    found = evaluate.find_mistakes(candidate, references)
    assert (found.invented, sorted(found.missed), found.repeated) == (invented, missed, repeated)


def test_mistakes_are_a_line_to_read():
    assert str(evaluate.Mistakes(["cat"], [], ["red", "hat"])) == "invented: cat; repeated: red, hat"
    assert str(evaluate.Mistakes([], [], [])) == "only in how it is said"


@pytest.mark.parametrize(
    ("candidate", "references", "right"),
    [
        ("a dog sleeps", ["a dog sleeps", "two dogs", "the dog"], True),
        ("a dog sleeps", ["a dog sleeps", "two dogs", "a cat"], False),  # one person alone
        ("two dogs sleep", ["a dog", "the dog"], False),  # not so many
        ("a man sleeps", ["a man and a cat", "the man"], True),
        ("it sleeps on the red", ["it sleeps on the red"] * 5, False),  # no thing
        ("a pizza", ["a pizza on a table"], True),  # all who told of the photo
    ],
)
def test_a_caption_names_a_thing_that_people_named(candidate, references, right):
    assert evaluate.names_a_thing(candidate, references) == right


def test_the_area_under_the_curve_is_how_often_a_right_caption_has_the_higher_score():
    assert evaluate.area_under_curve([0.9, 0.8, 0.1], [True, True, False]) == 1
    assert evaluate.area_under_curve([0.1, 0.9], [True, False]) == 0
    assert evaluate.area_under_curve([0.5, 0.5, 0.5], [True, False, True]) == 0.5
    assert evaluate.area_under_curve([0.2, 0.4, 0.6, 0.8], [False, True, False, True]) == 0.75
    with pytest.raises(CaptionError, match="right and wrong"):
        evaluate.area_under_curve([0.5, 0.6], [True, True])


def test_chair_counts_objects_that_nobody_names():
    references = {"a": ["a woman walks her puppy", "a lady with a dog"], "b": ["a red bus"], "c": ["two cats"]}
    found = {"a": "a man with a dog and a frisbee", "b": "a bus on a street", "c": "a kitten"}
    # man, dog, frisbee; bus, street; kitten. A person may be called by another word, and so may a cat.
    assert evaluate.chair(found, references) == pytest.approx({"CHAIRi": 100 * 2 / 6, "CHAIRs": 100 * 2 / 3})
    assert evaluate.chair({}, references) == {"CHAIRi": 0, "CHAIRs": 0}
