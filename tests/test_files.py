"""Files are written whole or not at all, and a pickle can hold data but never run code."""

import builtins
import errno
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caption_generator.common import files as files_module
from caption_generator.common.errors import CaptionError, first_line
from caption_generator.common.files import appending, digest, is_file, only_run, open_regular, replacing
from caption_generator.common.pickles import load_pickles, save_pickle
from caption_generator.workspace import ROOT

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ANCESTORS = ("Karan14-11_tokenizer.p", "akd15102091_tokenizer.p")


def test_a_digest_is_the_beginning_of_sha256_of_text_and_bytes_alike():
    assert digest("abc") == digest(b"abc") == "ba7816bf8f01"  # the example of FIPS 180
    assert digest("caf\u00e9") == digest("caf\u00e9".encode()) != digest("cafe")


def test_a_failed_write_leaves_the_old_file_and_no_temporary(tmp_path):
    path = tmp_path / "features.p"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_first_write_leaves_nothing(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "features.p") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_a_good_write_replaces_the_old_file_and_makes_missing_folders(tmp_path):
    path = tmp_path / "models" / "new" / "model_1.h5"
    for text in ("first", "second"):
        with replacing(path) as temporary:
            assert temporary.suffix == ".h5"  # by which Keras chooses the format
            assert temporary.parent == path.parent  # else the replacement would not be one step
            temporary.write_text(text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_a_new_file_has_the_permissions_of_any_other_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "descriptions.txt") as temporary:
            temporary.write_text("shared")
        assert os.umask(umask) == umask  # reading the mask must not change it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "descriptions.txt").stat().st_mode) == mode


def test_who_is_reading_the_old_file_reads_it_to_its_end(tmp_path):
    path = tmp_path / "features.p"
    path.write_text("old")
    with open(path) as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"


def test_a_folder_that_cannot_be_written_to_is_one_sentence_with_the_way_out(tmp_path):
    (tmp_path / "file").write_text("a file where the folder should be")
    with (
        pytest.raises(CaptionError, match=r"file/features\.p.*CAPTION_OUTPUTS"),
        replacing(tmp_path / "file/features.p"),
    ):
        pass


@pytest.mark.parametrize("kind", ["folder", "fifo"])
def test_a_folder_or_a_device_in_the_place_of_the_file_is_named_and_stays(kind, tmp_path):
    """As root, a file that is renamed to /dev/null would take its place for all programs."""
    path = tmp_path / "features.p"
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(CaptionError, match=r"features\.p, which is a folder or a device"), replacing(path) as temporary:
        temporary.write_text("new")
    assert path.is_dir() if kind == "folder" else path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_sentence_with_the_way_out(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CaptionError, match=r"features\.p.*CAPTION_OUTPUTS"), replacing(tmp_path / "features.p"):
        pass


def test_a_notebook_shows_the_sentence_without_a_traceback():
    assert CaptionError("what, where.")._render_traceback_() == ["CaptionError: what, where."]


def test_values_come_back_one_pickle_after_the_other(tmp_path):
    save_pickle(tmp_path / "two.p", {"a": [1, 2.5, "x", None, True]}, None, ["second"])
    assert list(load_pickles(tmp_path / "two.p")) == [{"a": [1, 2.5, "x", None, True]}, None, ["second"]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32),
        np.arange(6, dtype=np.float64).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.arange(12, dtype=np.float32).reshape(3, 4)[:, 1],
        np.array(["a", "dog"]),
        np.array([True, False]),
        np.zeros((0, 4), np.float32),
    ],
    ids=["float32", "matrix", "fortran", "view", "strings", "bools", "empty"],
)
def test_arrays_of_every_protocol_come_back(tmp_path, array, protocol):
    (tmp_path / "array.p").write_bytes(pickle.dumps({"x": array}, protocol))
    (loaded,) = load_pickles(tmp_path / "array.p")
    np.testing.assert_array_equal(loaded["x"], array)
    assert loaded["x"].dtype == array.dtype


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_and_numpy_scalars_of_every_protocol_come_back(tmp_path, protocol):
    value = {"n": 3, "words": ["<pad>", "caf\u00e9"], "nested": ({"x": (1, 2)}, None, 2**80), "raw": b"\x00\xff"}
    value |= {"loss": np.float32(0.25), "count": np.int64(7), "exact": np.float64(1 / 3), "flag": np.bool_(True)}
    (tmp_path / "value.p").write_bytes(pickle.dumps(value, protocol))
    (loaded,) = load_pickles(tmp_path / "value.p")
    assert loaded == value
    assert {type(loaded[k]) for k in ("loss", "count")} == {np.float32, np.int64}


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_and_scalars_of_old_and_new_numpy_come_back(tmp_path, module):
    # Protocol 2 spells module names out between line ends, so that the other NumPy's name can be put in its place.
    stored = pickle.dumps({"x": np.arange(3, dtype=np.float32), "y": np.float32(2.5)}, 2)
    for own in (b"numpy.core.", b"numpy._core."):
        stored = stored.replace(b"c" + own, b"c" + module.encode() + b".")
    assert stored.count(f"c{module}.multiarray\n".encode()) == 2
    (tmp_path / "array.p").write_bytes(stored)
    (loaded,) = load_pickles(tmp_path / "array.p")
    assert loaded["x"].tolist() == [0, 1, 2]
    assert loaded["y"] == np.float32(2.5)


class Calls:
    """Pickles itself as a call, as an attacker would."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["system", "eval", "exec", "open", "numpy", "getattr"])
def test_a_pickle_that_calls_something_is_refused_before_the_call(tmp_path, name, protocol):
    witness = tmp_path / "executed"
    code = f"open({str(witness)!r}, 'w')"
    attack = {
        "system": Calls(os.system, f"touch {witness}"),
        "eval": Calls(builtins.eval, code),
        "exec": Calls(builtins.exec, code),
        "open": Calls(builtins.open, str(witness), "w"),
        "numpy": Calls(np.savetxt, str(witness), [1.0]),  # that NumPy is known does not make all of it plain data
        "getattr": Calls(builtins.getattr, "", "join"),
    }[name]
    (tmp_path / "attack.p").write_bytes(pickle.dumps(["harmless", attack], protocol))
    with pytest.raises(CaptionError, match=r"attack\.p.*not plain data"):
        list(load_pickles(tmp_path / "attack.p"))
    assert not witness.exists()


def test_the_attack_of_these_tests_works_on_plain_pickle(tmp_path):
    witness = tmp_path / "executed"
    pickle.loads(pickle.dumps(Calls(builtins.open, str(witness), "w"))).close()
    assert witness.exists()


@pytest.mark.parametrize(
    "stored",
    [
        b"cnumpy.lib.utils\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"\x80\x04\x8c\x05numpy\x8c\x09os.system\x93.",  # from protocol 4 on a name may be a dotted path
        b"cnumpyish\ndtype\n.",
    ],
)
def test_names_that_hide_behind_numpy_are_refused(tmp_path, stored):
    (tmp_path / "attack.p").write_bytes(stored)
    with pytest.raises(CaptionError, match="not plain data"):
        list(load_pickles(tmp_path / "attack.p"))


@pytest.mark.parametrize("name", ANCESTORS)
def test_the_ancestors_tokenizer_is_refused_with_one_sentence_and_not_executed(shared, name):
    with pytest.raises(CaptionError) as refusal:
        list(load_pickles(shared / "ancestors" / name))
    message = str(refusal.value)
    assert name in message and "Tokenizer" in message and "make it again" in message
    assert "\n" not in message


def test_a_missing_pickle_is_one_sentence(tmp_path):
    with pytest.raises(CaptionError, match=r"features\.p does not exist: run notebook 2"):
        list(load_pickles(tmp_path / "features.p", "run notebook 2"))


@pytest.mark.parametrize("size", [1, 10, 100, -1])
def test_a_torn_pickle_is_one_sentence(tmp_path, size):
    save_pickle(tmp_path / "whole.p", {"x": np.arange(100, dtype=np.float32)})
    (tmp_path / "torn.p").write_bytes((tmp_path / "whole.p").read_bytes()[:size])
    with pytest.raises(CaptionError, match=r"torn\.p.*make it again"):
        list(load_pickles(tmp_path / "torn.p"))


@pytest.mark.parametrize("content", [b"hello, I am a text", b"\xff\xd8\xff\xe0 a photo", b"\x00" * 64])
def test_a_file_that_is_no_pickle_is_one_sentence(tmp_path, content):
    (tmp_path / "features.p").write_bytes(content)
    with pytest.raises(CaptionError, match=r"features\.p"):
        list(load_pickles(tmp_path / "features.p"))


def test_what_lies_before_the_torn_end_can_be_had(tmp_path):
    save_pickle(tmp_path / "two.p", "first", list(range(1000)))
    stored = (tmp_path / "two.p").read_bytes()
    (tmp_path / "two.p").write_bytes(stored[:-5])
    values = load_pickles(tmp_path / "two.p")
    assert next(values) == "first"
    with pytest.raises(CaptionError):
        next(values)


def test_a_folder_in_a_pickles_place_is_one_sentence(tmp_path):
    with pytest.raises(CaptionError, match=r"cannot read .*directory"):
        list(load_pickles(Path(tmp_path)))


HOLD = """
import sys
from caption_generator.common.files import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_a_second_run_out_and_ends_with_the_process_that_holds_it(tmp_path):
    folder = tmp_path / "new" / "folder"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as first:
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(CaptionError, match=r"another run is writing into .*folder") as refusal, only_run(folder):
            pass
        assert "\n" not in str(refusal.value)
        with only_run(tmp_path):  # another folder is free
            pass
        first.kill()
    with only_run(folder), only_run(tmp_path):
        pass
    with pytest.raises(KeyboardInterrupt), only_run(folder):
        raise KeyboardInterrupt
    with only_run(folder):
        pass


def test_a_folder_that_cannot_be_locked_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CaptionError, match="cannot write"), only_run(tmp_path / "file" / "folder"):
        pass


def test_a_file_system_without_locks_is_no_error(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files_module.fcntl, "flock", no_locks)
    with only_run(tmp_path):
        pass


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EFBIG, "File too large"),
        RuntimeError(
            "Problems closing file (file write failed: errno = 28, error message = 'No space left on device')"
        ),
    ],
)
@pytest.mark.parametrize("when", ["mkstemp", "inside", "fsync"])
def test_a_full_disk_is_one_sentence_and_destroys_nothing(when, error, tmp_path, monkeypatch):
    path = tmp_path / "features.p"
    path.write_text("old")

    def full(*_, **__):
        raise error

    if when == "mkstemp" and isinstance(error, RuntimeError):
        pytest.skip("HDF5 makes no temporary file")
    if when != "inside":
        monkeypatch.setattr({"mkstemp": files_module.tempfile, "fsync": files_module.os}[when], when, full)
    with pytest.raises(CaptionError, match=r"the disk is full, and .*features\.p is as it was"), replacing(path) as new:
        new.write_text("half")
        if when == "inside":
            full()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["features.p"]


def test_another_error_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(OSError, match="Input/output"), replacing(tmp_path / "features.p"):
        raise OSError(errno.EIO, "Input/output error")
    assert list(tmp_path.iterdir()) == []


def test_a_file_reaches_the_disk_before_its_name_does_and_its_folder_after(tmp_path, monkeypatch):
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle):
        path = Path(f"/proc/self/fd/{handle}").readlink()
        done.append("folder" if path == tmp_path else f"file of {path.stat().st_size}")
        real_sync(handle)

    def rename(self, target):
        done.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    with replacing(tmp_path / "features.p") as temporary:
        temporary.write_text("whole")
    assert done == ["file of 5", "rename", "folder"]


def test_a_name_that_no_file_can_have_is_no_file(tmp_path):
    (tmp_path / "x.h5").touch()
    assert is_file(tmp_path / "x.h5")
    assert not is_file(tmp_path)
    assert not is_file(tmp_path / ("x" * 300))  # pathlib raises an error for it, as where nobody may look


def test_only_a_regular_file_is_opened(tmp_path):
    (tmp_path / "file").write_text("text")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"text"
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name in (tmp_path / "fifo", tmp_path / "link", Path("/dev/zero"), Path("/dev/tty")):
        if name.exists():
            with pytest.raises(OSError, match="not a regular file"):
                open_regular(name)
            with pytest.raises(CaptionError, match=r"cannot read .*not a regular file"):
                list(load_pickles(name))
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "loop")


@pytest.mark.parametrize("text", ["one\ntwo", "\x1b[2Jx", "half \ud800", "a" * 10_000, ""])
def test_what_is_quoted_of_an_error_is_one_short_line(text):
    quoted = first_line(ValueError(text))
    assert quoted.isprintable() and len(quoted) <= 500


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
def test_a_disk_that_is_full_while_something_is_appended_is_one_sentence(tmp_path, number):
    path = tmp_path / "features.p.part"
    path.write_bytes(b"first")
    with (
        pytest.raises(CaptionError, match=r"the disk is full, and .*features\.p\.part ends early"),
        appending(path) as end,
    ):
        end.write(b"half of the sec")
        raise OSError(number, os.strerror(number))
    assert path.read_bytes().startswith(b"first")
    with pytest.raises(OSError, match="Input/output"), appending(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
