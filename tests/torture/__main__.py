"""Run the parts, each in a process of its own, and print one row for each.

A part that crashes the interpreter is a row, too.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module

from tests.torture.tally import Tally

# The module of each part and its function, which is given the minutes that it may take.
PARTS = {
    "images": ("pictures", "images"),
    "changing": ("pictures", "changing"),
    "pickles": ("artifacts", "pickles"),
    "exports": ("artifacts", "exports"),
    "checkpoints": ("artifacts", "checkpoints"),
    "merge-models": ("artifacts", "merge_models"),
    "kill-extraction": ("kills", "extraction"),
    "kill-training": ("kills", "training"),
    "kill-finetuning": ("kills", "finetuning"),
    "kill-recipe": ("kills", "whole_recipe"),
    "disk-full": ("kills", "disk_full"),
    "two-runs": ("kills", "two_runs"),
    "load": ("load", "load"),
    "many-files": ("load", "many_files"),
    "notebooks": ("notebooks", "notebooks"),
}
MARK = "result: "


def find(part: str) -> Callable[[float], Tally]:
    module, name = PARTS[part]
    return getattr(import_module(f"tests.torture.{module}"), name)


def in_process_of_its_own(part: str, minutes: float) -> tuple[Tally, float]:
    command = [sys.executable, "-m", "tests.torture", part, "--minutes", str(minutes), "--here"]
    start = time.monotonic()
    try:
        child = subprocess.run(command, capture_output=True, check=False, timeout=60 * (10 * minutes + 60))
    except subprocess.TimeoutExpired:
        return Tally(part, 1, ["the part itself does not end"]), time.monotonic() - start
    passed = time.monotonic() - start
    last = child.stdout.decode(errors="replace").rpartition(MARK)[2]
    if child.returncode == 0 and last:
        return Tally(**json.loads(last)), passed
    end = child.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return Tally(part, 1, [f"the part itself ended with {child.returncode}: {end}"]), passed


def main() -> int:
    parser = argparse.ArgumentParser(description="Prove by numbers that nothing is lost and nobody let in.")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=2, help="that each part may take (default: 2)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {unknown.pop()}: choose of {', '.join(PARTS)}")
    if options.here:
        print(MARK + json.dumps(asdict(find(options.parts[0])(options.minutes))))
        return 0

    lost = 0
    print(f"{'part':16} {'tried':>7} {'survived':>8} {'lost':>5} {'minutes':>7}  notes")
    for part in options.parts or PARTS:
        tally, passed = in_process_of_its_own(part, options.minutes)
        lost += len(tally.lost)
        survived = tally.tried - len(tally.lost)
        notes = "; ".join(tally.notes)
        print(f"{part:16} {tally.tried:7,} {survived:8,} {len(tally.lost):5,} {passed / 60:7.1f}  {notes}", flush=True)
        for complaint in tally.lost[:20]:
            print(f"    lost: {complaint}", flush=True)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
