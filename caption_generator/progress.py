"""The progress bar of every long step."""

import sys
from typing import Any

from tqdm import tqdm


def progress_options() -> dict[str, Any]:
    """Where tqdm writes: a notebook keeps the bar among its results, a terminal keeps stdout for the captions."""
    in_notebook = "ipykernel" in sys.modules
    return {"file": sys.stdout if in_notebook else sys.stderr, "ncols": 80}


def progress(iterable: Any = None, **options: Any) -> tqdm:
    """`tqdm.tqdm`, written to where this process wants it."""
    return tqdm(iterable, **progress_options() | options)
