"""What robustness costs: a block that may take only so much memory and time."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def resident(process: int | str = "self") -> int:
    """The memory of a process in bytes, without files that it has mapped: the system can drop those at any time."""
    _, pages, shared, *_ = map(int, Path(f"/proc/{process}/statm").read_text().split())
    return (pages - shared) * resource.getpagesize()


@contextmanager
def bounded(megabytes: int = 400, seconds: float = 30) -> Iterator[None]:
    """What is done inside takes little memory, looked at all the time, and comes to an end soon."""
    before, peak, done, start = resident(), [0], threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert peak[0] - before < megabytes << 20
    assert time.monotonic() - start < seconds
