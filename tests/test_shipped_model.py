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
MEASURES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
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


def test_it_captions_the_examples_as_the_readme_says(captioner: Captioner) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = {result.path.name: result.best.text for result in captioner.caption_files(EXAMPLES)}
    assert found == dict(re.findall(r"^examples/(\S+)\t(.+)$", readme, re.MULTILINE))


def test_each_caption_is_about_its_own_photo(captioner: Captioner) -> None:
    assert len({result.best.text for result in captioner.caption_files(EXAMPLES)}) == len(EXAMPLES)


def test_the_readme_gives_the_recorded_scores() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|.*shipped model, ([a-z0-9 ]+)\W* \| dev \|(.+)\|$", readme, re.MULTILINE)
    assert [search for search, _ in rows] == ["greedy", "beam 3", "beam 5"]
    for (_, cells), recorded in zip(rows, RECORD, strict=True):
        values = [recorded[measure] for measure in MEASURES]
        assert [float(cell) for cell in cells.split("|")] == pytest.approx(values, abs=0.051)


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
