"""Tests of webapp.batching."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from webapp.batching import Batcher, Busy


def numbered(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def test_requests_that_arrive_together_share_a_batch_and_get_their_own_captions():
    sizes = []

    def caption(pixels):
        sizes.append(len(pixels))
        return [[int(photo[0, 0, 0])] for photo in pixels]

    batcher = Batcher(caption, batch_size=4, wait_seconds=0.5)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda number: batcher.caption(numbered(number)), range(8))) == [[n] for n in range(8)]
    assert sizes == [4, 4]


def test_a_single_photo_does_not_wait_long():
    batcher = Batcher(lambda pixels: [["caption"]], wait_seconds=0.01)
    assert batcher.caption(numbered(1)) == ["caption"]


def test_an_error_reaches_its_requests_and_the_next_batch_works():
    def caption(pixels):
        if pixels.max() == 9:
            raise ValueError("nine")
        return [["caption"]] * len(pixels)

    batcher = Batcher(caption, wait_seconds=0.0)
    with pytest.raises(ValueError, match="nine"):
        batcher.caption(numbered(9))
    assert batcher.caption(numbered(1)) == ["caption"]


def test_places_are_bounded_and_come_back():
    batcher = Batcher(lambda pixels: [["caption"]] * len(pixels), places=2)
    with batcher.place(), batcher.place(), pytest.raises(Busy), batcher.place():
        pass
    barrier = threading.Barrier(2)

    def hold():
        with batcher.place():
            barrier.wait(5)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: hold(), range(2)))
