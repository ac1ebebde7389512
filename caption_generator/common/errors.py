"""Errors that the user can put right."""

from collections.abc import Mapping
from typing import TypeVar

Row = TypeVar("Row")
LONGEST = 500  # letters that are quoted of an error


class CaptionError(Exception):
    """Something that the user can put right. The message is one sentence: what, where, what to do."""

    def _render_traceback_(self) -> list[str]:
        # Jupyter asks an exception for this first: in a notebook, too, the reader gets the sentence alone.
        return [f"{type(self).__name__}: {self}"]


def look_up(kind: str, name: str, table: Mapping[str, Row], besides: str = "") -> Row:
    """The row of that name.

    Args:
        besides: what else the user may choose, in words.

    Raises:
        CaptionError: there is none; it names those that there are.
    """
    if name not in table:
        raise CaptionError(f"there is no {kind} {name!r}: choose one of {', '.join(table)}{besides}.")
    return table[name]


def first_line(error: Exception) -> str:
    """What to quote of an error whose text may go on for pages, or come from a file that is not trusted."""
    return printable(str(error).partition("\n")[0][:LONGEST])


def printable(text: str) -> str:
    """One line of text. Characters that would move a terminal's cursor, or are no text, are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
