"""Runs that are killed, find the disk full or meet each other, on the sample, with a small encoder and decoder.

Each run is a fork of this process, which has imported TensorFlow and has not used it: so a trial takes a second.
"""

import filecmp
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")  # sums are added up in the same order each time
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import keras
import numpy as np
import tensorflow as tf

from caption_generator import evaluate
from caption_generator.captioner import Captioner
from caption_generator.captions import Dataset, prepare, subset
from caption_generator.checkpoint import Checkpoint, arrays_digest, read_about
from caption_generator.common.errors import CaptionError
from caption_generator.common.hdf5 import open_plain
from caption_generator.decoders import DecoderSpec
from caption_generator.encoders import ENCODERS, Encoder, EncoderIdentity, EncoderRow, build_encoder
from caption_generator.features import Features, extract_features, load_features
from caption_generator.finetuning import recipe
from caption_generator.finetuning.finetune import FinetuneSettings, train_captioner
from caption_generator.search import Caption
from caption_generator.systems import SYSTEMS, System
from caption_generator.tokenizer import fit_tokenizer
from caption_generator.train import TrainSettings, build_system, train_decoder
from caption_generator.training_loop import read_history
from caption_generator.workspace import SAMPLE, Workspace
from tests.torture.tally import Clock, Tally

DONE, SENTENCE, OTHER = 0, 3, 4  # exit codes of a run
EPOCHS = 6
SMALL_DECODER = DecoderSpec("merge", units=8, embedding_size=8, hidden=8)
Run = Callable[[Path], None]


def fork(run: Run, folder: Path) -> int:
    """Start `run` in a process of its own; its number."""
    child = os.fork()
    if child:
        return child
    code = OTHER
    try:
        with open(folder.with_suffix(".log"), "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            try:
                run(folder)
                code = DONE
            except CaptionError as error:
                print(f"sentence: {error}", file=log, flush=True)
                code = SENTENCE
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=log, flush=True)
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def extract(folder: Path) -> None:
    """Features of the sample's pictures, made by a small encoder with random weights."""
    workspace = Workspace(SAMPLE, folder)
    extract_features(small_encoder(), workspace.images, workspace.image_names(), workspace.features, batch_size=4)


def small_encoder() -> Encoder:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    backbone = keras.Model(inputs, keras.layers.Conv2D(6, 3, strides=2, activation="relu")(inputs))
    pixels = keras.Input((16, 16, 3), name="pixels")
    preprocessed = keras.applications.mobilenet_v2.preprocess_input(pixels)
    mean = keras.layers.GlobalAveragePooling2D()(backbone(preprocessed, training=False))
    model = keras.Model(pixels, mean, name="encoder")
    return Encoder(EncoderRow("tiny", "Tiny", "mobilenet_v2", 16, 6), "avg", model, backbone, preprocessed)


def train(folder: Path) -> None:
    """A small decoder, on drawn features and captions."""
    tf.config.experimental.enable_op_determinism()
    random_numbers = np.random.default_rng(0)
    captions = {f"{n}.jpg": [f"a w{n % 7} w{n % 5}", f"the w{n % 3} of w{n % 7}"] for n in range(40)}
    vectors = {name: random_numbers.normal(size=6).astype("f") for name in captions}
    names = list(captions)
    data = Dataset(
        {name: captions[name] for name in names[:32]}, {name: captions[name] for name in names[32:]}, captions
    )
    identity = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
    system = System("drawn", "mobilenet", SMALL_DECODER, min_count=1)
    settings = TrainSettings(epochs=EPOCHS, batch_size=4)
    train_decoder(data, Features(vectors, identity), fit_tokenizer(data.train, 1), folder, system, settings)


def small_system() -> System:
    """Makes the smallest network of Keras the recipe's encoder, with random weights; the recipe's system with it."""
    row = EncoderRow("tiny", "MobileNet", "mobilenet", 32, 256, "conv_pw_5_relu", (("alpha", 0.25),))
    ENCODERS["tiny"] = row
    return replace(
        SYSTEMS[recipe.SYSTEM], encoder="tiny", min_count=2, decoder=replace(SMALL_DECODER, name="attention")
    )


def finetune(folder: Path) -> None:
    """The decoder and half of the encoder, on some of the sample's pictures."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    workspace, system = Workspace(SAMPLE, folder), small_system()
    data = few(prepare(workspace))
    tokenizer = fit_tokenizer(data.train, system.min_count)
    encoder = build_encoder("tiny", None, system.pooling)
    decoder = build_system(system, encoder.row.feature_size, tokenizer)
    settings = FinetuneSettings(epochs=EPOCHS, images_per_batch=8, views=1)
    checkpoint = Checkpoint(decoder, tokenizer, encoder.identity, encoder)
    train_captioner(checkpoint, encoder, workspace.images, data, folder / "finetuned", settings)


def follow_recipe(folder: Path) -> None:
    """The whole recipe on some of the sample's pictures, with an epoch or two for each of its runs."""
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    SYSTEMS[recipe.SYSTEM] = small_system()
    evaluate.has_java = lambda: False
    recipe.load_encoder = lambda name, pooling: build_encoder(name, None, pooling)
    recipe.load_classifier = lambda name: None
    recipe.prepare = lambda workspace: few(prepare(workspace))
    recipe.AVERAGED = 2
    small = {"epochs": 2, "images_per_batch": 8, "views": 1}
    recipe.STAGES = {stage: [replace(run, **small) for run in runs] for stage, runs in recipe.STAGES.items()}
    recipe.run(Workspace(SAMPLE, folder))


def few(data: Dataset) -> Dataset:
    """The first photos of `data`."""
    return replace(data, train=subset(data.train, list(data.train)[:24]), dev=subset(data.dev, list(data.dev)[:4]))


def torn(folder: Path) -> list[str]:
    """What lies under a final name in `folder` and is not whole."""
    found = []
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.suffix == ".h5":
                with open_plain(path) as file:
                    if arrays_digest(file) != read_about(path)["arrays"]:
                        raise ValueError("another digest")
            elif path.name == "features.p":
                load_features(path)
            elif path.name == "history.csv":
                read_history(path)
            elif path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    _ = [arrays[name] for name in arrays]
        except Exception as error:
            found.append(f"{path.name} is torn ({error!r:.100})")
    return found


def differing(folder: Path, whole: Path) -> list[str]:
    """The files that an uninterrupted run left and this folder has not, or not with the same content."""
    found = []
    for path in whole.rglob("*"):
        other = folder / path.relative_to(whole)
        if path.is_dir() or path.name == ".lock":
            continue
        if not other.is_file():
            found.append(f"{path.name} is missing")
        elif path.suffix == ".h5":
            if digest(path) != digest(other):
                found.append(f"{path.name} has other weights")
        elif path.suffix == ".litert":  # it names the file that it was made from, and Keras numbers layers anew
            if captions(path) != captions(other):
                found.append(f"{path.name} writes other captions")
        elif path.suffix == ".npz":
            with np.load(path) as one, np.load(other) as two:
                if any(not np.array_equal(one[name], two[name]) for name in one):
                    found.append(f"{path.name} has other arrays")
        elif not filecmp.cmp(path, other, shallow=False):
            found.append(f"{path.name} has other bytes")
    return found


def digest(path: Path) -> str:
    with open_plain(path) as file:
        return arrays_digest(file)


def captions(model: Path) -> list[tuple[Caption, ...]]:
    """Those of some of the sample's pictures."""
    pictures = sorted((SAMPLE / "Flickr8k_Dataset").glob("*.jpg"))[:4]
    return [result.captions for result in Captioner.load(model).caption_files(pictures)]


@contextmanager
def uninterrupted(run: Run) -> Iterator[tuple[Path, Path, float]]:
    """An empty folder for trials, the folder of an uninterrupted run, and the seconds that it took."""
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary, "whole")
        whole.mkdir()
        start = time.monotonic()
        code = wait(fork(run, whole))
        if code != DONE:
            raise RuntimeError(
                f"the uninterrupted run ends with {code}: {whole.with_suffix('.log').read_text()[-500:]}"
            )
        yield Path(temporary), whole, time.monotonic() - start


def extraction(minutes: float) -> Tally:
    return killed("kill-extraction", extract, minutes)


def training(minutes: float) -> Tally:
    return killed("kill-training", train, minutes)


def finetuning(minutes: float) -> Tally:
    return killed("kill-finetuning", finetune, minutes)


def whole_recipe(minutes: float) -> Tally:
    return killed("kill-recipe", follow_recipe, minutes)


def killed(part: str, run: Run, minutes: float) -> Tally:
    """Kill the run at random moments, up to five times in the same folder, then let it end: nothing may differ."""
    tally, clock, draw = Tally(part), Clock(minutes), random.Random(0)
    with uninterrupted(run) as (temporary, whole, seconds):
        kills = rounds = 0
        while clock or not rounds:
            folder = temporary / f"round{rounds}"
            folder.mkdir()
            rounds += 1
            for _ in range(draw.randint(1, 5)):
                child = fork(run, folder)
                time.sleep(draw.uniform(0.2, 1) * seconds)
                os.kill(child, signal.SIGKILL)
                if wait(child) != -signal.SIGKILL:
                    continue  # it had ended
                kills += 1
                left = torn(folder)
                tally.check(not left, f"round {rounds}, after a kill: {left}")
            code = wait(fork(run, folder))
            problems = differing(folder, whole)
            if code != DONE or problems:
                tally.lost.append(f"round {rounds}: the last run ends with {code}, and {problems}")
            shutil.rmtree(folder)
        tally.notes.append(f"{kills} kills in {rounds} rounds; a whole run takes {seconds:.1f} s")
    return tally


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[str]:
    """A disk of `size` bytes at `folder`, or at least a limit on the size of files; which of the two, in words."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform == "linux" and not subprocess.run(command, capture_output=True, check=False).returncode:
        try:
            yield "a tmpfs"
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
    else:
        yield "a limit on the size of files"


def disk_full(minutes: float) -> Tally:
    """The disk is full at different moments: a sentence, nothing destroyed, and the next run goes on."""
    tally, clock = Tally("disk-full"), Clock(minutes)
    for run in (extract, train):
        with uninterrupted(run) as (temporary, whole, _):
            needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
            full = 0
            for trial in range(20):
                if not clock and trial:
                    break
                # From hardly anything to just too little.
                size = (4096 * 2 + int(needed * (trial * 7 % 20) / 20)) // 4096 * 4096
                disk = temporary / f"disk{trial}"
                with small_disk(disk, size) as kind:
                    limited = run if kind == "a tmpfs" else limit_files(run, size // 4)
                    folder = disk / "out"
                    folder.mkdir()
                    code = wait(fork(lambda folder, limited=limited: limited(folder / "out"), disk))
                    text = disk.with_suffix(".log").read_text()
                    said = code == SENTENCE and ("disk is full" in text or "No space left" in text)
                    full += code == SENTENCE
                    left = torn(folder)
                    tally.check(
                        (said or code == DONE) and not left, f"{run.__name__} with {size}: {text[-200:]} {left}"
                    )
                    rescued = temporary / f"rescued{trial}"
                    shutil.copytree(folder, rescued)
                code = wait(fork(run, rescued))
                problems = differing(rescued, whole)
                if code != DONE or problems:
                    tally.lost.append(f"{run.__name__} with {size}, run again: {code} {problems}")
            tally.notes.append(f"{run.__name__}: {full} times full, by {kind}")
    return tally


def limit_files(run: Run, size: int) -> Run:
    def limited(folder: Path) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        run(folder)

    return limited


def two_runs(minutes: float) -> Tally:
    """Two runs in one folder at once: at least one ends well, the other too or with a sentence; nothing differs."""
    tally, clock = Tally("two-runs"), Clock(minutes)
    for run in (extract, train):
        turned_away = 0
        with uninterrupted(run) as (temporary, whole, _):
            for trial in range(10):
                if not clock and trial:
                    break
                folder = temporary / f"both{trial}"
                folder.mkdir()
                codes = [wait(child) for child in [fork(run, folder), fork(run, folder)]]
                text = folder.with_suffix(".log").read_text()
                turned_away += codes.count(SENTENCE)
                fine = DONE in codes and set(codes) <= {DONE, SENTENCE}
                fine = fine and (SENTENCE not in codes or "another run is writing" in text)
                problems = differing(folder, whole)
                tally.check(fine and not problems, f"{run.__name__}: {codes} {problems} {text[-200:]}")
        tally.notes.append(f"{run.__name__}: {turned_away} turned away")
    return tally
