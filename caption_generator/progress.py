"""The progress bar of every long step."""

import sys
from typing import Any

from tqdm import tqdm


def progress(iterable: Any = None, **options: Any) -> tqdm:
    """`tqdm.tqdm`, written to where this process wants it.

    A notebook keeps the bar among its results, a terminal keeps stdout for the captions.
    """
    in_notebook = "ipykernel" in sys.modules
    return tqdm(iterable, file=sys.stdout if in_notebook else sys.stderr, **{"ncols": 90} | options)
