"""Word vectors are looked up in files of GloVe's format, and a word without one gets a vector of its own."""

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from gensim.models import KeyedVectors, Word2Vec

from caption_generator.captions import clean_captions, read_captions
from caption_generator.common.errors import CaptionError
from caption_generator.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, Tokenizer
from caption_generator.word_vectors import WordVectors, load_word_vectors, nearest_words
from caption_generator.workspace import SAMPLE, Workspace

WORDS = Tokenizer([*SPECIAL_TOKENS, "a", "dog", "wakeboarder", "in", "caf\u00e9", "frisbee"], max_length=6)
LINES = [
    "the 0.418 0.24968 -0.41242",
    "in 0.33042 0.24995 -0.60874",
    "a 0.21705 0.46515 -0.46757",
    "caf\u00e9 -0.5 1e-2 3",
    "dog 0.11008 -0.38781 -0.57615",
]
VECTORS = {
    "a": [0.21705, 0.46515, -0.46757],
    "dog": [0.11008, -0.38781, -0.57615],
    "in": [0.33042, 0.24995, -0.60874],
    "caf\u00e9": [-0.5, 0.01, 3],
}


def written(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


@pytest.fixture
def glove(tmp_path) -> Path:
    return written(tmp_path / "glove.tiny.3d.txt", LINES)


@pytest.fixture
def archive(tmp_path) -> Path:
    """Three sizes, laid out as in glove.6B.zip: of 2, 3 and 10 values, the words' own number being the first."""
    path = tmp_path / "glove.tiny.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for size in (2, 3, 10):
            lines = (f"{word} {number}{f' 0.{size}' * (size - 1)}\n" for number, word in enumerate(WORDS.words))
            file.writestr(f"glove.tiny.{size}d.txt", "".join(lines))
    return path


def looked_up(vectors: WordVectors) -> dict[str, np.ndarray]:
    return {word: vectors.matrix[WORDS.words.index(word)] for word in vectors.found}


def assert_are_glove(vectors: WordVectors) -> None:
    assert vectors.found == tuple(VECTORS)
    for word, row in looked_up(vectors).items():
        np.testing.assert_array_equal(row, np.float32(VECTORS[word]), word)


def test_each_word_has_the_row_of_its_number(glove):
    vectors = load_word_vectors(glove, WORDS)
    assert vectors.matrix.shape == (10, 3)
    assert vectors.matrix.dtype == np.float32
    assert_are_glove(vectors)


def test_found_and_missing_words_stand_in_the_order_of_the_vocabulary(tmp_path):
    for lines in (LINES, LINES[::-1]):
        vectors = load_word_vectors(written(tmp_path / "glove.txt", lines), WORDS)
        assert vectors.found == ("a", "dog", "in", "caf\u00e9")
        assert vectors.missing == ("wakeboarder", "frisbee")
        assert vectors.coverage == pytest.approx(4 / 6)


def test_it_says_in_a_line_what_it_found(glove):
    assert str(load_word_vectors(glove, WORDS)) == (
        "glove.tiny.3d.txt: 4 of 6 words found (66.7 %), missing: wakeboarder, frisbee"
    )
    found, missing = tuple(f"f{n}" for n in range(1612)), tuple(f"m{n}" for n in range(34))
    text = "glove.6B.200d.txt: 1,612 of 1,646 words found (97.9 %), missing: m0, m1, m2, m3, m4, ..."
    assert str(WordVectors(np.zeros((1650, 2)), found, missing, "glove.6B.200d.txt")) == text
    five = WordVectors(np.zeros((10, 2)), ("a",), missing[:5], "g.txt")
    assert str(five) == "g.txt: 1 of 6 words found (16.7 %), missing: m0, m1, m2, m3, m4"
    assert str(WordVectors(np.zeros((5, 2)), ("a",), (), "g.txt")) == "g.txt: 1 of 1 words found (100.0 %)"


@pytest.mark.parametrize("header", [[], ["400000 3"]], ids=["headless", "header"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["unmarked", "bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"], ids=["lf", "crlf", "space"])
def test_headers_marks_and_line_ends_of_every_program_are_taken_in_stride(tmp_path, header, mark, end):
    first, *others = [*header, *LINES[1:]]  # whose first line is of a word of the vocabulary
    assert_are_glove(load_word_vectors(written(tmp_path / "glove.txt", [mark + first, *others, ""], end), WORDS))


def test_a_last_line_without_an_end_is_read(tmp_path):
    (tmp_path / "glove.txt").write_bytes("\n".join(LINES).encode())
    assert_are_glove(load_word_vectors(tmp_path / "glove.txt", WORDS))


def test_a_path_may_be_a_string_and_a_size_may_confirm_the_files(glove):
    assert_are_glove(load_word_vectors(str(glove), WORDS, size=3))


def test_words_with_spaces_are_not_taken_for_their_beginning(tmp_path):
    others = ["at name@domain.com 9 9 9", "in mylot.com 9 9 9", "a . . . 9 9 9", "dog nan 9 9 9", "in\u00a0 9 9 9"]
    assert_are_glove(load_word_vectors(written(tmp_path / "glove.txt", [*others, *LINES]), WORDS))


def test_other_spellings_are_other_words(tmp_path):
    others = ["A 9 9 9", "Dog 9 9 9", "dogs 9 9 9", "cafe 9 9 9", "cafe\u0301 9 9 9", "d 9 9 9", " in 9 9 9"]
    assert_are_glove(load_word_vectors(written(tmp_path / "glove.txt", [*LINES[:1], *others, *LINES[1:]]), WORDS))


def test_a_header_is_no_vector_even_where_its_number_is_a_word(tmp_path):
    words = Tokenizer([*SPECIAL_TOKENS, "5", "dog"], max_length=6)
    vectors = load_word_vectors(written(tmp_path / "glove.txt", ["5 3", *LINES]), words)
    assert (vectors.found, vectors.missing) == (("dog",), ("5",))


def test_the_first_vector_of_a_word_counts(tmp_path):
    again = ["dog 9 9 9", "a 9 9", "in torn"]
    assert_are_glove(load_word_vectors(written(tmp_path / "glove.txt", LINES + again), WORDS))


def test_lines_of_words_that_nobody_wants_are_not_looked_into(tmp_path):
    torn = ["cat", "cat 1", "cat 1 x 3", "cat 1 2 3 4", "", " ", "cat nan nan nan"]
    assert_are_glove(load_word_vectors(written(tmp_path / "glove.txt", [*LINES[:2], *torn, *LINES[2:]]), WORDS))


def test_the_files_own_special_tokens_are_left_alone(tmp_path, glove):
    before = load_word_vectors(glove, WORDS)
    after = load_word_vectors(written(glove, [*LINES, *(f"{token} 9 9 9" for token in SPECIAL_TOKENS)]), WORDS)
    np.testing.assert_array_equal(after.matrix, before.matrix)
    assert (after.found, after.missing) == (before.found, before.missing)


def test_padding_is_zeros_and_every_other_row_its_own(glove):
    matrix = load_word_vectors(glove, WORDS).matrix
    assert not matrix[PAD].any()
    assert len(np.unique(matrix, axis=0)) == len(WORDS)


def test_one_found_word_is_enough_to_tell_the_others_apart(tmp_path):
    vectors = load_word_vectors(written(tmp_path / "glove.txt", LINES[-1:]), WORDS)
    assert vectors.found == ("dog",)
    assert len(np.unique(vectors.matrix, axis=0)) == len(WORDS)


def test_the_seed_decides_the_random_rows_and_those_alone(glove):
    first, again, other = (load_word_vectors(glove, WORDS, seed=seed).matrix for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    changed = [number for number in range(len(WORDS)) if (first[number] != other[number]).all()]
    assert changed == [START, END, UNKNOWN, WORDS.words.index("wakeboarder"), WORDS.words.index("frisbee")]
    np.testing.assert_array_equal(np.delete(first, changed, axis=0), np.delete(other, changed, axis=0))


def test_random_rows_are_spread_as_the_found_ones(tmp_path):
    random = np.random.default_rng(0)
    found = random.normal([5, -2, 0], [0.1, 1, 3], (500, 3))
    path = written(tmp_path / "glove.txt", [f"f{n} {' '.join(map(str, row))}" for n, row in enumerate(found)])
    words = [*(f"m{n}" for n in range(4000)), *(f"f{n}" for n in range(500))]
    drawn = load_word_vectors(path, Tokenizer([*SPECIAL_TOKENS, *words], 6)).matrix[1:4004]
    deviation = found.std(axis=0)
    np.testing.assert_array_less(abs(drawn.mean(axis=0) - found.mean(axis=0)), 4 * deviation / 4003**0.5)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.05)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_size_chooses_in_an_archive(archive, size):
    vectors = load_word_vectors(archive, WORDS, size)
    assert vectors.source == f"glove.tiny.{size}d.txt"
    assert vectors.missing == ()
    expected = np.full((6, size), float(f"0.{size}"), np.float32)
    expected[:, 0] = range(4, 10)
    np.testing.assert_array_equal(vectors.matrix[4:], expected)


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("name", ["glove.840B.3d.txt", "vectors/wiki.txt"])
def test_the_only_text_in_an_archive_needs_no_size(tmp_path, name, size):
    with zipfile.ZipFile(tmp_path / "one.ZIP", "w") as file:
        file.writestr("LICENSE", "PDDL")
        file.writestr(name, "".join(f"{line}\n" for line in LINES))
        file.writestr(f"__MACOSX/._{Path(name).name}", b"\x00\x05\x16\x07")
    vectors = load_word_vectors(tmp_path / "one.ZIP", WORDS, size)
    assert_are_glove(vectors)
    assert vectors.source == Path(name).name


@pytest.mark.parametrize("suffix", [".txt", ".zip"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    line = b" ".join([b"other", *[b"-0.12345"] * 300, b"\n"])
    path, lines = tmp_path / f"glove{suffix}", 8000
    with open(tmp_path / "glove.txt", "wb") as file:
        file.write(line.replace(b"other", b"dog"))
        file.writelines([line] * lines)
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.write(tmp_path / "glove.txt", "glove.txt")
    tracemalloc.start()
    try:
        assert load_word_vectors(path, WORDS).found == ("dog",)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(line) * lines / 5  # 21 MB; buffers take 1 or 2


@pytest.mark.parametrize("name", ["glove.6B.zip", "glove.6B.200d.txt"])
def test_a_missing_file_is_one_sentence_that_says_where_there_is_one(tmp_path, name):
    with pytest.raises(CaptionError, match=rf"{name} does not exist.*glove\.6B\.zip \(822 MB\).*nlp\.stanford\.edu"):
        load_word_vectors(tmp_path / name, WORDS, 200)


@pytest.mark.parametrize("name", ["folder", "folder.zip"])
def test_a_folder_in_the_files_place_is_one_sentence(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(CaptionError, match=rf"cannot read .*{name}: Is a directory"):
        load_word_vectors(tmp_path / name, WORDS)


@pytest.mark.parametrize("size", [None, 4, 0])
def test_an_archive_of_several_sizes_names_them(archive, size):
    names = r"glove\.tiny\.2d\.txt, glove\.tiny\.3d\.txt, glove\.tiny\.10d\.txt"
    with pytest.raises(CaptionError, match=rf"glove\.tiny\.zip holds {names}, and size is {size}"):
        load_word_vectors(archive, WORDS, size)


def test_an_archive_with_one_size_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as file:
        for name in ("6B.3d.txt", "42B.3d.txt"):
            file.writestr(name, "\n".join(LINES))
    with pytest.raises(CaptionError, match=r"two\.zip holds 6B\.3d\.txt, 42B\.3d\.txt, and size is 3.*unpack one"):
        load_word_vectors(tmp_path / "two.zip", WORDS, 3)


def test_an_archive_without_a_text_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
        file.writestr("dog.jpg", b"")
    with pytest.raises(CaptionError, match=r"photos\.zip holds no \.txt"):
        load_word_vectors(tmp_path / "photos.zip", WORDS)


@pytest.mark.parametrize("content", [b"", b"the 0.1 0.2\n", b"PK\x03\x04 and so on"])
def test_a_zip_that_is_none_is_one_sentence(tmp_path, content):
    (tmp_path / "glove.zip").write_bytes(content)
    with pytest.raises(CaptionError, match=r"glove\.zip is not a sound zip archive.*fetch it again"):
        load_word_vectors(tmp_path / "glove.zip", WORDS, 3)


def test_a_zip_whose_names_are_damaged_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as file:
        file.writestr("caf\u00e9.txt", "\n".join(LINES))
    (tmp_path / "glove.zip").write_bytes((tmp_path / "whole.zip").read_bytes().replace("\u00e9".encode(), b"\xff\xff"))
    with pytest.raises(CaptionError, match=r"glove\.zip is not a sound zip archive"):
        load_word_vectors(tmp_path / "glove.zip", WORDS)


def test_an_archive_torn_anywhere_is_one_sentence(archive):
    whole = archive.read_bytes()
    for size in range(len(whole)):
        archive.write_bytes(whole[:size])
        with pytest.raises(CaptionError, match=r"glove\.tiny\.zip is not a sound zip archive.*fetch it again"):
            load_word_vectors(archive, WORDS, 3)


def test_an_archive_damaged_anywhere_is_one_sentence_or_does_not_matter(archive):
    whole, refused = archive.read_bytes(), 0
    expected = load_word_vectors(archive, WORDS, 3).matrix
    for place in range(len(whole)):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            matrix = load_word_vectors(archive, WORDS, 3).matrix
        except CaptionError as error:
            assert "glove.tiny" in str(error) and "\n" not in str(error)
            refused += 1
        else:
            np.testing.assert_array_equal(matrix, expected)
    assert refused > 50  # bytes of what was asked for


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "line",
    ["dog", "dog ", "dog 1 2", "dog 1 2 3 4", "dog 1 x 3", "dog 1 2 x", "dog 1 nan 3", "dog 1 2 inf", "dog 1,2,3"],
)
def test_a_broken_line_of_a_wanted_word_is_one_sentence_that_says_which(tmp_path, line, zipped):
    path = written(tmp_path / "glove.txt", [*LINES[:4], line])
    if zipped:
        with zipfile.ZipFile(tmp_path / "glove.zip", "w") as file:
            file.write(path, "glove.txt")
        path = tmp_path / "glove.zip"
    with pytest.raises(CaptionError) as refusal:
        load_word_vectors(path, WORDS)
    where = f"glove.txt in {path}" if zipped else str(path)
    assert str(refusal.value).startswith(f"line 5 of {where} does not have 3 numbers after 'dog':")


def test_the_header_counts_as_a_line(tmp_path):
    with pytest.raises(CaptionError, match=r"line 2 of .*glove\.txt does not have 4 numbers after 'in'"):
        load_word_vectors(written(tmp_path / "glove.txt", ["4 4", *LINES[1:]]), WORDS)


@pytest.mark.parametrize("header", [[], ["5 3"]])
@pytest.mark.parametrize("size", [2, 4, 300, 0, -3])
def test_another_size_than_the_files_is_refused(tmp_path, header, size):
    path = written(tmp_path / "glove.txt", header + LINES)
    with pytest.raises(CaptionError, match=rf"glove\.txt has vectors of 3 values, not of {size}: set size to 3"):
        load_word_vectors(path, WORDS, size)


@pytest.mark.parametrize("content", ["a.jpg#0\tA dog in a caf\u00e9 .\n", "\n", "dog\n", "40 0\n", '{"dog": [1, 2]}\n'])
def test_another_kind_of_text_is_one_sentence(tmp_path, content):
    (tmp_path / "notes.txt").write_text(content, encoding="utf-8")
    with pytest.raises(CaptionError, match=r"line 1 of .*notes\.txt is no word vector.*word v1 v2"):
        load_word_vectors(tmp_path / "notes.txt", WORDS)


@pytest.mark.parametrize("lines", [[], LINES[:1], ["3 3"], ["DOG 1 2 3", "<unk> 1 2 3"]])
def test_a_file_without_any_of_the_words_is_one_sentence(tmp_path, lines):
    path = written(tmp_path / "glove.txt", lines)
    with pytest.raises(CaptionError, match=r"glove\.txt has none of the vocabulary's 6 words, such as a, dog, wake"):
        load_word_vectors(path, WORDS)


@pytest.mark.parametrize("content", ["the 1 2\ncaf\u00e9 1 2\n".encode("latin1"), b"4 2\n\xd0\x11\x8a 1 2\n"])
def test_another_encoding_is_one_sentence(tmp_path, content):
    (tmp_path / "glove.txt").write_bytes(content)
    with pytest.raises(CaptionError, match=r"line 2 of .*glove\.txt is not UTF-8 text"):
        load_word_vectors(tmp_path / "glove.txt", WORDS)


@pytest.fixture(scope="module")
def captions() -> list[str]:
    raw = read_captions(Workspace(SAMPLE, SAMPLE).captions).captions
    return [caption for group in clean_captions(raw).values() for caption in group]


@pytest.fixture(scope="module")
def trained(captions) -> KeyedVectors:
    """gensim's vectors of the words that come ten times or more."""
    sentences = [caption.split() for caption in captions]
    return Word2Vec(sentences, vector_size=20, min_count=10, epochs=5, workers=1, seed=0).wv


@pytest.mark.parametrize("header", [False, True])
def test_vectors_that_gensim_trained_and_wrote_come_back(tmp_path, captions, trained, header):
    trained.save_word2vec_format(str(tmp_path / "sample.txt"), write_header=header)
    tokenizer = Tokenizer.fit(captions, min_count=4)
    vectors = load_word_vectors(tmp_path / "sample.txt", tokenizer, size=20)
    assert vectors.found == tuple(word for word in tokenizer.words if word in trained)
    assert set(vectors.found) == set(trained.index_to_key)
    assert len(vectors.found) > 100
    assert len(vectors.missing) > 20
    assert {*vectors.found, *vectors.missing, *SPECIAL_TOKENS} == set(tokenizer.words)
    rows = [tokenizer.words.index(word) for word in vectors.found]
    np.testing.assert_array_equal(vectors.matrix[rows], [trained[word] for word in vectors.found])


def test_near_words_are_those_in_the_same_direction_however_long(tmp_path):
    lines = ["dog 1 0", "puppy 20 1", "cat 3 3", "tree 0 2", "rock -1 0"]
    tokenizer = Tokenizer([*SPECIAL_TOKENS, "rock", "tree", "cat", "unheard", "puppy", "dog"], max_length=5)
    vectors = load_word_vectors(written(tmp_path / "glove.txt", lines), tokenizer)
    assert nearest_words(vectors, tokenizer, "dog") == ["puppy", "cat", "tree", "rock"]
    assert nearest_words(vectors, tokenizer, "dog", count=2) == ["puppy", "cat"]


def test_the_samples_own_vectors_are_of_its_words():
    captions = clean_captions(read_captions(Workspace(SAMPLE, SAMPLE).captions).captions)
    tokenizer = Tokenizer.fit([caption for group in captions.values() for caption in group])
    vectors = load_word_vectors(Workspace(SAMPLE, SAMPLE).word_vectors(200), tokenizer)
    assert vectors.coverage > 0.95
    assert vectors.matrix.shape[1] == 50
