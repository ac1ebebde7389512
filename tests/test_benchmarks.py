"""The benchmarks run, and compare what gives the same captions. How long things take is not tested."""

import re
import subprocess
import sys

from caption_generator.workspace import ROOT


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_one_photo_compares_the_same_captions():
    out = run("one_photo", "--photos", "2", "--beam", "2")
    assert re.search(r"^ratio( +\d+\.\d\d){4}$", out, re.MULTILINE)
    assert "0 of 4 captions differ" in out


def test_cold_start_compares_the_script_with_importing_tensorflow():
    out = run("cold_start", "--runs", "1")
    assert float(re.search(r"^ratio +(.*)$", out, re.MULTILINE)[1]) > 1
