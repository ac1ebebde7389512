"""The model that ships: whole, offline, and with the dev scores that the README gives."""

import json
import re
from pathlib import Path

import pytest

from caption_generator import captions, evaluate
from caption_generator.captioner import Captioner, vocabulary_note
from caption_generator.finetuning.recipe import dev_scores
from caption_generator.inference.exported import find_export
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import BUNDLED_MODEL, ROOT, Workspace

EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
# `python testing_caption_generator.py -i examples` prints these. They change with the model.
CAPTIONS = {
    "astronaut.jpg": "a young boy in a blue shirt is holding a blue ball",
    "boats.jpg": "a boat is sitting on a boat in the water",
    "cat.jpg": "a close up of a gray cat with a camera",
    "coffee.jpg": "a close up of a coffee sitting on a table",
    "cow.jpg": "a black and white cow standing in a field of grass",
    "dog.jpg": "a german shepherd dog is running through the grass",
    "goldfish.jpg": "a yellow fish is in the water",
    "grace_hopper.jpg": "a man in a black shirt and tie",
    "horse.jpg": "three black dogs are running in a field of grass",
    "photographer.jpg": "a man is sitting on a tripod with a camera",
    "raccoon.jpg": "a gray cat sitting on top of a tree",
    "sheep.jpg": "a white sheep standing in a field of grass",
}
RECORD = json.loads((ROOT / "models" / "scores.json").read_text())


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load()


def test_it_fits_into_the_repository() -> None:
    shipped = [*(ROOT / "models").glob("bundled*"), ROOT / "tokenizer.p"]
    assert sum(path.stat().st_size for path in shipped) < 55e6


def test_its_vocabulary_is_in_tokenizer_p_too(captioner: Captioner) -> None:
    assert Tokenizer.load(ROOT / "tokenizer.p").words == captioner.engine.tokenizer.words
    assert vocabulary_note(captioner.engine.tokenizer, BUNDLED_MODEL) == ""


def test_it_captions_the_examples_as_it_did(captioner: Captioner) -> None:
    assert {result.path.name: result.best.text for result in captioner.caption_files(EXAMPLES)} == CAPTIONS


def test_the_readme_shows_what_the_script_prints(captioner: Captioner) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^examples/(\S+\.jpg)\t(.+)$", readme, re.MULTILINE))
    assert shown and shown.items() <= CAPTIONS.items()
    records = [json.loads(line) for line in re.findall(r'^\{"image".+$', readme, re.MULTILINE)]
    [photo] = {record["image"] for record in records}
    [result] = captioner.caption_files([ROOT / photo])
    for record, caption in zip(records, result.captions, strict=False):
        assert record["caption"] == caption.text
        assert record["score"] == pytest.approx(caption.score, abs=0.01)  # machines round differently


@pytest.mark.slow
@pytest.mark.skipif(not evaluate.has_java(), reason="METEOR and the Penn Treebank tokenizer need Java")
@pytest.mark.parametrize("dataset", ["flickr8k", "wide"])
def test_its_dev_scores_are_the_recorded_ones(dataset: str, captioner: Captioner, shared: Path, tmp_path: Path) -> None:
    workspace = Workspace(shared / dataset, tmp_path)
    data = captions.prepare(workspace)
    row = dev_scores(captioner, workspace.images, data)
    print(dataset, row)
    beam = captioner.search.beam
    [recorded] = [row for row in RECORD if row["beam"] == beam and row["dataset"] == data.name]
    # Machines round differently. One other caption counts more among few photos.
    near = 200 / len(data.dev)
    far = {"captions": 10, "words": 10} | {name: 8 * near for name in row if name.startswith("right, ")}
    assert row == {"tokens": "PTB"} | {
        name: pytest.approx(recorded[name], abs=far.get(name, near)) for name in row.keys() - {"tokens"}
    }


def test_its_export_is_in_use() -> None:
    assert find_export(BUNDLED_MODEL) is not None
