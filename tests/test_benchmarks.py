"""The benchmarks run, and compare what gives the same captions. How long things take is not tested."""

import json
import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from benchmarks import tasks
from benchmarks.__main__ import ROWS, table, unit
from benchmarks.drawn import draw_captions, draw_photos
from caption_generator.workspace import ROOT


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_one_photo_compares_the_same_captions():
    out = run("benchmarks.one_photo", "--photos", "2", "--beam", "2")
    for way in ("as trained", "TensorFlow", "LiteRT"):
        assert re.search(rf"^{way}( +\d+\.\d){{4}} +0$", out, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "wait4"), reason="peak memory is known on Unix only")
def test_the_engines_are_compared_in_time_memory_and_size():
    out = run("benchmarks.engines", "--photos", "3", "--runs", "1")
    ratios = [float(ratio) for ratio in re.findall(r" ([\d.]+) \|$", out, re.MULTILINE)]
    assert len(ratios) == 6
    cold, _, _, _, memory, packages = ratios
    assert min(cold, memory, packages) > 2


@pytest.mark.slow
def test_the_table_and_the_picture_come_from_the_seconds(tmp_path):
    before = {"import_tensorflow": [7.0, 6.0, 8.0], "project_script": [14.0]}
    (tmp_path / "speed.json").write_text(json.dumps(before))
    out = run("benchmarks", "--rows", "3", "4", "--runs", "1", "--out", str(tmp_path / "speed.png"))
    seconds = json.loads((tmp_path / "speed.json").read_text())
    assert seconds.items() > before.items()
    assert set(seconds) - set(before) == {"ancestors_greedy", "project_greedy", "project_beam_5"}
    assert "| ... against importing TensorFlow | 7 s | 14 s | 0.5 | 10 |" in out
    [slow], [fast] = seconds["ancestors_greedy"], seconds["project_greedy"]
    assert f"| {unit(slow)} | {unit(fast)} | {slow / fast:.3g} | 40 |" in out
    with Image.open(tmp_path / "speed.png") as picture:
        assert picture.width > 800


def test_a_table_says_how_many_times_faster():
    assert table(ROWS[:1], {"ancestors_epoch": 90.0, "project_epoch": 0.5}).endswith("| 90 s | 500 ms | 180 | 30 |")


def test_every_row_has_its_tasks():
    assert {task for row in ROWS for task in (row.slow, row.fast)} <= vars(tasks).keys()


def test_the_ancestors_are_timed_with_tensorflow_as_it_comes():
    code = "import os, benchmarks.ancestors, benchmarks.tasks; print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"


@pytest.mark.slow
@pytest.mark.parametrize("task", ["ancestors_epoch", "project_epoch"])
def test_an_epoch_runs_on_a_part_of_it(task):
    getattr(tasks, task)(images=2)  # it raises nothing


@pytest.mark.slow
def test_growth_measures_time_and_memory_at_each_size(tmp_path):
    picture = tmp_path / "growth.png"
    out = run("benchmarks.growth", "--panels", "extraction", "--sizes", "3", "6", "--out", str(picture))
    rows = re.findall(r"^ +(\d+) photos +(\S+) s +(\S+) GiB$", out, re.MULTILINE)
    assert [row[0] for row in rows] == ["3", "6"]
    assert all(0 < float(seconds) < 600 and 0.1 < float(memory) < 20 for _, seconds, memory in rows)
    assert picture.stat().st_size > 10_000
    noted = json.loads(picture.with_suffix(".json").read_text())
    assert noted.keys() == {"extraction"} and noted["extraction"].keys() == {"3", "6"}
    # Another panel is added, and what was noted stays.
    run("benchmarks.growth", "--panels", "beam", "--sizes", "2", "--out", str(picture))
    both = json.loads(picture.with_suffix(".json").read_text())
    assert both["extraction"] == noted["extraction"] and both["beam"].keys() == {"2"}


def test_drawn_captions_are_as_many_and_as_long_as_flickr8ks():
    captions = draw_captions(200, 3000)
    lengths = [len(caption.split()) for group in captions.values() for caption in group]
    assert len(lengths) == 5 * len(captions) == 1000
    assert 10 < sum(lengths) / len(lengths) < 12
    assert len({word for group in captions.values() for caption in group for word in caption.split()}) <= 2996


def test_drawn_photos_are_as_large_as_flickr8ks(tmp_path):
    first, second = draw_photos(tmp_path, 2)
    with Image.open(first) as photo:
        assert photo.size == (500, 375)
    assert first.read_bytes() != second.read_bytes()
