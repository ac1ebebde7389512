"""Numbers out of files that are not trusted."""

import math
from typing import Any

import numpy as np


def finite_number(name: str, value: Any) -> float:
    """A number.

    Raises:
        ValueError: it is not finite, or not a number at all.
    """
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{name} is {number}")
    return number


def finite(name: str, values: Any) -> np.ndarray:
    """An array in float32.

    Raises:
        ValueError: a number is not finite, or what was there are not numbers.
    """
    with np.errstate(over="ignore"):
        values = np.asarray(values, np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return values
