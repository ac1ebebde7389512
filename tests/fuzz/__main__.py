"""Fuzz one target. What follows its name is for libFuzzer: its options, and folders of inputs."""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import atheris

TARGETS = ("pickles", "images", "captions", "exports", "checkpoints", "merge_models", "torch_files")


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz TARGET [-max_total_time=SECONDS] [FOLDER ...], of {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["caption_generator", "pickle"]):
        target = import_module(f"tests.fuzz.{name}")
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "seeds")
        seeds.mkdir()
        for number, content in enumerate(target.seeds()):
            Path(seeds, str(number)).write_bytes(content)
        path = Path(folder, target.NAME)

        def one_input(content: bytes) -> None:
            path.write_bytes(content)
            target.read(path)

        program, *options = sys.argv
        atheris.Setup([program, "-rss_limit_mb=4096", "-timeout=60", *options, str(seeds)], one_input)
        atheris.Fuzz()  # which ends the process


if __name__ == "__main__":
    main()
