"""What the commands' options have in common."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on, for `add_argument(type=positive)`."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
