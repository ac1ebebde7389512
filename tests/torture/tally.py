"""What a part of the torture counts."""

import time
from dataclasses import dataclass, field


@dataclass
class Tally:
    """A row of the table.

    Attributes:
        part: its name.
        tried: files, kills, captions and so on.
        lost: one line for each that was not survived: a traceback, a wrong result, a crash.
        notes: what else was measured.
    """

    part: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def check(self, survived: bool, complaint: str) -> None:
        """Count one trial."""
        self.tried += 1
        if not survived:
            self.lost.append(complaint)


class Clock:
    """So many minutes from now on."""

    def __init__(self, minutes: float):
        self.start, self.end = time.monotonic(), time.monotonic() + 60 * minutes

    def __bool__(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.end

    @property
    def passed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.start
