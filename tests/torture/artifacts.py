"""Pickles, exported models, checkpoints and merge models with bits flipped and ends cut, and hostile ones."""

import json
import pickle
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from caption_generator.common.errors import CaptionError
from caption_generator.common.pickles import load_pickles
from caption_generator.features import load_features
from caption_generator.inference.exported import ExportedModel
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.legacy.pickles import read_tokenizer, unpickle
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer
from tests.torture.corpus import flip
from tests.torture.tally import Clock, Tally
from tests.watch import resident

MOST_GROWTH = 512 << 20  # bytes of memory that one file of at most some megabytes may take


def attempt(tally: Tally, what: str, read: Callable[[], Any], right: Callable[[Any], bool] = lambda _: True) -> None:
    """Read a file: a right result or one sentence is a survival."""
    before = resident()
    try:
        found = read()
    except CaptionError as error:
        tally.check(str(error).isprintable() and len(str(error)) < 1000, f"{what}: not one sentence: {error!r:.200}")
    except BaseException as error:
        tally.check(False, f"{what}: {type(error).__name__} {error!s:.200}")
    else:
        tally.check(right(found), f"{what}: read, and wrong")
    if resident() - before > MOST_GROWTH:
        tally.lost.append(f"{what}: {(resident() - before) >> 20} MiB of memory")


def mutations(content: bytes, clock: Clock, most: int | None = None) -> Iterable[tuple[str, bytes]]:
    """Cut at up to 100 places, then flip bits until the time is over, or `most` times."""
    for cut in sorted({len(content) * part // 100 for part in range(100)}):
        yield f"cut at {cut}", content[:cut]
    seed = 0
    while clock and (most is None or seed < most):
        yield f"flipped, seed {seed}", flip(content, seed, 1 if seed % 2 else 8)
        if seed % 10 == 0:
            draw = random.Random(seed)
            start, new = draw.randrange(len(content)), draw.randbytes(draw.randint(1, 40))
            yield f"overwritten, seed {seed}", content[:start] + new + content[start + len(new) :]
        seed += 1


def vocabulary() -> Tokenizer:
    return Tokenizer([*SPECIAL_TOKENS, *(f"w{number:02}" for number in range(16))], 6)


def pickles(minutes: float, most: int | None = None) -> Tally:
    """All readers of pickles, with mutations of good files and with the hostile ones of the tests."""
    from tests.test_pickles import HOSTILE

    hostile = HOSTILE if most is None else {}  # some take a second, and have a test of their own
    tally, clock = Tally("pickles"), Clock(minutes)
    vectors = {f"{number}.jpg": np.arange(6, dtype=np.float32) for number in range(3)}
    old = {"a.jpg": np.ones((1, 6), np.float32), "b.jpg": np.ones((1, 6), np.float64)}
    good = [pickle.dumps(vocabulary().to_dict(), protocol) for protocol in (0, 2, 5)]
    good += [pickle.dumps(value, protocol) for value in (vectors, old) for protocol in (0, 2, 4, 5)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.p")
        readers = (lambda: list(load_pickles(path)), lambda: load_features(path), lambda: Tokenizer.load(path))
        readers += (lambda: unpickle(path), lambda: read_tokenizer(path))
        for name, content in hostile.items():
            path.write_bytes(content)
            for read in readers:
                attempt(tally, name, read)
        share = minutes / len(good)
        for number, content in enumerate(good):
            part = Clock(share)
            for what, mutated in mutations(content, part, most):
                path.write_bytes(mutated)
                for read in readers:
                    attempt(tally, f"pickle {number}, {what}", read)
        tally.notes.append(f"{len(hostile)} hostile ones, {len(good)} good ones mutated, {len(readers)} readers")
        tally.notes.append(f"{clock.passed:.0f} s")
    return tally


def exports(minutes: float, most: int | None = None) -> Tally:
    """Exported models, whose networks are not looked into here."""
    tally, clock = Tally("exports"), Clock(minutes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.litert")
        ExportedModel(
            "0123456789ab",
            "tiny",
            16,
            None,
            vocabulary(),
            dict.fromkeys(("encoder", "start", "step"), bytes(range(256))),
            WordDetector(np.ones(3, "f"), np.ones((20, 3), "f"), np.ones(20, "f"), 1.25),
            Familiarity(np.ones(3, "f"), 0.25, 0.75),
        ).save(path)
        whole = ExportedModel.load(path)
        for what, mutated in mutations(path.read_bytes(), Clock(minutes / 2), most):
            path.write_bytes(mutated)
            attempt(
                tally,
                what,
                lambda: ExportedModel.load(path),
                lambda found: dict(found.networks) == dict(whole.networks),
            )
        # Parts that are right by their sums, and of which the text is not.
        about = json.dumps({"format": 1, "tokenizer": vocabulary().to_dict(), "input_size": 16}).encode()
        for what, mutated in mutations(about, clock, most and most // 10):
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("about.json", mutated)
            attempt(tally, f"text {what}", lambda: ExportedModel.load(path))
    return tally


def checkpoints(minutes: float) -> Tally:
    """Checkpoints with changed bytes: refused, or read with the very weights that were saved."""
    from caption_generator.common.console import load_tensorflow

    load_tensorflow()
    from caption_generator.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from caption_generator.decoders import DecoderSpec, build_decoder
    from caption_generator.encoders import EncoderIdentity

    tally, clock = Tally("checkpoints"), Clock(minutes)
    identity = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
    decoder = build_decoder(DecoderSpec("merge", 6, 20, units=8, embedding_size=8, hidden=8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.h5")
        save_checkpoint(Checkpoint(decoder, vocabulary(), identity, training={"dataset": "drawn"}), path)
        expected = decoder.model.get_weights()

        def same(found: Checkpoint) -> bool:
            weights = found.decoder.model.get_weights()
            return all((a == b).all() for a, b in zip(weights, expected, strict=True))

        for what, mutated in mutations(path.read_bytes(), clock):
            path.write_bytes(mutated)
            attempt(tally, what, lambda: load_checkpoint(path), same)
        sentences = tally.tried - len(tally.lost)
        tally.notes.append(f"{sentences:,} read with the same weights or refused")
    return tally


def merge_models(minutes: float) -> Tally:
    """Merge models of Keras with changed bytes. They carry no sum, so they are only refused or read."""
    from caption_generator.common.console import load_tensorflow

    load_tensorflow()
    import keras

    from caption_generator.encoders import EncoderIdentity
    from caption_generator.legacy.merge_model import read_merge_model
    from caption_generator.legacy.pickles import Vocabulary

    tally, clock = Tally("merge-models"), Clock(minutes)
    identity = EncoderIdentity("mobilenet", 224, "mobilenet", 6, "0123456789ab")
    features, tokens = keras.Input((6,)), keras.Input((9,))
    image = keras.layers.Dense(8, activation="relu")(features)
    words = keras.layers.LSTM(8)(keras.layers.Embedding(20, 8, mask_zero=True)(tokens))
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Add()([image, words]))
    outputs = keras.layers.Dense(20, activation="softmax")(hidden)
    words = [f"w{number:02}" for number in range(17)]
    old = Vocabulary(Tokenizer([*SPECIAL_TOKENS, *words], 7), np.array([0, 18, 19, 0, *range(1, 18)]), 20)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "old.h5")
        keras.Model([features, tokens], outputs).save(path)
        read_merge_model(path, old, identity)  # the whole one is read
        for what, mutated in mutations(path.read_bytes(), clock):
            path.write_bytes(mutated)
            attempt(tally, what, lambda: read_merge_model(path, old, identity))
    return tally
