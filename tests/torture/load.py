"""Many captions and many files: always the same captions, and no more memory."""

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from caption_generator.workspace import ROOT
from tests.torture.corpus import photo
from tests.torture.tally import Clock, Tally
from tests.watch import resident

THREADS, PHOTOS, FILES = 16, 24, 10_000


def load(minutes: float) -> Tally:
    """One captioner and 16 threads, for so many minutes."""
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
    note_memory(tally, memory)
    return tally


def many_files(minutes: float) -> Tally:
    """The script, once, with 10,000 files, however long it takes."""
    tally = Tally("many-files")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "photos")
        folder.mkdir()
        for seed in range(PHOTOS):
            photo(320, 240, seed).save(folder / f"{seed:05}.jpg")
        for number in range(PHOTOS, FILES):
            (folder / f"{number:05}.jpg").hardlink_to(folder / f"{number % PHOTOS:05}.jpg")
        command = [sys.executable, str(ROOT / "testing_caption_generator.py"), "-i", str(folder)]
        memory: list[tuple[int, int]] = []
        found: dict[str, str] = {}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            for line in child.stdout:
                path, _, text = line.rstrip("\n").partition("\t")
                found[path] = text
                if not len(found) % 100 and child.poll() is None:
                    memory.append((len(found), resident(child.pid)))
        tally.check(child.returncode == 0, f"the exit code is {child.returncode}")
        for number in range(FILES):
            text, first = (found.get(str(folder / f"{n:05}.jpg")) for n in (number, number % PHOTOS))
            tally.check(bool(text) and text == first, f"file {number}: {text!r}, not {first!r}")
    note_memory(tally, memory)
    return tally


def note_memory(tally: Tally, memory: list[tuple[int, int]]) -> None:
    """Write down the memory at the end and its slope after the first quarter.

    Args:
        memory: how many captions there were, and the memory in bytes.
    """
    later = memory[len(memory) // 4 :]
    if len(later) > 2:
        slope = np.polyfit([tried for tried, _ in later], [size for _, size in later], 1)[0]
        tally.notes.append(f"memory {memory[-1][1] >> 20} MiB, {slope * 1000 / 2**20:+.2f} MiB for 1,000 captions")
