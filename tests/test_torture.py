"""The torture in small, of all that needs no TensorFlow: `python -m tests.torture` is the whole of it."""

import os

import pytest

from tests.torture import artifacts
from tests.torture.corpus import make_corpus
from tests.torture.pictures import decode
from tests.watch import bounded


def test_every_picture_of_the_corpus_is_read_or_refused_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = make_corpus(tmp_path / "corpus", seeds=5, bombs=False)
    assert len(paths) > 300
    with bounded(300, seconds=120):
        found = {path: decode(path) for path in paths}
    assert [sentence for sentence in found.values() if sentence.startswith("!")] == []
    assert not (tmp_path / "ran").exists()
    read = {path.name for path, sentence in found.items() if not sentence}
    assert {"good.jpg", "good.png", "good.gif", "good.webp", "good.tif", "link.jpg", "two\nlines.jpg"} <= read
    assert not {"fifo.jpg", "to_fifo.jpg", "zero.jpg", "loop_a.jpg", "nowhere.jpg", "socket.jpg", "missing.jpg"} & read
    assert ("locked.jpg" in read) == (os.geteuid() == 0)
    assert all(str(path) in sentence for path, sentence in found.items() if sentence)


@pytest.mark.parametrize("part", [artifacts.pickles, artifacts.exports])
def test_mutated_artifacts_are_read_or_refused_with_one_sentence(part):
    tally = part(minutes=0.1, most=10)
    assert tally.lost == []
    assert tally.tried > 100
