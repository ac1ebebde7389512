"""Raw captions of every shape that people have become clean ones, and the splits never overlap."""

# ruff: noqa: RUF001 - captions of other languages have letters that look like English ones

import json
from pathlib import Path

import pytest

from caption_generator.captions import (
    SPLIT_FILES,
    Dataset,
    captions_fingerprint,
    clean_caption,
    clean_captions,
    combine,
    compare_with_disk,
    load_dataset,
    load_descriptions,
    load_splits,
    prepare,
    read_captions,
    read_workspace,
    save_descriptions,
    spell_out,
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


def test_white_space_of_every_kind_becomes_one_space_and_what_is_not_seen_goes(tmp_path):
    odd = "A \u2028 dog\x0b\x0c\x85runs\u00a0\u3000on\r grass\x00\x1b\ufeff\u200e\u00ad ."
    raw = read_captions(written(tmp_path, f"a.jpg#0\t{odd}\n"))
    assert raw.captions == {"a.jpg": ["A dog runs on grass ."]}


TABLES = {
    "quoted header": '"image","caption"\n"a.jpg","A dog ."\n"a.jpg","Two dogs"\n"b.jpg","A cat"\n',
    "semicolons": "image;caption\na.jpg;A dog .\na.jpg;Two dogs\nb.jpg;A cat\n",
    "tabs": "image\tcaption\na.jpg\tA dog .\na.jpg\tTwo dogs\nb.jpg\tA cat\n",
    "Excel": 'sep=;\r\nImage;Caption\r\na.jpg;"A dog ."\r\na.jpg;Two dogs\r\nb.jpg;A cat\r\n',
    "Flickr30k": "image_name| comment_number| comment\na.jpg| 0| A dog .\na.jpg| 1   Two dogs\nb.jpg| 0| A cat\n",
    "no header": "a.jpg,A dog .\na.jpg,Two dogs\nb.jpg,A cat\n",
    "no header, numbered": "a.jpg| 0| A dog .\na.jpg| 1| Two dogs\nb.jpg| 0| A cat\n",
    "file_name and text": "file_name,text\na.jpg,A dog .\na.jpg,Two dogs\nb.jpg,A cat\n",
    "filename and sentence": "Sentence,Filename\nA dog .,a.jpg\nTwo dogs,a.jpg\nA cat,b.jpg\n",
    "a data frame's index": ",image,caption\n0,a.jpg,A dog .\n1,a.jpg,Two dogs\n2,b.jpg,A cat\n",
    "further columns": "image,caption,split,source\na.jpg,A dog .,train,x\na.jpg,Two dogs,train,x\nb.jpg,A cat,dev,y\n",
    "path and raw": "image_path,sentid,raw\na.jpg,7,A dog .\na.jpg,8,Two dogs\nb.jpg,9,A cat\n",
    "a number beside the name": "image_id,caption,file_name\n7,A dog .,a.jpg\n7,Two dogs,a.jpg\n8,A cat,b.jpg\n",
    "lists of JSON": 'raw,filename,img_id\n"[""A dog ."", ""Two dogs""]",a.jpg,0\n"[""A cat""]",b.jpg,1\n',
    "lists of pandas": "image,captions\na.jpg,\"['A dog .', 'Two dogs']\"\nb.jpg,['A cat']\n",
    "old Macs": "image,caption\ra.jpg,A dog .\ra.jpg,Two dogs\rb.jpg,A cat\r",
    "Flickr8k-CN": "a.jpg#zhb#0\tA dog .\na.jpg#zhb#1\tTwo dogs\nb.jpg#zhb#0\tA cat\n",
    "Flickr8k-CN, spaces": "a.jpg#zhb#0 A dog .\na.jpg#zhb#1 Two dogs\nb.jpg#zhb#0 A cat\n",
}
COCO = {
    "info": {},
    "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 7, "id": 1, "caption": "A dog ."},
        {"image_id": 7, "id": 2, "caption": "Two dogs\n"},
        {"image_id": 8, "id": 3, "caption": "A cat"},
    ],
}
KARPATHY = {
    "dataset": "flickr8k",
    "images": [
        {"filename": "a.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "A dog ."}, {"raw": "Two dogs"}]},
        {"filename": "b.jpg", "imgid": 1, "split": "val", "sentences": [{"tokens": ["a", "cat"], "raw": "A cat"}]},
    ],
}
LIST = [
    {"image": "a.jpg", "caption": ["A dog .", "Two dogs"]},
    {"image": "b.jpg", "caption": "A cat"},
]
LISTS = {
    "COCO": json.dumps(COCO),
    "COCO, indented": json.dumps(COCO, indent=2),
    "Karpathy": json.dumps(KARPATHY),
    "list": json.dumps(LIST),
    "lines": "\n".join(map(json.dumps, LIST)),
    "names": json.dumps(CAPTIONS),
}


@pytest.mark.parametrize("form", [*TABLES, *LISTS])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_forms_that_people_have_are_read(tmp_path, form, mark):
    raw = read_captions(written(tmp_path, mark + (TABLES | LISTS)[form]))
    assert raw.captions == CAPTIONS
    assert (raw.duplicates, raw.malformed) == ([], [])


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("image,caption,split\na.jpg,A dog, a cat and a bird,train\n", {"a.jpg": ["A dog, a cat and a bird"]}),
        ("image,caption\nmy dog, on a beach.jpg,A dog\n", {"my dog, on a beach.jpg": ["A dog"]}),
        ("image,caption\nmy dog, a.jpg,A dog, running\n", {"my dog, a.jpg": ["A dog, running"]}),
        (
            'image,caption\na.jpg,"A dog\nruns, fast"\nb.jpg,A cat\n',
            {"a.jpg": ["A dog runs, fast"], "b.jpg": ["A cat"]},
        ),
        ('image;caption\na.jpg;"A ""big""; dog"\n', {"a.jpg": ['A "big"; dog']}),
        ("image_name| comment_number| comment\na.jpg| 0| A | dog\n", {"a.jpg": ["A | dog"]}),
        ("image_name| comment_number| comment\na.jpg| 0| A dog\na.jpg| 0| A wolf\n", {"a.jpg": ["A dog"]}),
        ("image,caption\na#1.jpg,A dog\n", {"a#1.jpg": ["A dog"]}),
        ("[1].jpg#0\tA dog\n", {"[1].jpg": ["A dog"]}),
        ("image,caption\na.jpg,[1] A dog\nb.jpg,[1]\n", {"a.jpg": ["[1] A dog"], "b.jpg": ["[1]"]}),
        ("image,caption\na.jpg,A\x00 dog\n", {"a.jpg": ["A dog"]}),
    ],
)
def test_odd_cells_of_tables_are_understood(tmp_path, text, captions):
    assert read_captions(written(tmp_path, text)).captions == captions


def test_entries_of_json_that_lack_something_are_named_by_their_number(tmp_path):
    entries = [
        {"image_id": 7, "caption": "A dog"},
        {"caption": "A cat"},
        {"image_id": 7},
        "no entry",
        {"image_id": None},
    ]
    raw = read_captions(written(tmp_path, json.dumps({"images": COCO["images"], "annotations": entries})))
    assert (raw.captions, raw.malformed) == ({"a.jpg": ["A dog"]}, [2, 3, 4, 5])


def test_coco_without_its_list_of_images_has_the_names_that_coco_gives(tmp_path):
    raw = read_captions(written(tmp_path, json.dumps({"annotations": COCO["annotations"]})))
    assert list(raw.captions) == ["000000000007.jpg", "000000000008.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', r"captions\.txt is not whole JSON \(line 1, column 13"),
        ('{\n "a.jpg": [\n  "a dog",\n', r"captions\.txt is not whole JSON \(line 4, column 1"),
        (
            '{"image": "a.jpg", "caption": "a dog"}\n\n{"image": "b',
            r"captions\.txt is not whole JSON \(line 3, column 11",
        ),
        ("[" * 200_000, "JSON"),
        ('{"a.jpg": ' + "[" * 200_000 + "]" * 200_000 + "}", "JSON that nobody's captions are in"),
        ('{"a.jpg": ' + "9" * 5000 + "}", "JSON that nobody's captions are in|holds no captions"),
        ('{"version": 3}', r"captions\.txt holds no captions \(JSON, an object with version\).*COCO"),
        ("[1, 2]", r"holds no captions \(JSON, a list"),
        (
            "photo,words\na.png,A dog\n",
            r"holds no captions \(its first line is 'photo,words'\): it should hold .*image,caption",
        ),
        ("image,caption\n", r"holds no captions \(a table with the columns image,caption\)"),
        ("", r"holds no captions \(it is empty\)"),
    ],
)
def test_what_was_found_in_a_file_without_captions_is_said(tmp_path, text, message):
    with pytest.raises(CaptionError, match=message) as error:
        read_captions(written(tmp_path, text))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("there", "remedy"),
    [
        ("notes.md", "put captions.txt there, a CSV file with the columns image and caption."),
        ("Texts.XLSX", "save Texts.XLSX as captions.csv, with the columns image and caption."),
        ("a.ods", "save a.ods as captions.csv, with the columns image and caption."),
    ],
)
def test_a_missing_file_is_named_with_those_that_are_there_and_what_to_make(tmp_path, there, remedy):
    (tmp_path / there).touch()
    with pytest.raises(CaptionError) as error:
        read_captions(tmp_path / "token.txt")
    assert str(error.value) == f"{tmp_path}/token.txt does not exist (the folder holds {there}): {remedy}"


def test_captions_are_fetched_for_the_repository_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("caption_generator.workspace.ROOT", tmp_path)
    with pytest.raises(CaptionError, match=r"image and caption, or fetch Flickr8k with the last cell of notebook 1\.$"):
        read_captions(tmp_path / "Flickr8k_text" / "Flickr8k.token.txt")


def test_the_cases_of_others_are_read_whole(shared):
    for folder in ("hindi", "german_mac", "flickr30k", "coco", "chinese"):
        workspace = Workspace(shared / "cases" / folder, shared / "cases" / folder)
        raw = read_captions(workspace.captions)
        assert (len(raw.captions), sum(map(len, raw.captions.values()))) == (24, 120), folder
        assert (raw.duplicates, raw.malformed) == ([], [])


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
    with pytest.raises(CaptionError, match=r"/captions\.txt does not exist: put captions\.txt there"):
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


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("एक कुत्ता घास पर बैठे हैं ।", "एक कुत्ता घास पर बैठे हैं"),  # Hindi
        ("বাংলা ভাষা।", "বাংলা ভাষা"),
        ("ஒரு நாய் ஓடுகிறது", "ஒரு நாய் ஓடுகிறது"),  # Tamil
        ("Ein Ma\u0308dchen la\u0308uft u\u0308ber die Straße .", "ein mädchen läuft über die straße"),
        ("một con chó đang chạy", "một con chó đang chạy"),  # Vietnamese
        ("mo\u0302\u0323t con cho\u0301", "một con chó"),
        ("Un chien court sur l'herbe", "un chien court sur l herbe"),
        ("Il n’y a qu’un chien d'Alsace aujourd'hui", "il n y a qu un chien d alsace aujourd hui"),
        ("L'uomo guarda all'acqua", "l uomo guarda all acqua"),
        ("Дев'ять собак", "девять собак"),  # Ukrainian
        ("¿Qué hace el niño?", "qué hace el niño"),
        ("کتاب را می\u200cخواند،", "کتاب را می\u200cخواند"),  # Persian
        ("כלב־ים רץ", "כלב ים רץ"),  # Hebrew
        ("고양이가 잔다.", "고양이가 잔다"),  # Korean
        ("A dog\u2764\ufe0f \U0001f468\u200d\U0001f469 runs", "a dog runs"),
        ("२ कुत्ते", "कुत्ते"),
        # English stays as it is.
        ("The dog's o'clock, y'all: c'mon, d'you, s'mores, 'tis", "the dogs oclock yall cmon dyou smores tis"),
        ("A café's sign", "a cafés sign"),
    ],
)
def test_every_script_with_spaces_keeps_its_words(caption, cleaned):
    assert clean_caption(caption) == cleaned
    assert clean_caption(cleaned) == cleaned
    assert clean_caption(spell_out(caption)) == cleaned


@pytest.mark.parametrize(
    "captions",
    [
        ["2只狗在水里奔跑", "一个男人站在山上，远处有树0。"],
        ["男の人が山の上に立っている。", "犬が水の中を走っています。"],
        ["สุนัขกำลังวิ่งอยู่ในน้ำ", "ผู้ชายคนหนึ่งยืนอยู่บนภูเขา"],
    ],
    ids=["Chinese", "Japanese", "Thai"],
)
def test_a_language_without_spaces_is_refused_with_what_it_needs(captions):
    with pytest.raises(CaptionError, match="separate the words by spaces"):
        clean_captions({"a.jpg": captions})


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("两 只 狗 在 水里 奔跑 。", "两 只 狗 在 水里 奔跑"),
        ("สุนัข กำลัง วิ่ง อยู่ ใน น้ำ", "สุนัข กำลัง วิ่ง อยู่ ใน น้ำ"),
        ("สุนัข\u200bกำลัง\u200bวิ่ง", "สุนัข กำลัง วิ่ง"),
        ("犬 が 水 の 中 を 走っ て いる 。", "犬 が 水 の 中 を 走っ て いる"),
    ],
)
def test_a_language_without_spaces_may_be_given_with_spaces(caption, cleaned):
    assert clean_captions({"a.jpg": [caption]}) == {"a.jpg": [cleaned]}


def test_a_foreign_word_in_english_captions_is_no_other_language():
    captions = {"a.jpg": ["A sign that reads 一个男人站在山上", "A dog on the grass in front of it"]}
    assert len(clean_captions(captions)["a.jpg"]) == 2


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


@pytest.mark.parametrize(
    ("named", "file"),
    [
        ("dog.jpg", "dog.JPG"),
        ("Dog.jpg", "dog.jpg"),
        ("dog", "dog.jpg"),
        ("dog.jpeg", "dog.jpg"),
        ("Images/dog.jpg", "dog.jpg"),
        ("C:\\photos\\dog.jpg", "dog.jpg"),
        ("Größe.jpg", "Gro\u0308ße.jpg"),
        ("Gro\u0308ße.jpg", "Größe.JPG"),
        ("GRÖSSE.jpg", "größe.jpg"),
        ("dog.1", "dog.1.png"),
    ],
)
def test_a_name_means_a_file_that_differs_in_form_alone(workspace, named, file):
    (workspace.images / file).touch()
    text = workspace.captions.read_text(encoding="utf-8")
    workspace.captions.write_text(f"{named}#0\tA dog\n{named}#1\tTwo dogs\n{text}", encoding="utf-8")
    raw = read_workspace(workspace)
    assert raw.captions[file] == ["A dog", "Two dogs"]
    check = compare_with_disk(raw.captions, workspace)
    assert (check.without_image, check.without_caption, check.in_no_split) == ([], [], [file])
    (workspace.texts / SPLIT_FILES["dev"]).write_text(f"{named}\n", encoding="utf-8")
    assert load_splits(workspace, raw.captions)["dev"] == [file]
    assert prepare(workspace).dev == {file: ["a dog", "two dogs"]}


def test_of_two_files_that_a_name_may_mean_none_is_taken(workspace):
    for file in ("dog.JPG", "DOG.jpg", "cat.jpg", "cat.JPG"):
        (workspace.images / file).touch()
    text = workspace.captions.read_text(encoding="utf-8")
    workspace.captions.write_text(f"dog.jpg#0\tA dog\ncat.jpg#0\tA cat\n{text}", encoding="utf-8")
    raw = read_workspace(workspace)
    assert raw.captions["dog.jpg"] == ["A dog"] and raw.captions["cat.jpg"] == ["A cat"]
    assert compare_with_disk(raw.captions, workspace).without_image == ["dog.jpg"]


def test_a_text_and_a_folder_that_do_not_match_are_one_sentence_with_an_example_of_each(workspace):
    text = workspace.captions.read_text(encoding="utf-8")
    workspace.captions.write_text(text.replace(".jpg#", "_resized.jpg#"), encoding="utf-8")
    message = (
        r"names 12 images, and 0 of them are in the image folder: the text says 00_red_resized\.jpg, .* 00_red\.jpg"
    )
    for attempt in (
        lambda: read_workspace(workspace),
        lambda: prepare(workspace),
        lambda: compare_with_disk(names_of(workspace), workspace),
        lambda: load_splits(workspace, names_of(workspace)),
    ):
        with pytest.raises(CaptionError, match=message):
            attempt()


def test_a_text_that_matches_a_little_is_refused_and_a_folder_with_a_part_of_the_photos_is_not(workspace):
    lines = [f"{number}.jpg#0\tA dog\n" for number in range(100)]
    workspace.captions.write_text("".join(lines) + workspace.captions.read_text(encoding="utf-8"), encoding="utf-8")
    assert len(read_workspace(workspace).captions) == 112  # all twelve photos have captions
    for number in range(300):
        (workspace.images / f"IMG_{number}.jpg").touch()
    for name in names_of(workspace)[102:]:
        (workspace.images / name).unlink()
    with pytest.raises(CaptionError, match=r"112 images, and 2 of them"):
        read_workspace(workspace)


def test_an_image_folder_without_pictures_is_one_sentence(workspace):
    for name in workspace.image_names():
        (workspace.images / name).unlink()
    with pytest.raises(CaptionError, match=r"Flickr8k_Dataset holds no pictures: put the photos there\.$"):
        load_splits(workspace, names_of(workspace))


def test_photos_in_no_split_file_are_counted(workspace):
    names = names_of(workspace)
    (workspace.texts / SPLIT_FILES["train"]).write_text("".join(f"{name}\n" for name in names[:5]))
    assert compare_with_disk(names, workspace).in_no_split == names[5:8]
    for file in SPLIT_FILES.values():
        (workspace.texts / file).unlink()
    assert compare_with_disk(names, workspace).in_no_split == []


def test_split_files_of_another_dataset_are_one_sentence(workspace):
    for file in SPLIT_FILES.values():
        (workspace.texts / file).write_text("1000268201_693b08cb0e.jpg\n")
    with pytest.raises(
        CaptionError, match=r"name none of the 12 images.*1000268201_693b08cb0e\.jpg.*00_red\.jpg.*remove"
    ):
        load_splits(workspace, names_of(workspace))


def test_empty_split_files_are_one_sentence(workspace):
    for file in SPLIT_FILES.values():
        (workspace.texts / file).write_text("")
    with pytest.raises(CaptionError, match=r"are empty: correct them, or remove them, and the 12 images"):
        load_splits(workspace, names_of(workspace))


def test_photos_of_one_split_are_enough(workspace):
    names = names_of(workspace)
    for split in ("train", "dev"):
        (workspace.texts / SPLIT_FILES[split]).write_text("not_here.jpg\n")
    (workspace.texts / SPLIT_FILES["test"]).write_text("".join(f"{name}\n" for name in names))
    assert load_splits(workspace, names) == {"train": [], "dev": [], "test": names}


def test_an_image_in_two_splits_is_one_sentence(workspace):
    names = names_of(workspace)
    (workspace.texts / SPLIT_FILES["train"]).write_text("".join(f"{name}\n" for name in names[:8]))
    (workspace.texts / SPLIT_FILES["test"]).write_text("".join(f"{name}\n" for name in names[7:]))
    with pytest.raises(CaptionError, match=rf"^1 images are in .*trainImages.*testImages.*such as {names[7]}"):
        load_splits(workspace, names)


def test_descriptions_are_read_as_they_were_written_and_in_no_other_form(tmp_path):
    path = tmp_path / "descriptions.txt"
    for descriptions in ({"image": ["caption"], "b": ["a dog"]}, {"{a.jpg": ["a dog"]}, {"a.jpg#1": ["a dog"]}):
        save_descriptions(descriptions, path)
        assert load_descriptions(path) == descriptions
    path.unlink()
    with pytest.raises(CaptionError, match=r"descriptions\.txt does not exist.*run notebook 1"):
        load_descriptions(path)


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


def test_what_step_1_left_is_loaded_in_its_splits(workspace):
    prepared = prepare(workspace)
    data = load_dataset(workspace)
    assert data == prepared
    assert data.images == [*data.train, *data.dev, *data.test] and set(data.images) <= set(data.references)
    few = data.first(train=2, dev=1)
    assert (list(few.train), list(few.dev), few.test) == (list(data.train)[:2], list(data.dev)[:1], {})
    assert few.references == data.references and few.name == data.name


def test_datasets_together_are_one_and_may_not_share_a_name():
    one = Dataset({"a.jpg": ["a dog"]}, {"b.jpg": ["a cat"]}, {"a.jpg": ["A dog."], "b.jpg": ["A cat."]}, "one")
    other = Dataset({"c.jpg": ["a bus"]}, {}, {"c.jpg": ["A bus."], "d.jpg": ["Rain."]}, "other", {"d.jpg": ["rain"]})
    both = combine([one, other])
    assert list(both.train) == ["a.jpg", "c.jpg"]
    assert (both.dev, both.test, both.name) == (one.dev, other.test, "one and other")
    assert both.references == one.references | other.references
    assert combine([one]) == one
    with pytest.raises(CaptionError, match=r"two datasets have an image called a\.jpg"):
        combine([one, other, one])
