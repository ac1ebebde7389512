"""Captions requests in batches. A batch of eight takes much less time than eight photos one after the other."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

import numpy as np

from caption_generator.search import Caption


class Busy(Exception):
    """Too many photos wait already."""


class Batcher:
    """A thread that captions what several requests bring within a few milliseconds."""

    def __init__(
        self,
        caption: Callable[[np.ndarray], Sequence[Sequence[Caption]]],
        batch_size: int = 8,
        wait_seconds: float = 0.004,
        places: int = 32,
    ):
        """
        Args:
            caption: pixels of shape (photos, size, size, 3) in, the captions of each photo out.
            batch_size: photos in a batch, at most.
            wait_seconds: how long the first photo of a batch waits for others.
            places: photos that may be inside at once, waiting or in work.
        """
        self._caption, self._batch_size, self._wait_seconds = caption, batch_size, wait_seconds
        self._places = threading.BoundedSemaphore(places)
        self._queue: queue.SimpleQueue[tuple[np.ndarray, Future]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name="captioner", daemon=True).start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place. Take one before a photo is decoded: decoding costs time and memory, too.

        Raises:
            Busy: all places are taken.
        """
        if not self._places.acquire(blocking=False):
            raise Busy
        try:
            yield
        finally:
            self._places.release()

    def caption(self, pixels: np.ndarray) -> Sequence[Caption]:
        """Wait for the captions of one photo, the best first.

        Args:
            pixels: uint8 of shape (size, size, 3).
        """
        future: Future = Future()
        self._queue.put((pixels, future))
        return future.result()

    def _work(self) -> None:
        while True:
            batch = [self._queue.get()]
            deadline = time.monotonic() + self._wait_seconds
            while len(batch) < self._batch_size:
                try:
                    batch.append(self._queue.get(timeout=max(0.0, deadline - time.monotonic())))
                except queue.Empty:
                    break
            try:
                results = self._caption(np.stack([pixels for pixels, _ in batch]))
            except Exception as error:  # the requests of this batch fail; the thread lives on
                for _, future in batch:
                    future.set_exception(error)
            else:
                for (_, future), captions in zip(batch, results, strict=True):
                    future.set_result(captions)
