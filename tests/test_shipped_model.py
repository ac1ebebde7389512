"""The model that ships: whole, offline, and with the dev scores that the README gives."""

import json
import re
from pathlib import Path

import pytest

from caption_generator import captions, evaluate
from caption_generator.captioner import Captioner, vocabulary_note
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL, ROOT, Workspace

EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
# `python testing_caption_generator.py -i examples` prints these. They change with the model.
CAPTIONS = {
    "airplane.jpg": "a man in a white shirt is standing in front of a sign",
    "astronaut.jpg": "a boy in a red shirt is playing with a ball",
    "boats.jpg": "two people are sitting on a boat in the water",
    "canyon.jpg": "a man is standing on a rock overlooking the water",
    "cat.jpg": "a brown dog with a nose in its mouth",
    "coffee.jpg": "a little girl is sitting on a red slide",
    "flower.jpg": "a man in a black shirt is standing in the air",
    "grace_hopper.jpg": "a man in a black hat is wearing a black cap",
    "house.jpg": "a boy is standing on the beach",
    "mountains.jpg": "a mountain is standing in the mountains",
    "photographer.jpg": "a man is standing on a camera",
    "raccoon.jpg": "a black and white dog in the green",
}
RECORD = json.loads((ROOT / "models" / "scores.json").read_text())


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load()


def test_it_fits_into_the_repository() -> None:
    shipped = [*(ROOT / "models").glob("bundled*"), ROOT / "tokenizer.p"]
    assert sum(path.stat().st_size for path in shipped) < 40e6


def test_its_vocabulary_is_in_tokenizer_p_too(captioner: Captioner) -> None:
    assert Tokenizer.load(ROOT / "tokenizer.p").words == captioner.engine.tokenizer.words
    assert vocabulary_note(captioner.engine.tokenizer, BUNDLED_MODEL) == ""


def test_it_captions_the_examples_as_it_did(captioner: Captioner) -> None:
    assert {result.path.name: result.best.text for result in captioner.caption_files(EXAMPLES)} == CAPTIONS


def test_each_caption_is_about_its_own_photo() -> None:
    assert len(set(CAPTIONS.values())) == len(EXAMPLES)


def test_the_readme_shows_these_captions() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^examples/(\S+\.jpg)\t(.+)$", readme, re.MULTILINE))
    assert shown.items() <= CAPTIONS.items()


@pytest.mark.skipif(not evaluate.has_java(), reason="METEOR and the Penn Treebank tokenizer need Java")
def test_its_dev_scores_are_the_recorded_ones(captioner: Captioner, shared: Path, tmp_path: Path) -> None:
    workspace = Workspace(shared / "flickr8k", tmp_path)
    references = captions.read_captions(workspace.captions).captions
    dev = captions.load_splits(workspace, references)["dev"]
    found = captioner.caption_files([workspace.images / name for name in dev])
    scores = evaluate.score({result.path.name: result.best.text for result in found}, references)
    print("dev, beam 3:", {measure: round(value, 1) for measure, value in scores.corpus.items()})
    recorded = next(row for row in RECORD if row["beam"] == captioner.search.beam)
    assert scores.corpus == pytest.approx({measure: recorded[measure] for measure in scores.corpus}, abs=0.1)
