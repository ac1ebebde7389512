"""How long the script takes from nothing to a caption: `python -m benchmarks.cold_start`.

It cannot be faster than importing TensorFlow, so that is what it is compared with, run for run.
"""

import argparse
import statistics
import subprocess
import sys
import time

from caption_generator.workspace import ROOT

PHOTO = ROOT / "examples" / "photographer.jpg"
COMMANDS = {
    "import tensorflow": [sys.executable, "-c", "import tensorflow"],
    "one photo": [sys.executable, ROOT / "testing_caption_generator.py", "-i", PHOTO],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each, after one that is not counted (default: 5)")
    runs = parser.parse_args().runs
    seconds = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:20}{median:6.2f} s")
    print(f"{'ratio':20}{medians['one photo'] / medians['import tensorflow']:6.2f}")


if __name__ == "__main__":
    main()
