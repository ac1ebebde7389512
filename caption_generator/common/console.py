"""The terminal: progress bars, numbers on the command line, and libraries that must not write to it."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


def progress(iterable: Any = None, **options: Any) -> tqdm:
    """`tqdm.tqdm`, written to where this process wants it.

    A notebook keeps the bar among its results, a terminal keeps stdout for the captions.
    """
    in_notebook = "ipykernel" in sys.modules
    return tqdm(iterable, file=sys.stdout if in_notebook else sys.stderr, **{"ncols": 90} | options)


def positive(text: str) -> int:
    """A whole number from 1 on, for `add_argument(type=positive)`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


@contextlib.contextmanager
def native_stderr_silenced() -> Iterator[None]:
    """Drop what C++ code and child processes write to stderr, such as TensorFlow's start-up messages."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


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
