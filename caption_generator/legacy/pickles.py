"""Pickles of Keras 2 projects, and the `Tokenizer` in one of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import open_regular
from caption_generator.common.pickles import PlainUnpickler, StandIn, plain_dict
from caption_generator.tokenizer import SPECIAL_TOKENS, UNFIT, Tokenizer

# What the projects put around a caption. Keras' Tokenizer strips the brackets of <start>, and leaves an ordinary word.
MARKS = (("startseq", "endseq"), ("<start>", "<end>"), ("start", "end"))
MAX_LENGTH = 32  # of Flickr8k's captions, in words


class _OldTokenizer(StandIn):
    """Stands in for Keras' Tokenizer of any version: holds the attributes that a pickle gives it, and does nothing."""


class _OldUnpickler(PlainUnpickler):
    """Builds plain data, and what a pickled Tokenizer is made of; refuses everything else."""

    stand_ins: Mapping[str, Callable] = {
        "collections.OrderedDict": plain_dict,
        "collections.defaultdict": lambda *_: {},
        "copyreg._reconstructor": lambda *_: _OldTokenizer(),  # how protocols 0 and 1 make an object
        "copy_reg._reconstructor": lambda *_: _OldTokenizer(),  # in Python 2
        **dict.fromkeys(("builtins.int", "__builtin__.int", "__builtin__.long"), int),
        **dict.fromkeys(("builtins.object", "__builtin__.object"), object),
    }

    def find_class(self, module: str, name: str) -> Any:
        if name == "Tokenizer" and module.endswith("preprocessing.text"):
            return _OldTokenizer
        return self.stand_ins.get(f"{module}.{name}") or super().find_class(module, name)


def unpickle(path: str | Path) -> Any:
    """The first value of a pickle that Python 2 or 3 wrote."""
    try:
        with open_regular(path) as file:
            try:
                return _OldUnpickler(file, encoding="utf-8").load()
            except ValueError:  # Python 2 spells arrays as text, too, and that one is not UTF-8
                file.seek(0)
                return _OldUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise CaptionError(f"{path} does not exist: name the file that the other project wrote.") from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except Exception as error:  # a torn or foreign pickle can raise nearly anything
        raise CaptionError(
            f"{path} is neither a pickled Keras Tokenizer nor pickled features ({first_line(error)}): name another "
            "file, or make a new one with the notebooks."
        ) from error


@dataclass(frozen=True)
class Vocabulary:
    """A vocabulary that was converted, and how it was numbered.

    Attributes:
        tokenizer: the words with this project's numbers.
        theirs: int64 of shape (words,): for each of this project's numbers the other project's, 0 for none.
        size: how many numbers the other project's models tell apart, 0 for padding included.
    """

    tokenizer: Tokenizer
    theirs: np.ndarray
    size: int


def read_tokenizer(path: str | Path, max_length: int = MAX_LENGTH) -> Vocabulary:
    """Convert a pickled Keras Tokenizer. Its marks and its `oov_token` become special tokens.

    Args:
        path: what `pickle.dump` wrote of it, by any version of Keras and of Python.
        max_length: words of the longest caption, which such a file does not know.

    Raises:
        CaptionError: the file is missing, torn, names anything but a Tokenizer, or lacks words or marks.
    """
    loaded = unpickle(path)
    attributes = loaded.attributes if isinstance(loaded, _OldTokenizer) else None
    if not isinstance(attributes, dict):
        raise CaptionError(f"{path} does not hold a Keras Tokenizer: name the tokenizer.p of the other project.")
    numbers = attributes.get("word_index")
    if not _are_numbered(numbers):
        raise CaptionError(
            f"the Tokenizer in {path} has no word_index that numbers words from 1 on without a hole: "
            "make a vocabulary with notebook 3."
        )
    if any(map(UNFIT.search, numbers)):
        raise CaptionError(f"words in {path} hold control characters: make a vocabulary with notebook 3.")
    marks = next((pair for pair in MARKS if all(mark in numbers for mark in pair)), None)
    if marks is None:
        raise CaptionError(
            f"the words in {path} have no marks for where a caption starts and ends, "
            f"such as {' and '.join(MARKS[0])}: make a vocabulary with notebook 3."
        )
    oov = attributes.get("oov_token")
    unknown = oov if isinstance(oov, str) else "<unk>"
    taken = {*marks, unknown, *SPECIAL_TOKENS}
    words = [word for word in sorted(numbers, key=numbers.__getitem__) if word not in taken]
    theirs = [0, *(numbers.get(word, 0) for word in (*marks, unknown, *words))]
    return Vocabulary(Tokenizer([*SPECIAL_TOKENS, *words], max_length), np.array(theirs), len(numbers) + 1)


def _are_numbered(numbers: Any) -> bool:
    """Whether `numbers` has a word for each number from 1 on, the last of Keras' Tokenizers being `len(numbers)`."""
    return (
        isinstance(numbers, dict)
        and all(type(word) is str and type(number) is int for word, number in numbers.items())
        and sorted(numbers.values()) == list(range(1, len(numbers) + 1))
    )
