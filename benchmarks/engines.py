"""LiteRT beside TensorFlow for the model that ships: `python -m benchmarks.engines`.

Both caption the same drawn photos with the same model: with TensorFlow from the checkpoint alone, with LiteRT from its
export. The script is started anew for each figure, in turn, and the median counts; so does importing TensorFlow, for
comparison. "One photo" is after loading, from its file, on one core. "Packages" is what requirements.txt installs here,
and for LiteRT requirements-caption.txt.
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from benchmarks.drawn import draw_photos
from benchmarks.tasks import median_seconds
from caption_generator.captioner import Captioner
from caption_generator.common.console import progress
from caption_generator.inference.exported import export_path, find_export
from caption_generator.workspace import BUNDLED_MODEL, ROOT

ENGINES = ("TensorFlow", "LiteRT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1000, help="in the folder (default: 1000)")
    parser.add_argument("--runs", type=int, default=3, help="of each figure (default: 3)")
    parser.add_argument("--one-photo", nargs=2, type=Path, metavar=("MODEL", "PHOTO"), help="one figure, here: seconds")
    options = parser.parse_args()
    if options.one_photo:
        print(one_photo(*options.one_photo))
        return
    with tempfile.TemporaryDirectory() as name:
        print(table(Path(name), options.photos, options.runs))


def table(folder: Path, count: int, runs: int) -> str:
    """Measure everything; Markdown."""
    models = copy_models(folder)
    (folder / "photos").mkdir()
    photos = draw_photos(folder / "photos", count)
    script = ROOT / "testing_caption_generator.py"
    works: dict[tuple[str, str], Callable[[], tuple[float, float]]] = {
        ("import", "TensorFlow"): lambda: run("-c", "import tensorflow")
    }
    for engine, model in models.items():
        works |= {
            ("cold", engine): lambda model=model: run(script, "--model", model, "-i", photos[0]),
            ("photo", engine): lambda model=model: run("-m", "benchmarks.engines", "--one-photo", model, photos[0]),
            ("folder", engine): lambda model=model: run(script, "--model", model, "-i", folder / "photos"),
        }
    found = {work: [] for work in works}
    for work in progress([*works] * runs, unit="process"):
        found[work].append(works[work]())

    def row(label: str, unit: str, value: Callable[[str], float]) -> str:
        tensorflow, litert = map(value, models)
        before, after = (f"{v:,.0f} {unit}" if v >= 100 else f"{v:.3g} {unit}" for v in (tensorflow, litert))
        return f"| {label} | {before} | {after} | {tensorflow / litert:.3g} |"

    def median(work: str, part: int, scale: float = 1) -> Callable[[str], float]:
        return lambda engine: scale * statistics.median(result[part] for result in found[work, engine])

    needed = read_requirements()
    imported = median("import", 0)("TensorFlow")
    return "\n".join(
        [
            "| | TensorFlow | LiteRT | ratio |\n|---|---|---|---|",
            row("script, one photo, cold", "s", median("cold", 0)),
            row(f"... of importing TensorFlow, {imported:.3g} s", "%", lambda e: 100 * median("cold", 0)(e) / imported),
            row("one photo after loading, one core", "ms", median("photo", 0, 1000)),
            row(f"script, {count:,} photos", "s", median("folder", 0)),
            row("peak memory of that", "MB", median("folder", 1, 1e-6)),
            row("packages", "MB", lambda engine: packages_size(needed[engine]) / 1e6),
        ]
    )


def copy_models(folder: Path) -> dict[str, Path]:
    """The checkpoint that ships in two folders, in one of them with its export."""
    models = {engine: folder / engine / BUNDLED_MODEL.name for engine in ENGINES}
    for model in models.values():
        model.parent.mkdir()
        shutil.copy(BUNDLED_MODEL, model)
    if exported := find_export(BUNDLED_MODEL):
        shutil.copy(exported, export_path(models["LiteRT"]))
    else:
        subprocess.run(
            [sys.executable, "-m", "caption_generator.inference.export", models["LiteRT"]], cwd=ROOT, check=True
        )
    return models


def run(*arguments: str | Path) -> tuple[float, float]:
    """Run Python: the number that it prints last, else its seconds; and its peak memory in bytes."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"{' '.join(map(str, arguments))} failed")
        out.seek(0)
        printed = re.fullmatch(r"(\d+\.\d+(?:e-\d+)?)\n", out.read())
    return float(printed[1]) if printed else seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def one_photo(model: Path, photo: Path) -> float:
    """Seconds for a photo after loading, on one core."""
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    captioner = Captioner.load(model)
    return median_seconds(lambda: list(captioner.caption_files([photo])), 30)


def packages_size(requirements: Sequence[Requirement]) -> int:
    """Bytes of the installed packages that are named, with those that they need."""
    waiting, seen, files = list(requirements), set(), {}
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        seen.add(str(wanted))
        package = distribution(wanted.name)
        files |= {path: path.stat().st_size for path in map(Path, map(package.locate_file, package.files or ()))}
        for inner in map(Requirement, package.requires or ()):
            extras = (extra for extra in wanted.extras if inner.marker and inner.marker.evaluate({"extra": extra}))
            if any(True for _ in extras):
                inner.marker = None
            waiting.append(inner)
    return sum(files.values())


def read_requirements() -> dict[str, list[Requirement]]:
    """What each engine needs: captioning alone with LiteRT, and everything with TensorFlow."""
    import tomllib  # of Python 3.11, while all else here runs on 3.10

    lines = (ROOT / "requirements-caption.txt").read_text().splitlines()
    caption = [line for line in lines if line and not line.startswith("#")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    needed = {"TensorFlow": [*caption, *extras["notebooks"]], "LiteRT": caption}
    return {engine: [Requirement(line) for line in lines] for engine, lines in needed.items()}


if __name__ == "__main__":
    main()
