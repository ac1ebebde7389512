"""Every picture of the corpus is captioned or gets one sentence, and the run ends."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from caption_generator.common.errors import CaptionError
from caption_generator.images import load_pixels
from caption_generator.workspace import ROOT
from tests.torture.corpus import FORMATS, encode, make_corpus, photo
from tests.torture.tally import Clock, Tally

SCRIPT = "testing_caption_generator.py"


def images(minutes: float) -> Tally:
    """The script, once, with all files of the corpus. The peak memory is that of the script."""
    tally = Tally("images")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "corpus")
        paths = make_corpus(folder)
        command = [sys.executable, str(ROOT / SCRIPT), "--json", "-i", *map(str, paths)]
        with open(Path(temporary, "out"), "wb") as out, open(Path(temporary, "errors"), "wb") as errors:
            child = subprocess.Popen(command, stdout=out, stderr=errors, cwd=temporary)
            killer = threading.Timer(max(600, 60 * minutes), child.kill)
            killer.start()
            _, status, usage = os.wait4(child.pid, 0)
            killer.cancel()
        code = os.waitstatus_to_exitcode(status)
        captions, not_json = {}, []
        for line in Path(temporary, "out").read_bytes().splitlines():
            try:
                row = json.loads(line.decode())
                captions[row["image"]] = row["caption"]
            except ValueError:
                not_json.append(repr(line[:80]))
        text = Path(temporary, "errors").read_bytes().decode(errors="surrogateescape")
        # A name may hold a line end, so the sentences are looked up by their beginning.
        named = {str(path) for path in paths if f"{SCRIPT}: {path} " in text or f"cannot read {path}" in text}
        tally.check(code == 2, f"the exit code is {code}")
        tally.check("Traceback" not in text, "there is a traceback")
        tally.check(not (folder / "ran").exists() and not Path(temporary, "ran").exists(), "a name was run")
        for path in paths:
            tally.check(str(path) in captions or str(path) in named, f"{path.name!r} has neither caption nor sentence")
        for line in not_json:
            tally.check(False, f"not a line of JSON in UTF-8: {line}")
        turns = {captions.get(str(folder / f"orientation_{number}.png")) for number in range(1, 9)}
        tally.check(len(turns) == 1 and turns != {None}, f"the eight orientations give {turns}")
        other = [line for line in text.split("\n") if line and not line.startswith(SCRIPT)]
        tally.notes += [
            f"{len(paths):,} files",
            f"{len(captions):,} captions",
            f"{len(named):,} sentences",
            f"peak memory {usage.ru_maxrss / 1024:,.0f} MiB",
            f"{len(other)} other lines on stderr",
        ]
    return tally


def decode(path: Path) -> str:
    """Empty if a picture is read, its sentence if it is refused, and what went wrong otherwise, after a `!`."""
    try:
        pixels = load_pixels(path, 32)
    except CaptionError as error:
        return str(error)
    except BaseException as error:
        return f"!{path.name!r}: {type(error).__name__} {error}"
    return "" if pixels.shape == (32, 32, 3) and pixels.dtype == "uint8" else f"!{path.name!r}: {pixels.shape}"


def changing(minutes: float) -> Tally:
    """A file that shrinks, grows or disappears while it is read."""
    tally, clock = Tally("changing"), Clock(minutes)
    with tempfile.TemporaryDirectory() as folder:
        files = {Path(folder, f"x.{suffix}"): encode(photo(960, 640), kind) for kind, suffix in FORMATS.items()}
        done = threading.Event()

        def change() -> None:
            cut = 0
            while not done.is_set():
                for path, content in files.items():
                    cut = (cut + 7919) % len(content)
                    if cut % 5 == 0:
                        path.unlink(missing_ok=True)
                    else:
                        path.write_bytes(content if cut % 2 else content[:cut])

        changer = threading.Thread(target=change)
        changer.start()
        refused = 0
        try:
            while clock:
                for path in files:
                    found = decode(path)
                    refused += bool(found)
                    tally.check(not found.startswith("!"), found)
        finally:
            done.set()
            changer.join()
        tally.notes.append(f"{refused:,} refused")
    return tally
