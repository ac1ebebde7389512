"""All notebooks, again and again: their outputs must come out as they are saved."""

import os
import shutil
import subprocess
import sys
import tempfile
from itertools import cycle
from pathlib import Path

from caption_generator.workspace import ROOT
from tests.torture.tally import Clock, Tally

# As they are, without oneDNN, and with one thread.
SETTINGS = (
    {},
    {"TF_ENABLE_ONEDNN_OPTS": "0"},
    {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": "1"},
)


def notebooks(minutes: float) -> Tally:
    """nbval, for so many minutes, at least once; each time from nothing, with the settings in turn."""
    tally, clock = Tally("notebooks"), Clock(minutes)
    for settings in cycle(SETTINGS):
        with tempfile.TemporaryDirectory() as temporary:
            copy = Path(temporary, "checkout")
            tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
            for name in tracked.decode().rstrip("\0").split("\0"):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, copy / name)
            command = [sys.executable, "-m", "pytest", "-q", "--nbval", "--nbval-current-env"]
            command += ["--nbval-sanitize-with", "notebooks/sanitize.cfg", "notebooks"]
            environment = os.environ | settings | {"CAPTION_WORKSPACE": "sample", "PYTHONPATH": str(copy)}
            run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
            failed = [line for line in run.stdout.splitlines() if line.startswith("FAILED")]
            tally.check(run.returncode == 0, f"with {settings or 'no settings'}: {failed or run.stdout[-300:]}")
            tally.notes[:] = [run.stdout.strip().rpartition("\n")[2]]
        if not clock:
            break
    return tally
