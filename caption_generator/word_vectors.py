"""Step 4b: pretrained word vectors for the decoder's embedding, so that words are known before a caption is read.

This reads the text format of GloVe (Pennington, Socher and Manning 2014, "GloVe: Global Vectors for Word
Representation"): `word v1 v2 ... vn` on each line.
"""

import zipfile
import zlib
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from io import BufferedReader
from math import isfinite
from pathlib import Path, PurePosixPath

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest
from caption_generator.tokenizer import PAD, SPECIAL_TOKENS, Tokenizer

GLOVE = "https://nlp.stanford.edu/projects/glove/"
BUFFER = 2**20  # bytes; the usual few kilobytes hold few lines, and reading takes twice as long


@dataclass(frozen=True)
class WordVectors:
    """A vocabulary's vectors.

    Attributes:
        matrix: float32 of shape (len(tokenizer), size), a row for each token by its number.
        found: the words that the file has, the most frequent in the captions first.
        missing: the words that it lacks, likewise; special tokens are in neither.
        source: name of the text file, without its folder or archive.
    """

    matrix: np.ndarray
    found: tuple[str, ...]
    missing: tuple[str, ...]
    source: str

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that tell one set of vectors from another."""
        return digest(self.matrix.tobytes())

    @property
    def coverage(self) -> float:
        """Share of the vocabulary's words that the file has, from 0 to 1."""
        return len(self.found) / (len(self.found) + len(self.missing))

    def __str__(self) -> str:
        words = len(self.found) + len(self.missing)
        text = f"{self.source}: {len(self.found):,} of {words:,} words found ({100 * self.coverage:.1f} %)"
        if self.missing:
            text += f", missing: {', '.join(self.missing[:5])}{', ...' if len(self.missing) > 5 else ''}"
        return text


def load_word_vectors(path: str | Path, tokenizer: Tokenizer, size: int | None = None, seed: int = 0) -> WordVectors:
    """Look the vocabulary's words up in a file of word vectors; only their rows are kept in memory.

    The row of `<pad>` is zeros. The other special tokens and the words that the file lacks get vectors drawn at random
    with the mean and the standard deviation that the found ones have in each dimension: zeros, as in many tutorials,
    would make them all the same word.

    Args:
        path: the text file, UTF-8, with or without word2vec's header; or a `.zip` of such files, as Stanford's are.
            Of a word that comes more than once, the first vector counts.
        tokenizer: whose words to look up, spelled as they are, in lower case.
        size: values of a vector. The file says it itself; needed only to choose one of several in a `.zip`, by a name
            that ends like `.200d.txt`.
        seed: of the random rows; the same seed gives the same rows.

    Raises:
        CaptionError: the file is missing, damaged, not UTF-8 text or not of this format, has vectors of another size or
            of none of the words, or the `.zip` holds several and `size` names none of them.
    """
    path = Path(path)
    words = tokenizer.words[len(SPECIAL_TOKENS) :]
    try:
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                member = _choose(archive, path, size)
                source, where = PurePosixPath(member).name, f"{member} in {path}"
                with BufferedReader(archive.open(member), BUFFER) as lines:  # type: ignore[type-var]
                    vectors = _read(lines, where, words, size)
        else:
            source, where = path.name, str(path)
            with open(path, "rb", BUFFER) as lines:
                vectors = _read(lines, where, words, size)
    except FileNotFoundError:
        raise CaptionError(
            f"{path} does not exist: put word vectors there, such as glove.6B.zip (822 MB) from {GLOVE}."
        ) from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise CaptionError(f"{path} is not a sound zip archive ({error}): fetch it again from {GLOVE}.") from error
    if not vectors:
        raise CaptionError(
            f"{where} has none of the vocabulary's {len(words)} words, such as {', '.join(words[:3])}: take vectors of "
            "the captions' language, in lower case."
        )

    known = np.stack(list(vectors.values()))
    spread = known.std(axis=0) if len(known) > 1 else known.std()  # one vector alone has no spread in a dimension
    shape = len(tokenizer), known.shape[1]
    matrix = np.random.default_rng(seed).normal(known.mean(axis=0), spread, shape).astype(np.float32)
    matrix[PAD] = 0
    for number, word in enumerate(tokenizer.words):
        if word in vectors:
            matrix[number] = vectors[word]
    found = tuple(word for word in words if word in vectors)
    return WordVectors(matrix, found, tuple(word for word in words if word not in vectors), source)


def nearest_words(vectors: WordVectors, tokenizer: Tokenizer, word: str, count: int = 4) -> list[str]:
    """The words most similar to `word` by cosine, the nearest first. Only words in the file count.

    Raises:
        CaptionError: the file lacks `word`.
    """
    if word not in vectors.found:
        raise CaptionError(f"there is no vector for {word!r}: choose another word.")
    known = [number for number, other in enumerate(tokenizer.words) if other in vectors.found]
    rows = vectors.matrix[known] / np.linalg.norm(vectors.matrix[known], axis=1, keepdims=True)
    words = [tokenizer.words[number] for number in known]
    order = np.argsort(-(rows @ rows[words.index(word)]))
    return [words[place] for place in order if words[place] != word][:count]


def _choose(archive: zipfile.ZipFile, path: Path, size: int | None) -> str:
    """The name of the text file in the archive that has vectors of `size`."""
    texts = [name for name in archive.namelist() if name.endswith(".txt") and not name.startswith("__MACOSX/")]
    if not texts:
        raise CaptionError(f"{path} holds no .txt file: take an archive of word vectors from {GLOVE}.")
    chosen = texts if len(texts) == 1 else [name for name in texts if name.endswith(f".{size}d.txt")]
    if len(chosen) != 1:
        raise CaptionError(
            f"{path} holds {', '.join(texts)}, and size is {size}: set size to that of one, or unpack one and name it."
        )
    return chosen[0]


def _read(lines: Iterable[bytes], where: str, words: Collection[str], size: int | None) -> dict[str, np.ndarray]:
    """The vector of each of `words` that the lines have, of shape (size,)."""
    wanted, vectors = set(words), {}
    for number, line in enumerate(lines, 1):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
            first = line.split()
            header = len(first) == 2 and all(field.isdigit() for field in first)
            length = int(first[1]) if header else len(_last_numbers(first[1:]))
            if not length:
                raise CaptionError(f"line 1 of {where} is no word vector: its lines should read word v1 v2 ... vn.")
            if size not in (None, length):
                raise CaptionError(f"{where} has vectors of {length} values, not of {size}: set size to {length}.")
            if header:
                continue
        # Most lines are of words that no caption has: nothing is done to them that can be left undone.
        start, _, rest = line.partition(b" ")
        try:
            word = start.rstrip().decode()  # a torn line may end here
        except UnicodeDecodeError:
            raise CaptionError(f"line {number} of {where} is not UTF-8 text: save the file as UTF-8.") from None
        if word not in wanted:
            continue
        fields = rest.split()
        values = _last_numbers(fields)
        if len(values) == length < len(fields):
            continue  # of a word with a space in it, such as glove.840B's "at name@domain.com"
        if not len(values) == length == len(fields):
            raise CaptionError(
                f"line {number} of {where} does not have {length} numbers after {word!r}: the file is damaged, unpack "
                "or fetch it again."
            )
        wanted.remove(word)
        vectors[word] = np.array(values)
    return vectors


def _last_numbers(fields: list[bytes]) -> list[float]:
    """The numbers at the end of a line. What is before them belongs to its word."""
    numbers = []
    for field in reversed(fields):
        try:
            number = float(field)
        except ValueError:
            break
        if not isfinite(number):
            break
        numbers.append(number)
    return numbers[::-1]
