"""Tests of caption_generator.compare, in small."""

import json
from dataclasses import asdict, replace

import keras
import pytest

from caption_generator import compare, evaluate
from caption_generator.captions import prepare
from caption_generator.checkpoint import load_checkpoint
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import only_run
from caption_generator.compare import KINDS, Outcome
from caption_generator.encoders import ENCODERS, EncoderRow, build_encoder
from caption_generator.train import TrainSettings
from caption_generator.workspace import Workspace

pytestmark = pytest.mark.usefixtures("eager")

SMALL = {"units": 8, "embedding_size": 8, "hidden": 8}
EPOCH = TrainSettings(epochs=1, batch_size=64, cosine=True)


@pytest.fixture
def small(workspace: Workspace, tmp_path, monkeypatch) -> Workspace:
    """A workspace, and every system small, with word vectors and an encoder that needs no download."""
    row = EncoderRow("tiny", "MobileNet", "mobilenet", 64, 256, arguments=(("alpha", 0.25),))
    monkeypatch.setitem(ENCODERS, "tiny", row)

    def build(name, weights=None, pooling="avg"):
        keras.utils.set_random_seed(0)
        return build_encoder(name, None, pooling)

    monkeypatch.setattr(compare, "load_encoder", build)
    monkeypatch.setattr(evaluate, "has_java", lambda: False)  # which takes seconds to start
    small = {
        kind: replace(system, decoder=replace(system.decoder, **SMALL), min_count=1) for kind, system in KINDS.items()
    }
    monkeypatch.setattr(compare, "KINDS", small)
    monkeypatch.setattr(compare, "SETTINGS", EPOCH)
    (workspace.texts / "glove.small.8d.txt").write_text("a 1 2 3 4 5 6 7 8\ndog 8 7 6 5 4 3 2 1\n")
    return Workspace(workspace.inputs, tmp_path / "outputs")


def outcome(kind: str, encoder: str, seed: int, **changes) -> Outcome:
    scores = {"BLEU-4": 20.0 + seed, "METEOR": 18.0 + seed / 10, "CIDEr": 50.0 + 2 * seed}
    return replace(
        Outcome(kind, encoder, seed, 4_567_890, 12.5, 7 + seed, 3.25, scores, captions={"a": "b"}), **changes
    )


def test_every_run_is_trained_scored_and_not_trained_again(small, monkeypatch):
    """Three kinds: one of each pooling, and one with word vectors. test_systems.py has the others."""
    trained = []
    real = compare.train_decoder
    monkeypatch.setattr(compare, "train_decoder", lambda *args, **kw: trained.append(args[4].kind) or real(*args, **kw))
    wanted = [("gru", 0), ("gru", 1), ("glove-merge", 0), ("attention", 0)]
    compare.run(small, ["tiny"], ["gru"], [0, 1])
    outcomes = compare.run(small, ["tiny"], ["glove-merge", "gru", "attention"], [0])
    assert sorted(trained) == sorted(kind for kind, _ in wanted)
    assert sorted((run.kind, run.seed) for run in outcomes) == sorted(wanted)
    dev = prepare(small).dev
    for run in outcomes:
        [path] = (small.models / "compare").glob(f"tiny-*/{run.kind}/{run.seed}/model_best.h5")
        checkpoint = load_checkpoint(path)
        assert run.parameters == checkpoint.decoder.model.count_params()
        assert run.val_loss == checkpoint.training["val_loss"] > 0
        assert run.best_epoch == checkpoint.training["epoch"]
        assert checkpoint.training["seed"] == run.seed
        assert run.captions.keys() == dev.keys()
        assert 0 <= run.scores["BLEU-4"] <= 100
        assert bool(run.word_vectors) == KINDS[run.kind].pretrained
    assert len({run.val_loss for run in outcomes}) == len(outcomes)  # seeds and kinds differ


def test_what_was_run_with_other_settings_is_run_again(small):
    features = compare.extract_all("tiny", "avg", small, small.image_names())
    data, gru = prepare(small), compare.KINDS["gru"]
    first = compare.run_system(gru, features, data, small, EPOCH)
    assert compare.run_system(gru, features, data, small, EPOCH) == first
    for change in ({"epochs": 2}, {"batch_size": 3}):
        other = compare.run_system(gru, features, data, small, replace(EPOCH, **change))
        assert other.settings != first.settings and other.val_loss != first.val_loss
    other_words = replace(data, dev={name: group[:1] for name, group in data.dev.items()})
    assert compare.run_system(gru, features, other_words, small, EPOCH).settings != first.settings
    wider = replace(gru, decoder=replace(gru.decoder, units=9))
    assert compare.run_system(wider, features, data, small, EPOCH).parameters > first.parameters


def test_the_command_prints_the_table_and_keeps_it(small, monkeypatch, capsys):
    monkeypatch.setattr(compare, "find_workspace", lambda: small)
    monkeypatch.setattr("sys.argv", ["compare", "--encoders", "tiny", "--kinds", "merge", "gru", "--seeds", "0"])
    assert compare.main() == 0
    printed = capsys.readouterr().out
    found = compare.load_outcomes(small.models / "compare" / "comparison.json")
    assert compare.table(found) in printed
    assert [run.kind for run in found] == ["gru", "merge"]
    assert all(run.captions == {} for run in found)
    lines = compare.table(found).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["merge", "gru"]  # as the systems stand


def test_a_seed_that_numpy_does_not_take_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare", "--seeds", "-1"])
    with pytest.raises(SystemExit, match="2"):
        compare.main()
    assert "-1 is not 0 to 4294967295" in capsys.readouterr().err


def test_without_word_vectors_the_command_says_what_to_do(small, monkeypatch, capsys):
    next(small.texts.glob("glove*")).unlink()
    monkeypatch.setattr(compare, "find_workspace", lambda: small)
    monkeypatch.setattr("sys.argv", ["compare", "--encoders", "tiny", "--kinds", "glove-merge", "--seeds", "0"])
    assert compare.main() == 2
    assert "holds no word vectors: put glove.6B.zip" in capsys.readouterr().err


def test_the_table_gives_mean_and_spread_over_seeds_for_each_encoder_and_kind():
    runs = [outcome("gru", "mobilenet", seed) for seed in (0, 1, 2)]
    runs += [outcome("merge", "mobilenetv2", 0), outcome("merge", "mobilenet", 1, scores={"BLEU-4": 21.0})]
    lines = compare.table(reversed(runs)).splitlines()
    assert lines[0] == "| encoder | kind | parameters | seeds | BLEU-4 | METEOR | CIDEr |"
    assert lines[2] == "| mobilenet | merge | 4.6 M | 1 | 21.0 | nan | nan |"  # no Java, no METEOR
    assert lines[3] == "| mobilenet | gru | 4.6 M | 0, 1, 2 | 21.0 ± 1.0 | 18.1 ± 0.1 | 52.0 ± 2.0 |"
    assert lines[4] == "| mobilenetv2 | merge | 4.6 M | 0 | 20.0 | 18.0 | 50.0 |"
    assert len(lines) == 5


def test_a_run_that_was_killed_after_its_training_is_not_trained_again(small, monkeypatch):
    features = compare.extract_all("tiny", "avg", small, small.image_names())
    data, gru = prepare(small), compare.KINDS["gru"]

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(compare, "score", kill)
        compare.run_system(gru, features, data, small, EPOCH)
    monkeypatch.setattr(compare, "train_decoder", kill)
    finished = compare.run_system(gru, features, data, small, EPOCH)
    assert finished.scores.keys() == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}


def test_a_damaged_note_of_a_training_is_made_again(small):
    features = compare.extract_all("tiny", "avg", small, small.image_names())
    data, gru = prepare(small), compare.KINDS["gru"]
    first = compare.run_system(gru, features, data, small, EPOCH)
    [done] = (small.models / "compare").glob("*/*/*/outcome.json")
    done.unlink()
    done.with_name("trained.json").write_text("{")
    assert replace(compare.run_system(gru, features, data, small, EPOCH), seconds=first.seconds) == first


def test_commands_for_two_encoders_extract_at_the_same_time(small, monkeypatch):
    monkeypatch.setitem(ENCODERS, "other", replace(ENCODERS["tiny"], name="other"))
    folders = []
    real = compare.extract_features

    def extract(encoder, *arguments):
        if not folders:  # while the first command holds its folder, the second one extracts
            folders.append(arguments[-1].parent)
            with only_run(folders[0]):
                compare.extract_all("other", "avg", small, small.image_names())
        return real(encoder, *arguments)

    monkeypatch.setattr(compare, "extract_features", extract)
    assert len(compare.extract_all("tiny", "avg", small, small.image_names()).vectors) == 12


def test_what_an_unfinished_or_unknown_run_left_is_passed_over(tmp_path):
    path = tmp_path / "outcome.json"
    assert compare.read_outcome(path) is None
    for text in ("", "{", "{}", json.dumps(asdict(outcome("transformer", "tiny", 0)))):
        path.write_text(text)
        assert compare.read_outcome(path) is None
    path.write_text(json.dumps(asdict(outcome("gru", "tiny", 0))))
    assert compare.read_outcome(path) == outcome("gru", "tiny", 0)


def test_an_encoder_without_a_grid_is_refused_before_anything_is_trained(small, monkeypatch):
    monkeypatch.setattr(compare, "extract_all", None)  # would be a TypeError
    with pytest.raises(CaptionError, match="vgg16-fc2 gives one vector an image and no grid"):
        compare.run(small, ["tiny", "vgg16-fc2"], ["gru", "attention"], [0])


def test_a_photo_that_cannot_be_read_is_named(small):
    name = small.image_names()[0]
    (small.images / name).write_bytes(b"")
    with pytest.raises(CaptionError, match=name):
        compare.extract_all("tiny", "avg", small, small.image_names())


def test_outcomes_are_kept_without_their_captions(tmp_path):
    runs = [outcome("merge", "mobilenet", seed) for seed in (0, 1)]
    compare.save_outcomes(runs, tmp_path / "comparison.json")
    assert compare.load_outcomes(tmp_path / "comparison.json") == [replace(run, captions={}) for run in runs]
    assert json.loads((tmp_path / "comparison.json").read_text())[0]["kind"] == "merge"


def test_the_comparison_that_ships_is_of_every_kind_with_three_seeds():
    groups = compare.by_kind(compare.load_outcomes())
    assert {kind for _, kind in groups} == set(KINDS)
    assert {tuple(run.seed for run in runs) for runs in groups.values()} == {(0, 1, 2)}
