"""The terminal: progress bars, numbers on the command line, and libraries that must not write to it."""

import argparse
import codecs
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

from caption_generator.common.errors import CaptionError


def progress(iterable: Any = None, **options: Any) -> tqdm:
    """`tqdm.tqdm`, written to where this process wants it.

    A notebook keeps the bar among its results, a terminal keeps stdout for the captions.
    """
    in_notebook = "ipykernel" in sys.modules
    return tqdm(iterable, file=sys.stdout if in_notebook else sys.stderr, **{"ncols": 90} | options)


def positive(text: str) -> int:
    """A whole number from 1 on, for `add_argument(type=positive)`."""
    try:
        number = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number") from error
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def beam_width(text: str) -> int:
    """As `positive`, up to 1,000: a wider beam takes gigabytes, and hours."""
    number = positive(text)
    if number > 1000:
        raise argparse.ArgumentTypeError(f"{text} is more than 1000")
    return number


def json_line(value: Any) -> str:
    """JSON on one line that stdout can take: UTF-8 as it is, and an escape for what is not printable or not text."""
    line = json.dumps(value, ensure_ascii=False)
    line = "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in line)
    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


def let_stdout_take_any_text() -> None:
    """Write UTF-8 to a file or a pipe, whatever the system's encoding; on a terminal, escape what it lacks.

    Bytes of a file's name that are not text come out as they are.
    """
    codecs.register_error("any_text", _any_text)
    encoding = None if sys.stdout.isatty() else "utf-8"
    sys.stdout.reconfigure(encoding=encoding, errors="any_text")  # type: ignore[union-attr]


def _any_text(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    char = error.object[error.start]
    if "\udc80" <= char <= "\udcff":  # where Python keeps a byte that is not text
        return bytes([ord(char) - 0xDC00]), error.start + 1
    return char.encode("unicode_escape").decode(), error.start + 1


def put_line(line: str) -> None:
    """Print a line at once: whoever reads it need not wait for the end of the run.

    Raises:
        BrokenPipeError: the reader has gone.
        CaptionError: it cannot be written; the disk may be full.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        drop_stdout()
        raise CaptionError(
            f"the captions cannot be written any further ({error.strerror}): send them elsewhere and run this again."
        ) from error


def drop_stdout() -> None:
    """Let what stdout still holds go nowhere, or Python would complain of it at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def quiet_at_ctrl_c(main: Callable[[], int]) -> int:
    """The exit code of a command: that of `main`, or 130 after Ctrl-C, which the user knows of without a traceback.

    What is written to a stdout or stderr that the caller has closed (`>&-`) goes nowhere.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        return main()
    except KeyboardInterrupt:
        return 130


class Shared:
    """A context that several threads may be in at once: the first one enters it, the last one leaves it.

    Args:
        make: makes the context.
    """

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager]):
        self._make, self._lock, self._inside = make, threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._context = self._make()
                self._context.__enter__()
            self._inside += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._context.__exit__(None, None, None)


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


_silence = Shared(_without_stderr)


def native_stderr_silenced() -> Shared:
    """A context that drops what C++ code and child processes write to stderr, such as TensorFlow's start-up messages.

    Threads may be in it at the same time: stderr comes back with the last one.
    """
    return _silence


def load_tensorflow(deterministic: bool = False) -> None:
    """Import TensorFlow without the messages of its start-up and of its search for a GPU. Errors still raise.

    Args:
        deterministic: let the same training give the same numbers on every run on one machine.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with native_stderr_silenced():
        import tensorflow as tf

        tf.config.list_logical_devices()
    tf.get_logger().setLevel("ERROR")  # it warns when several models are traced one after the other, as is meant here
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def need_tensorflow(what: Any) -> None:
    """As `load_tensorflow`, for a command.

    Args:
        what: needs it.

    Raises:
        CaptionError: it is not installed.
    """
    try:
        load_tensorflow()
    except ImportError as error:
        raise CaptionError(f"{what} needs TensorFlow ({error}): pip install -r requirements.txt.") from error
