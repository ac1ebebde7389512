"""Step 3: words to numbers and back. `tokenizer.p` is the list of words, as plain data."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest
from caption_generator.common.pickles import load_pickles, save_pickle

PAD, START, END, UNKNOWN = range(4)
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")
LONGEST = 1000  # words of a caption; a damaged file must not make the search endless
# What may not be in a word: control characters, which steer a terminal, marks of direction, and half of a surrogate
# pair, which cannot be written. A joiner may, for Persian words have some.
UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Tokenizer:
    """A vocabulary.

    Attributes:
        words: every token by its number; the first four are `SPECIAL_TOKENS`, then the most frequent word first.
        max_length: words of the longest caption that it was fitted on; no caption is generated longer.
            It is `LONGEST` at most.
    """

    def __init__(self, words: Sequence[str], max_length: int):
        self.words = list(words)
        self.max_length = min(LONGEST, max_length)
        self._numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def fit(cls, captions: Iterable[str], min_count: int = 4) -> "Tokenizer":
        """Learn the words of the training captions. Dev and test captions must not be among them.

        Args:
            captions: clean ones, words separated by spaces.
            min_count: rarer words become `<unk>`; nobody learns a word from three examples.
        """
        split = [caption.split() for caption in captions]
        counts = Counter(word for words in split for word in words)
        frequent = [
            word for word, count in sorted(counts.items(), key=lambda wc: (-wc[1], wc[0])) if count >= min_count
        ]
        if not frequent:
            raise CaptionError(f"no word occurs {min_count} times in {len(split)} captions: lower min_count.")
        return cls([*SPECIAL_TOKENS, *frequent], max(map(len, split)))

    @classmethod
    def from_dict(cls, loaded: Any) -> "Tokenizer":
        """Build the vocabulary from what `to_dict` gave and a file may have changed.

        Raises:
            ValueError: it is something else.
        """
        words, max_length = loaded["words"], loaded["max_length"]
        if not isinstance(words, list) or tuple(words[:4]) != SPECIAL_TOKENS:
            raise ValueError("its words do not begin with the special tokens")
        if not all(type(word) is str and not UNFIT.search(word) for word in words) or len(set(words)) != len(words):
            raise ValueError("its words are not different texts that can be shown")
        if type(max_length) is not int or not 0 < max_length <= LONGEST:
            raise ValueError(f"its longest caption has {max_length!r:.20} words, not 1 to {LONGEST:,}")
        return cls(words, max_length)

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> np.ndarray:
        """A clean caption as int32 tokens of shape (words + 2,), between `<start>` and `<end>`."""
        return np.array([START, *(self._numbers.get(word, UNKNOWN) for word in caption.split()), END], np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        """The words of a row of tokens, up to `<end>`, without the special ones."""
        words = []
        for token in tokens:
            if token == END:
                break
            if token >= len(SPECIAL_TOKENS):
                words.append(self.words[token])
        return " ".join(words)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that tell one vocabulary from another."""
        return digest("\n".join(self.words))

    def to_dict(self) -> dict:
        return {"words": self.words, "max_length": self.max_length}

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.p`."""
        save_pickle(path, self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read `tokenizer.p`.

        Raises:
            CaptionError: the file is missing or holds something else.
        """
        loaded = next(load_pickles(path, "run notebook 3, which writes it"), None)
        try:
            return cls.from_dict(loaded)
        except Exception as error:  # anything may be in the file
            raise CaptionError(
                f"{path} does not hold this project's vocabulary: make it again with notebook 3."
            ) from error


def fit_tokenizer(train: Mapping[str, Iterable[str]], min_count: int = 4) -> Tokenizer:
    """As `Tokenizer.fit`, of the captions of all images: image name to clean captions.

    Args:
        min_count: as for `Tokenizer.fit`, for 150 captions and more. A smaller set keeps rarer words, down to all of
            fewer than 50 captions, or too few would be left.
    """
    captions = [caption for group in train.values() for caption in group]
    return Tokenizer.fit(captions, min(min_count, 1 + len(captions) // 50))
