"""The recipe of the shipped model: `python -m caption_generator.finetuning.recipe path/to/wide`.

It makes `models/bundled.h5` from the raw datasets with one command. The encoder is EfficientNet-Lite2 and the decoder
has attention.

1. settled: the decoder learns while the encoder is frozen.
2. finetuned: both learn together, while the encoder keeps what its ImageNet classifier knows.
3. restarted: the same again, twice; the mean of the two models continues.
4. self_critical: the decoder learns from the scores of its own captions; the mean of the last epochs ships.
5. The model learns which words and which photos to expect, to rank and score its captions.

After an interruption, the same command continues. `CAPTION_WORKSPACE` and `CAPTION_OUTPUTS` say where Flickr8k is and
where everything is written. The folders on the command line are further workspaces, laid out like it; without any, the
model learns from Flickr8k alone.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from caption_generator import evaluate
from caption_generator.captioner import Captioner
from caption_generator.captions import Dataset, captions_fingerprint, combine, prepare
from caption_generator.checkpoint import Checkpoint, load_checkpoint, load_encoder, save_checkpoint
from caption_generator.common.console import quiet_at_ctrl_c
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import replacing, save_json_rows
from caption_generator.compatibility import check_captions
from caption_generator.encoders import with_pooling
from caption_generator.finetuning.averaging import average_checkpoints
from caption_generator.finetuning.finetune import FinetuneSettings, train_captioner
from caption_generator.finetuning.forgetting import load_classifier
from caption_generator.finetuning.self_critical import SelfCriticalSettings, train_self_critical
from caption_generator.images import find_photos, load_batches
from caption_generator.inference.export import export_checkpoint
from caption_generator.inference.folding import absorb_norms, compile_encoder
from caption_generator.inference.out_of_distribution import Familiarity
from caption_generator.inference.word_detector import WordDetector
from caption_generator.systems import SYSTEMS
from caption_generator.tokenizer import fit_tokenizer
from caption_generator.train import build_system
from caption_generator.training_loop import read_history
from caption_generator.workspace import ROOT, Workspace, announce, find_workspace

SYSTEM = "efficientnet-lite2-attention"
Settings = FinetuneSettings | SelfCriticalSettings
# The runs of each stage. All start from the model of the stage before, and the mean of their last epochs continues.
STAGES: Mapping[str, Sequence[Settings]] = {
    "settled": [FinetuneSettings(epochs=3, learning_rate=1e-3, freeze_encoder=True, views=5)],
    "finetuned": [FinetuneSettings(epochs=10, learning_rate=4e-4, views=5)],
    # Warm restarts, as in Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    "restarted": [
        FinetuneSettings(epochs=8, learning_rate=3e-4, views=5, seed=1),
        FinetuneSettings(epochs=8, learning_rate=3e-4, views=5, seed=2),
    ],
    "self_critical": [SelfCriticalSettings(epochs=10, learning_rate=5e-5, recall=1.5, views=5)],
}
AVERAGED = 3  # the number of last epochs of the last stage whose mean ships
BEAMS = (1, 3, 5)
HIGH, LOW = 0.7, 0.3  # scores of captions that are to be trusted, and not


def run(workspace: Workspace, others: Sequence[Workspace] = ()) -> None:
    """Every step from captions to the shipped model, with its dev scores at the end.

    Args:
        workspace: of Flickr8k; its outputs take all that is written.
        others: workspaces whose photos are learned from, too.
    """
    print(announce(workspace), file=sys.stderr)
    workspaces = [workspace, *others]
    datasets = [prepare(each) for each in workspaces]
    data, images = combine(datasets), [each.images for each in workspaces]
    check_captions(data.train, data.dev)
    system = SYSTEMS[SYSTEM]
    tokenizer = fit_tokenizer(data.train, system.min_count)
    tokenizer.save(workspace.tokenizer)

    def untrained() -> Checkpoint:
        keras.utils.set_random_seed(0)
        encoder = load_encoder(system.encoder, pooling=system.pooling)
        decoder = build_system(system, encoder.row.feature_size, tokenizer)
        about = {"dataset": data.name, "images": len(data.train), "fingerprint": captions_fingerprint(data.train)}
        classifier = load_classifier(system.encoder)
        return Checkpoint(decoder, tokenizer, encoder.identity, encoder, about, classifier=classifier)

    begin = untrained
    for stage, runs in STAGES.items():
        last = last_epochs(workspace, stage, runs)
        for settings, path in zip(runs, last, strict=True):
            model = begin()
            if not is_finished(path, model, settings):
                train_stage(model, images, data, path.parent, settings)
        begin = partial(average_checkpoints, last)
    model = average_checkpoints([path.with_name(f"model_{settings.epochs - n}.h5") for n in range(AVERAGED)])
    absorb_norms(model.encoder.backbone)
    finished = learn_photos(model, images, data)
    save_checkpoint(finished, workspace.models / "bundled.h5", half=True)
    export_checkpoint(workspace.models / "bundled.h5")
    record_log(workspace)
    record_scores(workspace, list(zip(workspaces, datasets, strict=True)))


def train_stage(model: Checkpoint, images: Sequence[Path], data: Dataset, folder: Path, settings: Settings) -> None:
    """One run of a stage: by reward or with teacher forcing, as its settings say."""
    if isinstance(settings, SelfCriticalSettings):
        train_self_critical(model, images, data, folder, settings)
    else:
        teacher = load_encoder(model.encoder.row.name, pooling=model.encoder.pooling)
        train_captioner(model, model.encoder, images, data, folder, settings, teacher)


def run_folder(workspace: Workspace, stage: str, runs: Sequence[Settings], settings: Settings) -> Path:
    """The folder of a run. The seed tells the runs of a stage apart."""
    return workspace.models / (f"{stage}_{settings.seed}" if len(runs) > 1 else stage)


def last_epochs(workspace: Workspace, stage: str, runs: Sequence[Settings]) -> list[Path]:
    """The checkpoints that the runs of a stage end with."""
    return [run_folder(workspace, stage, runs, settings) / f"model_{settings.epochs}.h5" for settings in runs]


def is_finished(last: Path, model: Checkpoint, settings: Settings) -> bool:
    """Whether `last` is what the checkpoint `model` became after training with `settings`, and not of another run."""
    history = last.parent / "history.csv"
    logged = read_history(history) if last.is_file() and history.is_file() else []
    if settings.epochs not in [row["epoch"] for row in logged]:
        return False  # the checkpoint is written first, and a run may have been killed before it was logged
    found = load_checkpoint(last)
    if not (stages := found.training.get("stages")):
        return False
    *before, stage = stages
    return (
        asdict(type(settings)()) | stage == asdict(settings)  # an earlier version may have known fewer settings
        and before == model.training.get("stages", [])
        and found.training.get("averaged") == model.training.get("averaged")
        and found.training.get("fingerprint") == model.training["fingerprint"]
        and found.tokenizer.fingerprint == model.tokenizer.fingerprint
    )


def learn_photos(checkpoint: Checkpoint, images: Sequence[Path], data: Dataset) -> Checkpoint:
    """`checkpoint` with a word detector and an out-of-distribution score, both learned from the training photos."""
    encoder = with_pooling(checkpoint.encoder, "avg")
    batches = load_batches(find_photos(images, data.train), encoder.row.input_size)
    encode, tokenizer = compile_encoder(encoder), checkpoint.tokenizer
    features = np.concatenate([encode(batch.pixels) for batch in batches])
    tokens = [[tokenizer.encode(caption) for caption in group] for group in data.train.values()]
    detector = WordDetector.fit(features, tokens, len(tokenizer))
    return replace(checkpoint, familiarity=Familiarity.fit(features), detector=detector)


def record_log(workspace: Workspace) -> None:
    """Put the histories of all runs into one table, `models/log.csv`."""
    folders = [path.parent for stage, runs in STAGES.items() for path in last_epochs(workspace, stage, runs)]
    rows = [{"run": folder.name} | row for folder in folders for row in read_history(folder / "history.csv")]
    with replacing(workspace.models / "log.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        table.writeheader()
        table.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_log(path: Path = ROOT / "models" / "log.csv") -> dict[str, list[dict[str, float]]]:
    """The log of each run, by the run's name. The default is the log of the model that ships."""
    histories: dict[str, list[dict[str, float]]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            history = histories.setdefault(row.pop("run"), [])
            history.append({name: float(value) for name, value in row.items() if value})
    return histories


def record_scores(workspace: Workspace, sources: Sequence[tuple[Workspace, Dataset]]) -> None:
    """Print the dev scores of what was written to disk and keep them: a row for each width of the beam and dataset.

    Args:
        workspace: whose model it is.
        sources: the workspaces of the photos, and their captions.
    """
    rows = []
    for beam in BEAMS:
        captioner = Captioner.load(workspace.models / "bundled.h5", beam)
        for source, data in sources:
            rows.append({"dataset": data.name, "beam": beam} | dev_scores(captioner, source.images, data))
            print(rows[-1])
    save_json_rows(workspace.models / "scores.json", rows)


def dev_scores(captioner: Captioner, images: Path, data: Dataset) -> dict[str, float | str]:
    """All that `models/scores.json` has of one set of dev photos.

    Beside the usual scores, these are the numbers of different captions and of different words, CHAIR, the share of
    captions that name a thing which people named ("right"), among all and among those with a high or low score, and the
    area under the curve of the score ("AUC"): how well it tells these captions from the others. What cannot be computed
    is left out: AUC where all captions are right, or none.

    Args:
        images: the folder of the photos.
    """
    results = captioner.caption_files([images / name for name in data.dev])
    best = {result.path.name: result.best for result in results}
    found = {name: caption.text for name, caption in best.items()}
    scores = evaluate.score(found, data.references)
    variety = evaluate.diversity(list(found.values()))
    right = np.array([evaluate.names_a_thing(text, data.dev[name]) for name, text in found.items()])
    certainty = np.array([caption.score for caption in best.values()])
    row = scores.corpus | {"captions": variety.distinct, "words": variety.vocabulary}
    row |= evaluate.chair(found, data.dev) | {"right": 100 * float(right.mean())}
    for name, chosen in ((f"right, score >= {HIGH}", certainty >= HIGH), (f"right, score < {LOW}", certainty < LOW)):
        if chosen.any():
            row[name] = 100 * float(right[chosen].mean())
    if right.any() and not right.all():
        row["AUC"] = 100 * evaluate.area_under_curve(certainty.tolist(), right.tolist())
    return {name: round(value, 2) for name, value in row.items()} | {"tokens": scores.tokenizer}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("others", nargs="*", type=Path, help="a workspace to learn from besides Flickr8k's")
    options = parser.parse_args()
    try:
        workspace = find_workspace()
        run(workspace, [Workspace(path.resolve(), workspace.outputs / path.name) for path in options.others])
    except CaptionError as error:
        print(f"recipe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(quiet_at_ctrl_c(main))
