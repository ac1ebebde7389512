"""Tests of caption_generator.finetuning.recipe, from raw captions to a model that captions, in small."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from caption_generator.captioner import Captioner
from caption_generator.captions import SPLIT_FILES
from caption_generator.checkpoint import load_checkpoint
from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
from caption_generator.finetuning import recipe
from caption_generator.finetuning.finetune import FinetuneSettings
from caption_generator.systems import SYSTEMS
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL, ROOT, Workspace

RUNS = ["settled", "finetuned", "restarted_1", "restarted_2", "self_critical"]
SMALL = {"epochs": 1, "images_per_batch": 4, "views": 1}


@pytest.fixture
def wide(workspace: Workspace, tmp_path) -> Workspace:
    """Three more pictures, two to learn from, with one caption each, and none that is only in a split."""
    inputs = tmp_path / "wide"
    (inputs / "Flickr8k_text").mkdir(parents=True)
    (inputs / "Flickr8k_Dataset").mkdir()
    names = [f"wide_{number}.jpg" for number in range(3)]
    for name, photo in zip(names, sorted(workspace.images.iterdir()), strict=False):
        shutil.copy(photo, inputs / "Flickr8k_Dataset" / name)
    lines = [f"{name}#0\tA wide wall and a red wall ." for name in names]
    (inputs / "Flickr8k_text" / "Flickr8k.token.txt").write_text("\n".join(lines))
    for split, chosen in {"train": names[:2], "dev": names[2:]}.items():
        (inputs / "Flickr8k_text" / SPLIT_FILES[split]).write_text("\n".join(chosen))
    return Workspace(inputs, tmp_path / "outputs" / "wide")


@pytest.mark.slow
def test_the_recipe_makes_a_model_that_captions_and_goes_on_where_it_was(
    workspace: Workspace, wide: Workspace, tmp_path, monkeypatch
):
    row = EncoderRow("tiny", "MobileNet", "mobilenet", 64, 256, "conv_pw_5_relu", (("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "tiny", row)
    monkeypatch.setattr(recipe, "load_encoder", lambda name, pooling: build_encoder(name, None, pooling))
    system = replace(SYSTEMS[recipe.SYSTEM], encoder="tiny", min_count=2)
    monkeypatch.setitem(SYSTEMS, recipe.SYSTEM, system)
    small = {stage: [replace(run, **SMALL) for run in runs] for stage, runs in recipe.STAGES.items()}
    monkeypatch.setattr(recipe, "STAGES", small)
    monkeypatch.setattr(recipe, "AVERAGED", 1)
    monkeypatch.setattr("caption_generator.evaluate.has_java", lambda: False)  # which takes seconds to start
    workspace = Workspace(workspace.inputs, tmp_path / "outputs")
    recipe.run(workspace, [wide])

    captioner = Captioner.load(workspace.models / "bundled.h5")
    engine = captioner.engine
    assert engine.tokenizer.words == Tokenizer.load(workspace.tokenizer).words
    assert engine.familiarity is not None
    assert len(engine.detector.document_frequency) == len(engine.tokenizer)
    training = load_checkpoint(workspace.models / "bundled.h5").training
    assert [stage["epochs"] for stage in training["stages"]] == [1, 1, 1, 1]
    assert (training["images"], training["dataset"]) == (10, "workspace and wide")
    assert "wide" in engine.tokenizer.words
    photos = [workspace.images / name for name in workspace.image_names()]
    assert all(np.isfinite(result.best.score) for result in captioner.caption_files(photos))

    with open(workspace.models / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == RUNS
    assert all(float(row["val_cider"]) >= 0 for row in rows)
    assert all(np.isfinite(float(row["loss"] or row["reward"])) for row in rows)
    histories = recipe.read_log(workspace.models / "log.csv")
    assert list(histories) == RUNS
    assert histories["settled"][0].keys() == {"epoch", "loss", "val_loss", "val_cider"}
    scores = json.loads((workspace.models / "scores.json").read_text())
    assert [(row["dataset"], row["beam"]) for row in scores] == [
        (name, beam) for beam in recipe.BEAMS for name in ("workspace", "wide")
    ]
    assert all(row["captions"] >= 1 and row["words"] <= len(engine.tokenizer) for row in scores)

    *_, restarted = load_checkpoint(workspace.models / "self_critical" / "model_1.h5").training["averaged"]
    assert restarted == ["restarted_1/model_1.h5", "restarted_2/model_1.h5"]

    # Run again after the last stage was lost: those before it are not trained anew.
    before = {path: path.stat().st_mtime_ns for path in workspace.models.glob("*/model_1.h5")}
    (workspace.models / "self_critical" / "model_1.h5").unlink()
    recipe.run(workspace, [wide])
    after = {path: path.stat().st_mtime_ns for path in workspace.models.glob("*/model_1.h5")}
    assert {path.parent.name for path in after if after[path] != before[path]} == {"self_critical"}


def test_a_run_that_was_killed_before_its_last_epoch_was_logged_is_not_finished(tmp_path):
    last = tmp_path / "model_2.h5"
    last.touch()
    for history in ("", "epoch,loss\n0,1.5\n"):
        (tmp_path / "history.csv").write_text(history)
        assert not recipe.is_finished(last, None, FinetuneSettings(epochs=2))


def test_the_log_and_the_scores_are_of_the_model_that_ships():
    log, training = recipe.read_log(), load_checkpoint(BUNDLED_MODEL).training
    assert list(log) == RUNS
    assert [len(rows) for rows in log.values()] == [run.epochs for runs in recipe.STAGES.values() for run in runs]
    runs = [runs[0] for runs in recipe.STAGES.values()]
    assert [type(run)(**stage) for run, stage in zip(runs, training["stages"], strict=True)] == runs
    assert all(row["val_cider"] > 0 for rows in log.values() for row in rows)
    assert list(log.values())[-1][-1]["val_cider"] == pytest.approx(training["val_cider"], abs=1e-3)
    scores = json.loads((ROOT / "models" / "scores.json").read_text())
    assert [row["beam"] for row in scores] == [beam for beam in recipe.BEAMS for _ in range(2)]


def test_a_workspace_without_captions_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAPTION_WORKSPACE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["recipe"])
    assert recipe.main() == 2
    error = capsys.readouterr().err
    assert "Flickr8k_Dataset does not exist" in error
    assert "Traceback" not in error
