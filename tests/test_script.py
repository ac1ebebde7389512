"""Tests of testing_caption_generator.py, run as its users run it."""

import json
import os
import shlex
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

import testing_caption_generator
from caption_generator import plots
from caption_generator.captioner import Result
from caption_generator.checkpoint import Checkpoint, save_checkpoint
from caption_generator.decoders import DecoderSpec, build_decoder
from caption_generator.encoders import build_encoder
from caption_generator.search import Caption
from caption_generator.tokenizer import SPECIAL_TOKENS, Tokenizer

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "testing_caption_generator.py"
WORDS = [f"w{number:02}" for number in range(16)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A checkpoint with MobileNet inside; it writes nonsense, but never nothing."""
    keras.utils.set_random_seed(0)
    encoder = build_encoder("mobilenet", weights=None)
    tokenizer = Tokenizer([*SPECIAL_TOKENS, *WORDS], max_length=4)
    decoder = build_decoder(DecoderSpec("merge", 768, len(tokenizer), units=8, embedding_size=8, hidden=8))
    bias = decoder.model.get_layer("next_word").bias
    bias.assign(np.where(np.arange(20) == 2, -5, bias.numpy()))
    path = tmp_path_factory.mktemp("workspace") / "models" / "model.h5"
    save_checkpoint(Checkpoint(decoder, tokenizer, encoder.identity, encoder), path, half=True)
    return path


def command(*arguments) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def environment() -> dict[str, str]:
    hidden = ("DISPLAY", "WAYLAND_DISPLAY", "MPLBACKEND", "TF_CPP_MIN_LOG_LEVEL")
    return {name: value for name, value in os.environ.items() if name not in hidden}


def run(*arguments, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def assert_is_caption(text: str) -> None:
    assert 1 <= len(text.split()) <= 4
    assert set(text.split()) <= set(WORDS)


def test_one_photo_gives_one_line_and_nothing_else(model, workspace):
    done = run("-i", workspace.images / workspace.image_names()[0], "--model", model)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n")
    assert_is_caption(done.stdout.removesuffix("\n"))
    assert done.stdout.count("\n") == 1


def test_many_photos_give_a_line_each_and_show_writes_a_picture_where_there_is_no_display(model, workspace):
    folder = workspace.images
    three = folder.parent / "three"
    three.mkdir()
    names = workspace.image_names()
    for name in names[:3]:
        (folder / name).rename(three / name)
    done = run(
        *("-i", "three", f"{folder.name}/0[345]*", f"{folder.name}/{names[6]}"),
        *("--model", model, "--beam", 1, "--show", "--out", "out/shown.png"),
        folder=folder.parent,
    )
    assert done.returncode == 0
    assert done.stderr == "testing_caption_generator.py: no display: the picture is in out/shown.png.\n"
    files, captions = zip(*(line.split("\t") for line in done.stdout.splitlines()), strict=True)
    assert list(files) == [f"three/{n}" for n in names[:3]] + [f"{folder.name}/{n}" for n in names[3:7]]
    for caption in captions:
        assert_is_caption(caption)
    with Image.open(folder.parent / "out" / "shown.png") as picture:
        assert picture.format == "PNG"


def test_the_picture_of_show_never_takes_the_place_of_a_photo(model, workspace):
    photo = workspace.images / workspace.image_names()[0]
    before = photo.read_bytes()
    done = run("-i", workspace.images, "--model", model, "--show", "--out", photo)
    assert (done.returncode, done.stdout, photo.read_bytes()) == (2, "", before)
    assert done.stderr.endswith("is one of the photos: name another picture with --out.\n")
    loop = workspace.images.parent / "loop.jpg"
    loop.symlink_to(loop)
    done = run("-i", photo, loop, "--model", model, "--show", "--out", workspace.images.parent / "shown.png")
    assert (done.returncode, done.stdout.count("\n")) == (2, 1)
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes streams")
def test_closed_streams_cost_no_caption(model, workspace):
    photo = workspace.images / workspace.image_names()[0]
    caption = run("-i", photo, "--model", model).stdout
    for closed, expected in ((">&-", ""), ("2>&-", caption)):
        line = f"{shlex.join(command('-i', photo, '--model', model))} {closed}"
        done = subprocess.run(["sh", "-c", line], env=environment(), capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def test_a_bad_photo_costs_its_own_caption_and_json_says_all(model, workspace):
    Tokenizer([*SPECIAL_TOKENS, "dog"], 6).save(model.parent.parent / "tokenizer.p")
    good = [workspace.images / name for name in workspace.image_names()[:2]]
    bad = workspace.images / "bad.jpg"
    bad.write_bytes(b"no picture")
    nowhere = workspace.images / "nothing*.jpg"
    done = run("-i", good[0], bad, nowhere, good[1], "--model", model, "--json", "--top", 4)
    (model.parent.parent / "tokenizer.p").unlink()
    assert done.returncode == 2
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["image"] for line in lines] == [str(good[0])] * 4 + [str(good[1])] * 4
    for line in lines:
        assert list(line) == ["image", "caption", "score"]
        assert_is_caption(line["caption"])
        assert 0 < line["score"] <= 1
    for four in (lines[:4], lines[4:]):
        assert len({line["caption"] for line in four}) == 4
        assert sorted(four, key=lambda line: -line["score"]) == four
    note, *errors = done.stderr.splitlines()
    assert "the vocabulary inside" in note
    assert len(errors) == 2
    assert any("bad.jpg cannot be read as a picture" in error for error in errors)
    assert any("nothing*.jpg matches no file" in error for error in errors)


def test_a_name_that_is_not_text_is_printed_as_it_is(model, tmp_path):
    photo = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        Image.new("RGB", (40, 30)).save(os.fsdecode(photo))
    except OSError:
        pytest.skip("this file system only has names that are text")
    printed = subprocess.check_output(command("-i", tmp_path, "--model", model), env=environment())
    assert printed.startswith(photo + b"\t")


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_names_outside_the_code_page_cost_no_caption(model, tmp_path, encoding):
    for name in ("日本.jpg", "été.jpg", "x.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    settings = environment() | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    printed = subprocess.check_output(command("-i", tmp_path, "--model", model), env=settings)
    names = [line.split("\t")[0] for line in printed.decode("utf-8").splitlines()]
    assert names == [str(tmp_path / name) for name in ("x.jpg", "été.jpg", "日本.jpg")]
    printed = subprocess.check_output(command("-i", tmp_path, "--model", model, "--json"), env=settings)
    assert [json.loads(line)["image"] for line in printed.decode("utf-8").splitlines()] == names


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("missing.h5", "missing.h5 does not exist"),
        (".", ". is a folder, not a model: name an .h5 or .litert file.\n"),
        ("x" * 300, "cannot be read (File name too long)"),
        ("/dev/null", "/dev/null is a device, not a model"),
    ],
)
def test_a_missing_model_is_one_sentence(workspace, model, sentence):
    done = run("-i", workspace.images, "--model", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert sentence in done.stderr


def test_a_reader_that_has_seen_enough_hears_no_complaint(model, workspace):
    with subprocess.Popen(
        command("-i", workspace.images, "--model", model, "--beam", 1),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_captions_that_cannot_be_written_are_one_sentence(model, workspace):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command("-i", workspace.images, "--model", model, "--beam", 1),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "captions cannot be written any further (No space left on device)" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "required: -i/--image"),
        (("-i", "x.jpg", "--beam", "0"), "--beam: 0 is not 1 or more"),
        (("-i", "x.jpg", "--beam", "100000"), "--beam: 100000 is more than 1000"),
        (("-i", "x.jpg", "--top", "many"), "--top"),
    ],
)
def test_wrong_arguments_show_the_usage(arguments, message):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: testing_caption_generator.py")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_examples():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples:\n  python testing_caption_generator.py -i dog.jpg" in done.stdout


def test_a_picture_of_thousands_of_photos_has_the_first_of_them_and_says_so(monkeypatch, workspace, capsys):
    caption = Caption("a wall", (("a", 0.5), ("wall", 0.5), ("<end>", 0.5)), -0.7)
    stub = SimpleNamespace(
        engine=SimpleNamespace(tokenizer=None), caption_files=lambda paths: [Result(path, (caption,)) for path in paths]
    )
    drawn: list[Result] = []
    monkeypatch.setattr(testing_caption_generator, "MOST_SHOWN", 5)
    monkeypatch.setattr(testing_caption_generator.Captioner, "load", lambda *_: stub)
    monkeypatch.setattr(testing_caption_generator, "vocabulary_note", lambda *_: "")
    monkeypatch.setattr(plots, "show_or_save", lambda results, path: drawn.extend(results))
    monkeypatch.setattr(sys, "argv", ["testing_caption_generator.py", "-i", str(workspace.images), "--show"])
    assert testing_caption_generator.main() == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 12
    assert [result.path.name for result in drawn] == workspace.image_names()[:5]
    assert printed.err == "testing_caption_generator.py: the picture shows the first 5 photos of 12.\n"


def test_captions_that_are_written_are_not_kept(monkeypatch, workspace, capsys):
    """Their attention weights would make the memory of a run grow with the number of its photos."""
    kept: list[weakref.ref] = []

    class Stub:
        engine = SimpleNamespace(tokenizer=None)

        def caption_files(self, paths):
            for path in paths:
                result = Result(path, (Caption("a wall", (("a", 0.5), ("wall", 0.5), ("<end>", 0.5)), -0.7),))
                kept.append(weakref.ref(result))
                yield result
                del result
                assert sum(one() is not None for one in kept) <= 1  # the script's own variable

    monkeypatch.setattr(testing_caption_generator.Captioner, "load", lambda *_: Stub())
    monkeypatch.setattr(testing_caption_generator, "vocabulary_note", lambda *_: "")
    monkeypatch.setattr(sys, "argv", ["testing_caption_generator.py", "-i", str(workspace.images)])
    assert testing_caption_generator.main() == 0
    assert len(capsys.readouterr().out.splitlines()) == len(kept) == 12
