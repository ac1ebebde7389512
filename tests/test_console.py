"""TensorFlow's chatter is dropped, and nothing that comes after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from caption_generator.common.console import native_stderr_silenced
from caption_generator.workspace import ROOT


def test_what_native_code_and_child_processes_write_is_dropped(capfd):
    with native_stderr_silenced():
        os.write(2, b"from C++")
        subprocess.run([sys.executable, "-c", "import sys; print('from a child', file=sys.stderr)"], check=True)
        os.write(1, b"a caption")
    os.write(2, b"afterwards")
    shown = capfd.readouterr()
    assert (shown.out, shown.err) == ("a caption", "afterwards")


def test_an_error_inside_is_raised_and_stderr_comes_back(capfd):
    with pytest.raises(ValueError), native_stderr_silenced():
        raise ValueError
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


def test_no_file_descriptor_is_lost():
    before = len(list(Path("/dev/fd").iterdir()))
    with native_stderr_silenced():
        pass
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_loading_tensorflow_says_nothing():
    code = "from caption_generator.common.console import load_tensorflow; load_tensorflow(); import tensorflow"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert (run.stdout, run.stderr) == (b"", b"")


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_the_package_asks_for_the_faster_kernels_unless_the_user_has_chosen(before, after):
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    if before is not None:
        environment["TF_ENABLE_ONEDNN_OPTS"] = before
    code = "import os, caption_generator; print(os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == f"{after}\n"
