"""TensorFlow's chatter is dropped, and nothing that comes after it."""

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from caption_generator.common.console import beam_width, native_stderr_silenced, positive, quiet_at_ctrl_c
from caption_generator.common.errors import printable
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


def test_threads_may_silence_stderr_at_the_same_time(capfd):
    inside, leave = threading.Barrier(3), threading.Event()

    def silenced(wait: bool) -> None:
        with native_stderr_silenced():
            inside.wait(30)
            os.write(2, b"from a thread")
            if wait:
                leave.wait(30)

    threads = [threading.Thread(target=silenced, args=(wait,)) for wait in (False, True)]
    for thread in threads:
        thread.start()
    inside.wait(30)
    threads[0].join()
    os.write(2, b"from the one that is still inside")
    leave.set()
    threads[1].join()
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


NAMES = ["日本.jpg", "café.jpg", "caf\udce9.jpg", "dog\n\x1b[31m.jpg", "\U0001f436.jpg", "\x9b1m.jpg"]
PRINT = """
import sys
from caption_generator.common.console import json_line, let_stdout_take_any_text
let_stdout_take_any_text()
for name in {names!a}:
    print(json_line({{"image": name}}) if {as_json} else name.replace("\\n", ""), flush=True)
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "latin1"])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_name_outside_the_code_page_ends_nothing_and_json_is_utf8(encoding, as_json):
    code = PRINT.format(names=NAMES, as_json=as_json)
    environment = os.environ | {
        "PYTHONIOENCODING": encoding,
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
        "PYTHONCOERCECLOCALE": "0",
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert done.stderr == b""
    lines = done.stdout.removesuffix(b"\n").split(b"\n")
    if as_json:
        assert [json.loads(line.decode("utf-8"))["image"] for line in lines] == NAMES
        assert lines[0] == '{"image": "日本.jpg"}'.encode()
        assert all(line.decode("utf-8").isprintable() for line in lines)
    else:
        assert lines == [os.fsencode(name.replace("\n", "")) for name in NAMES]


def test_a_terminal_that_lacks_a_character_gets_an_escape():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    code = PRINT.format(names=NAMES[:3], as_json=False) + PRINT.format(names=NAMES[:3], as_json=True)
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).replace(b"\r", b"").split(b"\n")
    os.close(ours)
    assert shown[:3] == [b"\\u65e5\\u672c.jpg", b"caf\\xe9.jpg", b"caf\xe9.jpg"]
    assert [json.loads(line)["image"] for line in shown[3:6]] == NAMES[:3]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a dog", "a dog"),
        ("日本", "日本"),
        ("a\nb\t\x1b[2J", "a\\nb\\t\\x1b[2J"),
        ("caf\udce9", "caf\\udce9"),
        ("\x9b", "\\x9b"),
    ],
)
def test_what_would_move_a_cursor_is_escaped(text, shown):
    assert printable(text) == shown


def test_no_file_descriptor_is_lost():
    before = len(list(Path("/dev/fd").iterdir()))
    with native_stderr_silenced():
        pass
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_ctrl_c_ends_a_command_without_a_traceback():
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert quiet_at_ctrl_c(interrupted) == 130
    assert quiet_at_ctrl_c(lambda: 2) == 2


@pytest.mark.parametrize(
    ("kind", "text", "complaint"),
    [
        (positive, "x", "'x' is not a whole number"),
        (positive, "2.5", "'2.5' is not a whole number"),
        (positive, "0", "0 is not 1 or more"),
        (beam_width, "1001", "1001 is more than 1000"),
    ],
)
def test_a_number_that_cannot_be_is_named(kind, text, complaint):
    with pytest.raises(argparse.ArgumentTypeError, match=complaint):
        kind(text)


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
