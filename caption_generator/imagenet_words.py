"""What people call ImageNet's thousand classes when they describe a photo: nobody writes "tabby".

Each line of `imagenet_words.txt` describes one thing: its name; other words for it; after "=" a stand-in; after the
colon the numbers of its classes, from 0. Regular plurals are left out. A vocabulary may lack all these words. Then the
decoder reads the stand-in in place of the name. A class may be in several lines: a drake is a duck and a bird.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

TABLE = "imagenet_words.txt"


@dataclass(frozen=True)
class Thing:
    """What ImageNet's classes and captions both have.

    Attributes:
        name: what to call it.
        words: all that names it, with plurals.
        candidates: words for a search, the best first: the name, the others, the stand-in.
        classes: their numbers.
    """

    name: str
    words: frozenset[str]
    candidates: tuple[str, ...]
    classes: tuple[int, ...]


@cache
def things() -> tuple[Thing, ...]:
    """The lines of the table."""
    text = files(__package__).joinpath(TABLE).read_text(encoding="utf-8")
    return tuple(_read(line) for line in text.splitlines() if line and not line.startswith("#"))


def plurals(word: str) -> list[str]:
    """What may be the plural of an English word."""
    return [word + "s", word + "es", word.removesuffix("y") + "ies"]


def _read(line: str) -> Thing:
    named, _, numbers = line.partition(":")
    candidates = [word.replace("_", " ") for word in named.split()]
    words = [word for word in candidates if not word.startswith("=")]
    ranges = [part.partition("-") for part in numbers.split()]
    classes = (number for first, _, last in ranges for number in range(int(first), int(last or first) + 1))
    forms = frozenset(form for word in words for form in (word, *plurals(word)))
    return Thing(words[0], forms, tuple(word.lstrip("=") for word in candidates), tuple(classes))
