"""What holds for any text: reading, cleaning and counting captions never fails, and loses nothing on the way."""

import csv
import io
import json
import string
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caption_generator.caption_files import match_names, read_captions, tidy
from caption_generator.captions import clean_caption, load_descriptions, save_descriptions, spell_out
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.tokenizer import SPECIAL_TOKENS, UNFIT, UNKNOWN, Tokenizer

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
any_text = st.text(st.characters(codec=None), max_size=60)  # surrogates and control characters, too
letters = st.text(string.ascii_lowercase + "äéßñžабвअआ", min_size=1, max_size=8)
captions = st.lists(letters, min_size=1, max_size=6).map(" ".join)
names = st.from_regex(r"[a-z0-9_]{1,12}\.jpg", fullmatch=True)
tables = st.dictionaries(names, st.lists(captions, min_size=1, max_size=3), min_size=1, max_size=5)


@few
@given(any_text)
def test_tidying_and_cleaning_twice_changes_nothing_more(text):
    for step in (tidy, clean_caption, spell_out):
        once = step(text)
        assert step(once) == once
        assert once == " ".join(once.split())


@few
@given(any_text)
def test_a_clean_word_can_be_kept_in_a_vocabulary(text):
    words = list(dict.fromkeys(clean_caption(text).split()))
    assert not any(map(UNFIT.search, words))
    vocabulary = {"words": [*SPECIAL_TOKENS, *words], "max_length": 5}
    assert Tokenizer.from_dict(json.loads(json.dumps(vocabulary))).words == vocabulary["words"]


@few
@given(st.lists(captions, min_size=1, max_size=8))
def test_what_is_encoded_is_decoded_again(texts):
    tokenizer = Tokenizer.fit(texts, min_count=1)
    for text in texts:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens[1:]) == text
        assert UNKNOWN not in tokens
    assert Tokenizer.from_dict(tokenizer.to_dict()).to_dict() == tokenizer.to_dict()


@few
@given(st.lists(captions, min_size=1, max_size=8), any_text)
def test_any_text_has_tokens_and_any_tokens_have_text(texts, other):
    tokenizer = Tokenizer.fit(texts, min_count=1)
    tokens = tokenizer.encode(other)
    assert tokens.min() >= 0 and tokens.max() < len(tokenizer)
    assert tokenizer.encode(tokenizer.decode(tokens[1:])).size <= tokens.size


@few
@given(tables)
def test_descriptions_come_back(tmp_path, table):
    save_descriptions(table, tmp_path / "descriptions.txt")
    assert load_descriptions(tmp_path / "descriptions.txt") == table


def flickr(table: dict[str, list[str]]) -> str:
    return "".join(f"{name}#{n}\t{text}\n" for name, group in table.items() for n, text in enumerate(group))


def comma_separated(table: dict[str, list[str]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([("image", "caption"), *((name, text) for name in table for text in table[name])])
    return file.getvalue()


def coco(table: dict[str, list[str]]) -> str:
    numbers = {name: number for number, name in enumerate(table)}
    notes = [{"image_id": numbers[name], "caption": text} for name in table for text in table[name]]
    return json.dumps({"images": [{"id": n, "file_name": name} for name, n in numbers.items()], "annotations": notes})


@pytest.mark.parametrize(
    ("name", "form"),
    [("Flickr8k.token.txt", flickr), ("captions.csv", comma_separated), ("captions.json", coco)],
)
@few
@given(table=tables)
def test_every_form_of_captions_holds_the_same(tmp_path, table, name: str, form: Callable[[dict], str]):
    path = tmp_path / name
    path.write_bytes(form(table).encode())
    expected = {image: [tidy(text) for text in group] for image, group in table.items()}
    assert read_captions(path).captions == expected


@pytest.mark.parametrize("name", ["captions.txt", "captions.csv", "captions.json"])
@few
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()))
def test_any_file_is_read_or_refused_with_one_sentence(tmp_path, name, content):
    path = Path(tmp_path, name)
    path.write_bytes(content)
    for read in (read_captions, load_descriptions):
        try:
            found = read(path)
        except CaptionError as error:
            assert name in str(error)
        else:
            assert getattr(found, "captions", found)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["images", "annotations", "id", "image_id", "caption", "a.jpg"]), inner)
    ),
    max_leaves=12,
)


@few
@given(json_values)
def test_any_json_is_read_or_refused_with_one_sentence(tmp_path, value):
    path = Path(tmp_path, "captions.json")
    path.write_text(json.dumps(value))
    try:
        assert read_captions(path).captions
    except CaptionError as error:
        assert "captions.json" in str(error)


@few
@given(st.lists(any_text, max_size=6), st.lists(any_text, max_size=6))
def test_a_name_means_a_file_that_is_there(wanted, there):
    found = match_names(wanted, there)
    assert set(found) <= set(wanted) and set(found.values()) <= set(there)
    assert all(found[name] == name for name in wanted if name in there)


@few
@given(any_text)
def test_what_is_quoted_is_printable(text):
    assert first_line(ValueError(text)).isprintable()


@few
@given(json_values)
def test_any_vocabulary_is_taken_or_refused(value):
    for words in (value, [*SPECIAL_TOKENS, value]):
        try:
            tokenizer = Tokenizer.from_dict({"words": words, "max_length": 5})
        except ValueError:
            continue
        assert all(type(word) is str for word in tokenizer.words)
