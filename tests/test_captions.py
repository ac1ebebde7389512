"""Raw captions of every shape that people have become clean ones, and the splits never overlap."""

from pathlib import Path

import pytest

from caption_generator.captions import (
    SPLIT_FILES,
    captions_fingerprint,
    clean_caption,
    clean_captions,
    compare_with_disk,
    load_descriptions,
    load_splits,
    read_captions,
    save_descriptions,
    subset,
)
from caption_generator.common.errors import CaptionError
from caption_generator.workspace import Workspace

TOKEN = "a.jpg#0\tA dog .\na.jpg#1\tTwo dogs\nb.jpg#0\tA cat\n"
CSV = "image,caption\na.jpg,A dog .\na.jpg,Two dogs\nb.jpg,A cat\n"
CAPTIONS = {"a.jpg": ["A dog .", "Two dogs"], "b.jpg": ["A cat"]}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "captions.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("text", [TOKEN, CSV], ids=["token", "csv"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: "\ufeff" + text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n\r\n"),
        lambda text: "\n  \n" + text.replace("\n", "\n\n \t \n"),
        lambda text: text.rstrip("\n"),
    ],
    ids=["plain", "byte-order mark", "CRLF", "all of Windows", "blank lines", "no last line end"],
)
def test_both_formats_are_read_whatever_wrote_them(tmp_path, text, change):
    raw = read_captions(written(tmp_path, change(text)))
    assert raw.captions == CAPTIONS
    assert (raw.duplicates, raw.malformed) == ([], [])


@pytest.mark.parametrize("header", ["image,caption", "Image,Caption", "image, caption"])
def test_a_csv_is_known_by_its_header_which_is_no_caption(tmp_path, header):
    raw = read_captions(written(tmp_path, f"{header}\na.jpg,A dog\n"))
    assert raw.captions == {"a.jpg": ["A dog"]}


@pytest.mark.parametrize(
    ("row", "caption"),
    [
        ('a.jpg,"A dog , a cat , and a bird ."', "A dog , a cat , and a bird ."),
        ('a.jpg,"""Stop"" , it says"', '"Stop" , it says'),
        ('a.jpg,"A sign reads ""no, thanks"""', 'A sign reads "no, thanks"'),
        ("a.jpg,A dog, a cat and a bird", "A dog, a cat and a bird"),
        ('a.jpg,A "big" dog', 'A "big" dog'),
    ],
)
def test_commas_and_quotes_inside_a_csv_caption_are_kept(tmp_path, row, caption):
    raw = read_captions(written(tmp_path, f"image,caption\n{row}\n"))
    assert raw.captions == {"a.jpg": [caption]}


def test_a_quote_that_nobody_closed_costs_no_other_line(tmp_path):
    raw = read_captions(written(tmp_path, 'image,caption\na.jpg,"A dog\nb.jpg,A cat\nc.jpg,"A bird"\n'))
    assert raw.captions == {"a.jpg": ["A dog"], "b.jpg": ["A cat"], "c.jpg": ["A bird"]}


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
@pytest.mark.parametrize("start", ["a.jpg#0\t", "image,caption\na.jpg,"], ids=["token", "csv"])
def test_an_unusual_line_separator_does_not_end_a_caption(tmp_path, start, separator):
    raw = read_captions(written(tmp_path, f"{start}A dog{separator}runs\n"))
    assert raw.malformed == []
    assert clean_captions(raw.captions) == {"a.jpg": ["a dog runs"]}


def test_of_a_duplicate_id_the_first_caption_counts_and_the_id_is_named(tmp_path):
    raw = read_captions(written(tmp_path, "a.jpg#0\tA dog\na.jpg#0\tA wolf\na.jpg#1\tA dog\n"))
    assert raw.captions == {"a.jpg": ["A dog", "A dog"]}  # the same words under two ids are two captions
    assert raw.duplicates == ["a.jpg#0"]


def test_malformed_lines_are_named_by_their_number(tmp_path):
    lines = ["\ufeffa.jpg#0\tA dog", "", "a.jpg#1", "a.jpg#2\t", "#3\tA dog", "a.jpg#4 no tab", "a.jpg#5\tfine"]
    raw = read_captions(written(tmp_path, "\r\n".join(lines)))
    assert raw.malformed == [3, 4, 5, 6]
    assert raw.captions == {"a.jpg": ["A dog", "fine"]}


def test_malformed_rows_of_a_csv_are_named_by_their_number(tmp_path):
    raw = read_captions(written(tmp_path, "\nimage,caption\na.jpg,A dog\n\na.jpg\n,A dog\na.jpg,  \nb.jpg,fine\n"))
    assert raw.malformed == [5, 6, 7]
    assert raw.captions == {"a.jpg": ["A dog"], "b.jpg": ["fine"]}


@pytest.mark.parametrize("row", ["shot#1 of 2.jpg#0\tA dog", "shot#1 of 2.jpg\tA dog"])
def test_only_the_number_at_the_end_of_an_id_is_not_part_of_the_name(tmp_path, row):
    assert list(read_captions(written(tmp_path, row)).captions) == ["shot#1 of 2.jpg"]


def test_a_file_that_is_not_utf8_is_refused_with_the_place(tmp_path):
    with pytest.raises(CaptionError, match=r"captions\.txt is not UTF-8.*byte 13.*UTF-8"):
        read_captions(written(tmp_path, "a.jpg#0\tA caf\u00e9".encode("latin1")))


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff", "just a text\nwithout captions\n", "image,caption\n"])
def test_a_file_without_captions_is_refused_with_the_format(tmp_path, text):
    with pytest.raises(CaptionError, match=r"captions\.txt holds no captions.*name\.jpg#0<TAB>caption"):
        read_captions(written(tmp_path, text))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(CaptionError, match=r"captions\.txt does not exist.*notebook 1"):
        read_captions(tmp_path / "captions.txt")


def test_a_folder_in_the_files_place_is_one_sentence(tmp_path):
    with pytest.raises(CaptionError, match=r"cannot read .*directory"):
        read_captions(tmp_path)


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("A Dog RUNS .", "a dog runs"),
        ("A man , a dog ; and ( maybe ) a cat !?", "a man a dog and maybe a cat"),
        ("The dog 's ball isn't his", "the dog s ball isnt his"),
        ("The man\u2019s \u201cbig\u201d dog\u2026", "the mans big dog"),
        ("A black-and-white T-shirt", "a black and white t shirt"),
        ("dogs\u2014big\u2013and\u2010small\u2015run", "dogs big and small run"),
        ("black/white", "black white"),
        ("wait -- what", "wait what"),
        ("2 dogs , number 42 , the 3rd , 4x4 and mp3", "dogs number the and"),
        ("a_b _ c", "ab c"),
        (
            "Caf\u00e9 na\u00efve stra\u00dfe \u041c\u043e\u0441\u043a\u0432\u0430",
            "caf\u00e9 na\u00efve stra\u00dfe \u043c\u043e\u0441\u043a\u0432\u0430",
        ),
        ("  spaces\tand\u00a0more   spaces ", "spaces and more spaces"),
        ("... !!! 123", ""),
        ("", ""),
    ],
)
def test_cleaning_leaves_lower_case_words(caption, cleaned):
    assert clean_caption(caption) == cleaned
    assert clean_caption(cleaned) == cleaned


def test_min_letters_2_is_the_ancestors_recipe():
    caption = "A girl 's T-shirt is A blue one , No. 7 ."
    assert clean_caption(caption) == "a girl s t shirt is a blue one no"
    assert clean_caption(caption, min_letters=2) == "girl shirt is blue one no"


def test_captions_and_images_of_which_nothing_remains_are_dropped():
    raw = {"a.jpg": ["A dog .", "!!!"], "b.jpg": ["42", "..."], "c.jpg": []}
    assert clean_captions(raw) == {"a.jpg": ["a dog"]}
    assert clean_captions({"a.jpg": ["A", "A dog"]}, min_letters=2) == {"a.jpg": ["dog"]}


def test_descriptions_come_back_as_they_were_saved(tmp_path):
    descriptions = {"b.jpg": ["a dog", "a dog", "caf\u00e9"], "a b#1.png": ["two cats"]}
    save_descriptions(descriptions, tmp_path / "descriptions.txt")
    assert load_descriptions(tmp_path / "descriptions.txt") == descriptions
    assert list(load_descriptions(tmp_path / "descriptions.txt")) == ["b.jpg", "a b#1.png"]
    assert (tmp_path / "descriptions.txt").read_bytes().startswith(b"b.jpg\ta dog\nb.jpg\ta dog\n")


def test_the_real_captions_are_read_whole_with_their_known_oddity(shared):
    real = Workspace(shared / "flickr8k", shared / "flickr8k")
    raw = read_captions(real.captions)
    assert (raw.duplicates, raw.malformed) == ([], [])
    assert sum(map(len, raw.captions.values())) == 35_005
    assert {len(group) for group in raw.captions.values()} == {5}
    assert raw.captions["1000268201_693b08cb0e.jpg"][1] == "A girl going into a wooden building ."
    check = compare_with_disk(raw.captions, real)
    assert check.without_image == ["2258277193_586949ec62.jpg.1"]
    assert check.without_caption == []
    splits = load_splits(real, raw.captions)
    assert {split: len(names) for split, names in splits.items()} == {"train": 6000, "dev": 1000}
    assert len(clean_captions(raw.captions)) == 7001


def names_of(workspace: Workspace) -> list[str]:
    return list(read_captions(workspace.captions).captions)


def test_the_official_split_files_decide(workspace):
    names = names_of(workspace)
    assert load_splits(workspace, names) == {"train": names[:8], "dev": names[8:10], "test": names[10:]}


def test_a_missing_split_file_is_a_missing_split(workspace):
    (workspace.texts / SPLIT_FILES["test"]).unlink()
    names = names_of(workspace)
    assert load_splits(workspace, names) == {"train": names[:8], "dev": names[8:10]}


def test_without_split_files_the_splits_are_drawn_disjoint_and_stable(workspace):
    for file in SPLIT_FILES.values():
        (workspace.texts / file).unlink()
    names = names_of(workspace)
    splits = load_splits(workspace, names)
    assert list(splits) == ["train", "dev", "test"]
    assert [len(group) for group in splits.values()] == [10, 1, 1]
    assert sorted(name for group in splits.values() for name in group) == sorted(names)
    assert load_splits(workspace, reversed(names)) == splits  # the order of the text must not matter
    assert any(load_splits(workspace, names, seed=seed) != splits for seed in (1, 2, 3))


def test_names_without_an_image_or_a_caption_are_in_no_split(workspace):
    names = names_of(workspace)
    (workspace.images / names[0]).unlink()
    with open(workspace.texts / SPLIT_FILES["train"], "a") as file:
        file.write(f"nowhere.jpg\n{names[1]}\n")  # the second is there already
    assert load_splits(workspace, [*names[:2], *names[3:], "ghost.jpg"])["train"] == [names[1], *names[3:8]]


def test_drawn_splits_leave_out_names_without_an_image_or_a_caption(workspace):
    for file in SPLIT_FILES.values():
        (workspace.texts / file).unlink()
    names = names_of(workspace)
    (workspace.images / names[0]).unlink()
    splits = load_splits(workspace, [*names[:11], "ghost.jpg"])
    assert sorted(name for group in splits.values() for name in group) == names[1:11]


def test_split_files_may_come_from_windows_and_hold_names_with_spaces(workspace):
    names = names_of(workspace)
    spaced = "my holiday.jpg"
    (workspace.images / names[0]).rename(workspace.images / spaced)
    text = "\ufeff" + "\r\n".join([spaced, "", f"  {names[1]} ", names[2]])
    (workspace.texts / SPLIT_FILES["train"]).write_bytes(text.encode())
    assert load_splits(workspace, [*names, spaced])["train"] == [spaced, names[1], names[2]]


def test_a_split_file_that_is_not_utf8_is_one_sentence(workspace):
    (workspace.texts / SPLIT_FILES["dev"]).write_bytes(b"caf\xe9.jpg\n")
    with pytest.raises(CaptionError, match=r"devImages\.txt is not UTF-8"):
        load_splits(workspace, names_of(workspace))


def test_the_comparison_with_the_disk_names_both_sides(workspace):
    names = names_of(workspace)
    (workspace.images / names[0]).unlink()
    (workspace.images / "extra.PNG").touch()
    (workspace.images / "notes.txt").touch()
    (workspace.images / ".hidden.jpg").touch()
    check = compare_with_disk(names, workspace)
    assert check.without_image == [names[0]]
    assert check.without_caption == ["extra.PNG"]


def test_a_subset_has_the_captions_of_its_names_in_their_order():
    assert list(subset(CAPTIONS, ["b.jpg"]).items()) == [("b.jpg", ["A cat"])]
    assert list(subset(CAPTIONS, ["b.jpg", "a.jpg"])) == ["b.jpg", "a.jpg"]


def test_the_fingerprint_tells_one_set_of_captions_from_another():
    captions_of = {"a.jpg": ["a dog"], "b.jpg": ["a cat"]}
    assert captions_fingerprint(captions_of) == captions_fingerprint({"a.jpg": ("a dog",), "b.jpg": ("a cat",)})
    for other in (
        {"a.jpg": ["a dog"]},
        {"a.jpg": ["a dog"], "b.jpg": ["two cats"]},
        {"c.jpg": ["a dog"], "b.jpg": ["a cat"]},
    ):
        assert captions_fingerprint(other) != captions_fingerprint(captions_of)
