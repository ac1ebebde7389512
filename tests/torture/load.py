"""One captioner, many threads and captions: the same captions as from one thread, and no more memory."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.torture.corpus import photo
from tests.torture.tally import Clock, Tally
from tests.watch import resident

THREADS, PHOTOS = 16, 24


def load(minutes: float) -> Tally:
    from caption_generator.captioner import Captioner

    tally, clock = Tally("load"), Clock(minutes)
    captioner = Captioner.load()
    size = captioner.engine.input_size
    pictures = [np.asarray(photo(size, size, seed)) for seed in range(PHOTOS)]
    turned = [picture[::-1] if number % 2 else picture // 2 for number, picture in enumerate(pictures)]

    def caption(number: int) -> str:
        [captions] = captioner.caption_pixels(turned[number % PHOTOS][None])
        return captions[0].text

    expected = [caption(number) for number in range(PHOTOS)]
    memory: list[tuple[int, int]] = []
    with ThreadPoolExecutor(THREADS) as pool:
        while clock or not memory:
            numbers = range(tally.tried, tally.tried + 10 * THREADS)
            for number, text in zip(numbers, pool.map(caption, numbers), strict=True):
                tally.check(text == expected[number % PHOTOS], f"caption {number}: {text!r}")
            memory.append((tally.tried, resident()))
    tally.notes.append(f"{THREADS} threads, {tally.tried / clock.passed:.0f} captions a second")
    later = memory[len(memory) // 4 :]
    if len(later) > 2:
        slope = np.polyfit([tried for tried, _ in later], [size for _, size in later], 1)[0]
        tally.notes.append(f"memory {memory[-1][1] >> 20} MiB, {slope * 1000 / 2**20:+.2f} MiB for 1,000 captions")
    return tally
