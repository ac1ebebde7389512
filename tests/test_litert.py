"""An exported model gives the captions of its checkpoint, without TensorFlow, or it is not used."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caption_generator.captioner import Captioner
from caption_generator.checkpoint import Checkpoint, save_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.decoders import build_decoder
from caption_generator.inference import export, exported
from caption_generator.inference.engine import load_engine
from caption_generator.inference.export import export_checkpoint
from caption_generator.inference.exported import ExportedModel, export_path, find_export
from caption_generator.inference.folding import absorb_norms
from caption_generator.inference.imagenet_classifier import ImageNetClassifier
from caption_generator.inference.keras_engine import KerasEngine
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.workspace import BUNDLED_MODEL, ROOT
from tests.helpers import opinionated

pytest.importorskip("ai_edge_litert", reason="there is no LiteRT for this system")
from caption_generator.inference.litert_engine import LiteRTEngine

SYSTEMS = (("merge", "lstm"), ("initial_state", "lstm"), ("attention", "gru"), ("attention", "lstm"))
SIZE = 128  # of the photos of `untrained`


def draw_pixels(count: int) -> np.ndarray:
    """Coarse pictures, each another."""
    coarse = np.random.default_rng(1).integers(256, size=(count, 4, 4, 3)).astype(np.uint8)
    return coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)


def with_photos(model: Checkpoint) -> Checkpoint:
    """A word detector, a classifier and an out-of-distribution score of drawn numbers."""
    random = np.random.default_rng(2)
    mean, usual = (random.normal(size=256).astype(np.float32) for _ in range(2))
    frequency = random.uniform(0.05, 1, 20).astype(np.float32)
    detector = WordDetector(mean, random.normal(size=(20, 256)).astype(np.float32), frequency, 0.25)
    classifier = ImageNetClassifier(random.normal(size=(256, 1000)).astype("f"), random.normal(size=1000).astype("f"))
    return replace(model, detector=detector, familiarity=Familiarity(usual, -1.0, 1.0), classifier=classifier)


@pytest.fixture(scope="module")
def drawn(untrained, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Checkpoints with drawn weights, each with its export beside it."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, cell in SYSTEMS:
        model = untrained(name)
        decoder = opinionated(build_decoder(replace(model.decoder.spec, cell=cell)))
        paths[name, cell] = folder / f"{name}-{cell}.h5"
        save_checkpoint(with_photos(replace(model, decoder=decoder)), paths[name, cell])
        export_checkpoint(paths[name, cell])
    return paths


@pytest.fixture(scope="module")
def engines(drawn) -> dict[tuple[str, str], tuple[KerasEngine, LiteRTEngine]]:
    """Both engines of each."""
    return {system: (KerasEngine.load(path), LiteRTEngine.load(export_path(path))) for system, path in drawn.items()}


@pytest.fixture
def model(drawn, tmp_path) -> Path:
    """A copy of the smallest checkpoint and its export, to be changed."""
    path = tmp_path / "model.h5"
    shutil.copy(drawn["merge", "lstm"], path)
    shutil.copy(export_path(drawn["merge", "lstm"]), export_path(path))
    return path


@pytest.mark.parametrize("beam", [1, 3, 7])
@pytest.mark.parametrize("system", SYSTEMS, ids="-".join)
def test_both_engines_give_the_same_captions(engines, system, beam):
    pixels = draw_pixels(5)
    expected, found = (Captioner(engine, beam).caption_pixels(pixels) for engine in engines[system])
    assert len({captions[0].log_prob for captions in expected}) == len(pixels)
    for one, other in zip(expected, found, strict=True):
        assert [caption.text for caption in one] == [caption.text for caption in other]
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(
                (a.log_prob, a.fit, a.familiarity), (b.log_prob, b.fit, b.familiarity), atol=1e-4
            )
            assert (a.attention is None) == (b.attention is None) == (system[0] != "attention")
            if a.attention is not None:
                np.testing.assert_allclose(a.attention, b.attention, atol=1e-4)


@pytest.mark.parametrize("system", SYSTEMS, ids="-".join)
def test_both_engines_describe_the_model_alike(engines, system):
    keras, litert = engines[system]
    assert keras.description == litert.description
    assert (keras.input_size, keras.grid) == (litert.input_size, litert.grid)
    assert (keras.tokenizer.words, keras.tokenizer.max_length) == (litert.tokenizer.words, litert.tokenizer.max_length)
    assert [*keras.detector.predicted_words(np.ones(256), keras.tokenizer)] == [
        *litert.detector.predicted_words(np.ones(256), litert.tokenizer)
    ]
    np.testing.assert_array_equal(keras.classifier.kernel, litert.classifier.kernel)
    np.testing.assert_array_equal(keras.classifier.bias, litert.classifier.bias)


def test_weights_take_16_bits_where_these_hold_them(untrained, tmp_path):
    models = {"full": untrained("merge"), "half": untrained("merge"), "absorbed": untrained("merge")}
    absorb_norms(models["absorbed"].encoder.backbone)
    sizes = {}
    for name, model in models.items():
        path = tmp_path / f"{name}.h5"
        save_checkpoint(model, path, half=name != "full")
        found = ExportedModel.load(export_checkpoint(path))
        sizes[name] = {part: len(content) for part, content in found.networks.items()}
    assert sizes["half"]["start"] == sizes["absorbed"]["start"] < 0.7 * sizes["full"]["start"]
    # With batch norm folded into them, weights have more digits, unless it was absorbed before they were rounded.
    assert sizes["absorbed"]["encoder"] < 0.6 * sizes["half"]["encoder"]
    assert sizes["half"]["encoder"] == sizes["full"]["encoder"]


def test_equal_checkpoints_give_equal_exports(model):
    before = export_path(model).read_bytes()
    assert export_checkpoint(model).read_bytes() == before


def test_threads_share_one_engine(drawn):
    captioner = Captioner.load(drawn["attention", "lstm"])
    pixels = draw_pixels(24)
    expected = captioner.caption_pixels(pixels)
    with ThreadPoolExecutor(8) as pool:
        found = [captions for [captions] in pool.map(captioner.caption_pixels, pixels[:, None])]
    assert [[caption.text for caption in captions] for captions in expected] == [
        [caption.text for caption in captions] for captions in found
    ]
    # Memory stays within bounds, however many threads there are.
    assert len(captioner.engine._encoder._idle) <= captioner.engine.threads


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_a_batch_is_shared_among_threads(drawn, threads):
    captioner = Captioner.load(drawn["merge", "lstm"])
    pixels = draw_pixels(7)
    expected = [captioner.caption_pixels(photo[None])[0][0].text for photo in pixels]
    captioner.engine.threads = threads
    assert [captions[0].text for captions in captioner.caption_pixels(pixels)] == expected
    assert captioner.caption_pixels(pixels[:0]) == []


def test_a_stale_export_is_not_used(model, untrained):
    assert find_export(model) == export_path(model)
    save_checkpoint(untrained("merge"), model)
    assert find_export(model) is None
    assert isinstance(load_engine(model), KerasEngine)
    with pytest.raises(CaptionError, match=rf"{export_path(model)} was exported before {model} changed"):
        load_engine(export_path(model))
    export_checkpoint(model)
    assert isinstance(load_engine(model), LiteRTEngine)


def test_an_export_in_another_format_is_not_used(model, monkeypatch):
    monkeypatch.setattr(exported, "FORMAT", exported.FORMAT + 1)
    assert isinstance(load_engine(model), KerasEngine)
    model.unlink()
    with pytest.raises(CaptionError, match="another version of this project"):
        load_engine(export_path(model))


def test_an_export_needs_no_checkpoint(model):
    model.unlink()
    assert isinstance(load_engine(model), LiteRTEngine)
    assert isinstance(load_engine(export_path(model)), LiteRTEngine)


def test_a_checkpoint_without_an_export_runs_with_keras(model):
    export_path(model).unlink()
    assert isinstance(load_engine(model), KerasEngine)


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_damaged_export_is_named(model, kept):
    path = export_path(model)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else kept])
    with pytest.raises(
        CaptionError, match=rf"^{path} is damaged .*python -m caption_generator.inference.export {model}"
    ):
        load_engine(model)


def test_a_network_that_is_none_is_named(model):
    content = ExportedModel.load(export_path(model))
    replace(content, networks=dict(content.networks) | {"step": b"nonsense"}).save(export_path(model))
    with pytest.raises(CaptionError, match="LiteRT cannot read the exported model"):
        load_engine(model)


def test_a_missing_model_is_named(tmp_path):
    for name in ("no.h5", "no.litert"):
        with pytest.raises(CaptionError, match=f"{name} does not exist"):
            load_engine(tmp_path / name)


def run_without(packages: tuple[str, ...], folder: Path, *arguments) -> subprocess.CompletedProcess:
    """Run Python where importing `packages` fails, as where they are not installed."""
    code = "import sys\n" + "".join(f"sys.modules[{package!r}] = None\n" for package in packages)
    (folder / "sitecustomize.py").write_text(code)
    environment = dict(os.environ) | {"PYTHONPATH": str(folder)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


HEAVY = ("tensorflow", "keras", "h5py", "matplotlib")


def test_the_script_needs_neither_tensorflow_nor_keras(model, pictures, tmp_path):
    done = run_without(HEAVY, tmp_path, "testing_caption_generator.py", "-i", pictures, "--model", model)
    assert (done.returncode, done.stderr) == (0, "")
    expected = [result.best.text for result in Captioner.load(model).caption_files(sorted(pictures.iterdir()))]
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == expected


@pytest.mark.parametrize(
    ("packages", "kept", "sentence"),
    [
        ((*HEAVY, "ai_edge_litert"), "both", "needs LiteRT or TensorFlow, and neither is installed"),
        (("ai_edge_litert",), "export", "needs LiteRT, which is not installed"),
        (HEAVY, "checkpoint", "was not exported, so it needs TensorFlow, which is not installed"),
        (HEAVY, "stale", "was exported before it changed, so it needs TensorFlow, which is not installed"),
        (HEAVY, "none", "does not exist"),
    ],
)
def test_what_is_not_installed_is_named(model, pictures, tmp_path, packages, kept, sentence):
    if kept in ("export", "none"):
        model.unlink()
    if kept in ("checkpoint", "none"):
        export_path(model).unlink()
    if kept == "stale":
        model.write_bytes(model.read_bytes() + b"more")
    done = run_without(packages, tmp_path, "testing_caption_generator.py", "-i", pictures, "--model", model)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_window_without_matplotlib_is_refused_in_a_sentence(model, pictures, tmp_path):
    command = ("testing_caption_generator.py", "-i", pictures / "0.png", "--model", model, "--show")
    done = run_without(HEAVY, tmp_path, *command)
    assert done.returncode == 2
    assert "--show needs more packages" in done.stderr
    assert "pip install -r requirements.txt" in done.stderr


def test_the_command_exports(model, monkeypatch, capfd):
    export_path(model).unlink()
    monkeypatch.setattr(sys, "argv", ["export", str(model)])
    assert export.main() == 0
    assert capfd.readouterr() == (f"{export_path(model)}\n", "")
    assert find_export(model)


def test_the_command_names_a_missing_checkpoint(tmp_path):
    done = run_without((), tmp_path, "-m", "caption_generator.inference.export", tmp_path / "no.h5")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"export: {tmp_path / 'no.h5'} does not exist: ")
    assert done.stderr.count("\n") == 1


def test_an_exported_model_is_not_exported_again(model):
    exported = export_path(model)
    with pytest.raises(CaptionError, match=r"\.litert is an exported model already: name its checkpoint"):
        export_checkpoint(exported)


def test_exporting_needs_tensorflow(model, tmp_path):
    done = run_without(HEAVY, tmp_path, "-m", "caption_generator.inference.export", model)
    assert done.returncode == 2
    assert "exporting needs TensorFlow" in done.stderr


def test_the_shipped_checkpoint_and_its_export_give_the_same_captions(tmp_path):
    path = tmp_path / "bundled.h5"
    shutil.copy(BUNDLED_MODEL, path)
    export_checkpoint(path)
    keras, litert = Captioner(KerasEngine.load(path)), Captioner(load_engine(path))
    assert isinstance(litert.engine, LiteRTEngine)
    photos = sorted((ROOT / "examples").glob("*.jpg"))
    for one, other in zip(keras.caption_files(photos), litert.caption_files(photos), strict=True):
        assert one.best.text == other.best.text
        assert one.best.score == pytest.approx(other.best.score, abs=1e-3)
        np.testing.assert_allclose(one.best.attention, other.best.attention, atol=1e-3)
