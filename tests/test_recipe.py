"""Tests of caption_generator.recipe, from raw captions to a model that captions, in small."""

import csv
import json
from dataclasses import replace

import numpy as np

from caption_generator import recipe
from caption_generator.captioner import Captioner
from caption_generator.checkpoint import load_checkpoint
from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
from caption_generator.systems import SYSTEMS
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL, ROOT, Workspace

SMALL = {"epochs": 1, "images_per_batch": 4, "views": 1}


def test_the_recipe_makes_a_model_that_captions_and_goes_on_where_it_was(workspace: Workspace, tmp_path, monkeypatch):
    row = EncoderRow("tiny", "MobileNet", "mobilenet", 64, 256, "conv_pw_5_relu", (("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "tiny", row)
    monkeypatch.setattr(
        "caption_generator.encoders.build_encoder",
        lambda name, weights=None, pooling="avg": build_encoder(name, None, pooling),
    )
    system = replace(SYSTEMS[recipe.SYSTEM], encoder="tiny", min_count=2)
    monkeypatch.setitem(SYSTEMS, recipe.SYSTEM, system)
    monkeypatch.setattr(recipe, "STAGES", {name: dict(stage) | SMALL for name, stage in recipe.STAGES.items()})
    monkeypatch.setattr("caption_generator.evaluate.has_java", lambda: False)  # which takes seconds to start
    workspace = Workspace(workspace.inputs, tmp_path / "outputs")
    recipe.run(workspace)

    captioner = Captioner.load(workspace.models / "bundled.h5")
    assert captioner.checkpoint.tokenizer.words == Tokenizer.load(workspace.tokenizer).words
    assert captioner.checkpoint.familiarity is not None
    assert [stage["epochs"] for stage in captioner.checkpoint.training["stages"]] == [1, 1, 1, 1]
    photos = [workspace.images / name for name in workspace.image_names()]
    assert all(np.isfinite(result.best.score) for result in captioner.caption_files(photos))

    with open(workspace.models / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stage"] for row in rows] == ["settled", "finetuned", "restarted", "self_critical"]
    assert all(float(row["val_cider"]) >= 0 for row in rows)
    assert all(float(row["loss"] or row["reward"]) > 0 for row in rows)  # and not NaN
    histories = recipe.read_log(workspace.models / "log.csv")
    assert list(histories) == list(recipe.STAGES)
    assert histories["settled"][0].keys() == {"epoch", "loss", "val_loss", "val_cider"}
    scores = json.loads((workspace.models / "scores.json").read_text())
    assert [row["beam"] for row in scores] == [1, 3, 5]

    # Run again after the last stage was lost: those before it are not trained anew.
    before = {path: path.stat().st_mtime_ns for path in workspace.models.glob("*/model_1.h5")}
    (workspace.models / "self_critical" / "model_1.h5").unlink()
    recipe.run(workspace)
    after = {path: path.stat().st_mtime_ns for path in workspace.models.glob("*/model_1.h5")}
    assert {path.parent.name for path in after if after[path] != before[path]} == {"self_critical"}


def test_the_log_and_the_scores_of_the_model_that_ships_are_of_this_recipe():
    log = recipe.read_log()
    assert {stage: len(rows) for stage, rows in log.items()} == {
        stage: settings["epochs"] for stage, settings in recipe.STAGES.items()
    }
    stages = load_checkpoint(BUNDLED_MODEL).training["stages"]
    for settings, stage in zip(recipe.STAGES.values(), stages, strict=True):
        assert settings.items() <= stage.items()
    scores = json.loads((ROOT / "models" / "scores.json").read_text())
    assert [row["beam"] for row in scores] == list(recipe.BEAMS)


def test_a_workspace_without_captions_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CAPTION_WORKSPACE", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["recipe"])
    assert recipe.main() == 2
    error = capsys.readouterr().err
    assert "Flickr8k.token.txt does not exist" in error
    assert "Traceback" not in error
