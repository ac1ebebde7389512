"""The ancestors' way beside this project's, in one run: `python -m benchmarks`.

Each task of `tasks.py` runs in a process of its own, three times, the two ways in turn, and the median counts. Then
come a table and a picture, `speed.png`. No data and no download is needed: captions and photos are drawn, weights are
random, except in the script and the encoder that is fine-tuned, which are of the model that ships.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One line of the table: how many times faster `fast` is than `slow`, both tasks of `tasks.py`, and should be."""

    work: str
    slow: str
    fast: str
    aim: float | None = None


ROWS = (
    Row("one epoch, 30,000 captions, 7,577 words", "ancestors_epoch", "project_epoch", 30),
    Row("... the words seen 4 times or more, 3,000", "ancestors_epoch", "project_epoch_of_frequent_words", 30),
    Row("a caption of 12 words, greedily", "ancestors_greedy", "project_greedy", 40),
    Row("... with beam 5, against theirs greedily", "ancestors_greedy", "project_beam_5", 15),
    Row("Xception features of a photo", "ancestors_xception", "project_xception"),
    Row("... against the bare network on batches", "bare_xception", "project_xception", 0.95),
    Row("script, one photo, from nothing", "ancestors_script", "project_script"),
    Row("... against importing TensorFlow", "import_tensorflow", "project_script", 10),
    Row("script, 1,000 photos, theirs started for each", "ancestors_script", "project_folder"),
    Row("... against its bare encoder on batches", "bare_bundled", "project_folder", 0.8),
    Row("a step of fine-tuning, against Keras' layers", "plain_finetuning", "project_finetuning"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each task (default: 3)")
    parser.add_argument(
        "--rows",
        nargs="+",
        type=int,
        choices=range(1, len(ROWS) + 1),
        metavar="N",
        help="time only these rows, counted from 1, and keep what the others gave before",
    )
    parser.add_argument(
        "--out", type=Path, default=HERE / "speed.png", help="the picture; beside it the seconds, .json"
    )
    options = parser.parse_args()
    rows = [ROWS[number - 1] for number in options.rows] if options.rows else ROWS
    tasks = list(dict.fromkeys(task for row in rows for task in (row.slow, row.fast)))
    seconds = {task: [] for task in tasks}
    for task in tqdm(tasks * options.runs, unit="process"):
        seconds[task].append(measure(task))
    kept = options.out.with_suffix(".json")
    seconds = (json.loads(kept.read_text()) if kept.exists() else {}) | seconds
    medians = {task: statistics.median(values) for task, values in seconds.items()}
    known = [row for row in ROWS if row.slow in medians and row.fast in medians]
    print(table(known, medians))
    kept.write_text(json.dumps(seconds, indent=1) + "\n")
    draw(known, medians, options.out)


def measure(task: str) -> float:
    """Run one task in a new process."""
    command = [sys.executable, "-m", "benchmarks.tasks", task]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return float(done.stdout)


def table(rows: Sequence[Row], medians: dict[str, float]) -> str:
    """Markdown."""
    lines = ["| work | before | here | times faster | aim |", "|---|---|---|---|---|"]
    for row in rows:
        slow, fast = medians[row.slow], medians[row.fast]
        aim = f"{row.aim:.3g}" if row.aim else ""
        lines.append(f"| {row.work} | {unit(slow)} | {unit(fast)} | {slow / fast:.3g} | {aim} |")
    return "\n".join(lines)


def unit(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:,.0f} s" if seconds >= 100 else f"{seconds:.3g} s"


def draw(rows: Sequence[Row], medians: dict[str, float], path: Path) -> None:
    """The ratios as bars on a logarithmic scale, with a mark at each aim."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(10, 0.5 * len(rows) + 1))
    for place, row in enumerate(rows):
        slow, fast = medians[row.slow], medians[row.fast]
        axis.barh(place, slow / fast - 1, left=1, color="#3b6ea5" if slow > fast else "#d9822b")
        label = f"  {slow / fast:.3g} times   {unit(slow)} → {unit(fast)}"
        axis.text(max(slow / fast, row.aim or 1, 1), place, label, va="center", fontsize=9)
    aims = [row.aim or float("nan") for row in rows]
    axis.plot(aims, range(len(rows)), "|", color="black", markersize=16, label="aim")
    axis.set_xscale("log")
    axis.set_xlim(0.5, 30 * max(medians[row.slow] / medians[row.fast] for row in rows))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_yticks(range(len(rows)), [row.work for row in rows])
    axis.invert_yaxis()
    axis.set_xlabel("times faster")
    axis.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
