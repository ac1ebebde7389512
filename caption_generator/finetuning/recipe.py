"""The recipe of the model that ships: `python -m caption_generator.finetuning.recipe`.

From the raw dataset to `models/bundled.h5` in one command, with MobileNetV2 as the encoder and attention in the
decoder. The decoder settles on a frozen encoder. Then both are trained together, and from there twice again, and the
two models averaged. Then the decoder learns from the scores of its own captions, and its last epochs are averaged. At
last the model learns which words its photos call for. Interrupted, the command goes on where it was.
`CAPTION_WORKSPACE` and `CAPTION_OUTPUTS` say where the dataset is and where everything is written.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from caption_generator import captions
from caption_generator.common.console import load_tensorflow
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import replacing, save_json_rows
from caption_generator.tokenizer import fit_tokenizer
from caption_generator.workspace import ROOT, Workspace, announce, find_workspace

SYSTEM = "mobilenetv2-attention"
# Of each stage one run or more, all from the model of the stage before; their last epochs are averaged.
STAGES: Mapping[str, Sequence[Mapping[str, float]]] = {
    "settled": [{"epochs": 3, "learning_rate": 1e-3, "freeze_encoder": True}],
    "finetuned": [{"epochs": 8, "learning_rate": 4e-4}],
    # Warm restarts, as in Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    "restarted": [
        {"epochs": 10, "learning_rate": 3e-4, "seed": 1},
        {"epochs": 8, "learning_rate": 3e-4, "seed": 2},
    ],
    "self_critical": [{"epochs": 8, "learning_rate": 3e-5}],
}
AVERAGED = 3  # of the last stage, this many last epochs
BEAMS = (1, 3, 5)


def run(workspace: Workspace) -> None:
    """Every step from captions to the shipped model, with its dev scores at the end."""
    import keras

    from caption_generator.checkpoint import Checkpoint, average_checkpoints, save_checkpoint
    from caption_generator.encoders import build_encoder
    from caption_generator.finetuning.finetune import train_captioner
    from caption_generator.finetuning.self_critical import train_self_critical
    from caption_generator.systems import SYSTEMS
    from caption_generator.train import build_system, check_captions

    print(announce(workspace), file=sys.stderr)
    data = captions.prepare(workspace)
    train, dev = data.train, data.dev
    check_captions(train, dev)
    system = SYSTEMS[SYSTEM]
    tokenizer = fit_tokenizer(train, system.min_count)
    tokenizer.save(workspace.tokenizer)

    def untrained() -> Checkpoint:
        keras.utils.set_random_seed(0)
        encoder = build_encoder(system.encoder, pooling=system.pooling)
        decoder = build_system(system, encoder.row.feature_size, tokenizer)
        about = {"dataset": workspace.dataset, "images": len(train), "fingerprint": captions.fingerprint(train)}
        return Checkpoint(decoder, tokenizer, encoder.identity, encoder, about)

    begin = untrained
    for stage, runs in STAGES.items():
        last = last_epochs(workspace, stage, runs)
        for settings, path in zip(runs, last, strict=True):
            model, folder = begin(), path.parent
            if not is_finished(path, model, settings):
                if stage == "self_critical":
                    train_self_critical(model, workspace.images, train, dev, folder, **settings)
                else:
                    train_captioner(model, model.encoder, workspace.images, train, dev, folder, **settings)
        begin = partial(average_checkpoints, last)
    model = average_checkpoints([folder / f"model_{settings['epochs'] - n}.h5" for n in range(AVERAGED)])
    finished = learn_photos(model, workspace, train)
    save_checkpoint(finished, workspace.models / "bundled.h5", half=True)
    record_log(workspace)
    record_scores(workspace, data.references, list(dev))


def run_folder(workspace: Workspace, stage: str, settings: Mapping[str, float]) -> Path:
    """Where a run of a stage writes; those of a stage with several are told apart by their seeds."""
    return workspace.models / (f"{stage}_{settings['seed']}" if "seed" in settings else stage)


def last_epochs(workspace: Workspace, stage: str, runs: Sequence[Mapping[str, float]]) -> list[Path]:
    """The checkpoints that the runs of a stage end with."""
    return [run_folder(workspace, stage, settings) / f"model_{settings['epochs']}.h5" for settings in runs]


def is_finished(last: Path, model, settings: Mapping[str, float]) -> bool:
    """Whether `last` is what the checkpoint `model` became after training with `settings`, and not of another run."""
    from caption_generator.checkpoint import load_checkpoint
    from caption_generator.train import read_history

    history = last.parent / "history.csv"
    logged = read_history(history) if last.is_file() and history.is_file() else []
    if settings["epochs"] not in [row["epoch"] for row in logged]:
        return False  # the checkpoint is written first, and a run may have been killed before it was logged
    found = load_checkpoint(last)
    *before, stage = found.training.get("stages") or [{}]
    return (
        settings.items() <= stage.items()
        and before == model.training.get("stages", [])
        and found.training.get("averaged") == model.training.get("averaged")
        and found.training.get("fingerprint") == model.training["fingerprint"]
        and found.tokenizer.fingerprint == model.tokenizer.fingerprint
    )


def learn_photos(checkpoint, workspace: Workspace, train: captions.Descriptions):
    """`checkpoint`, which now knows what photos usually look like to its encoder, and which words they call for."""
    import numpy as np

    from caption_generator.encoders import with_pooling
    from caption_generator.images import load_batches
    from caption_generator.inference.folding import compile_encoder
    from caption_generator.inference.out_of_distribution import Familiarity
    from caption_generator.inference.word_ranking import WordDetector

    encoder = with_pooling(checkpoint.encoder, "avg")
    batches = load_batches([workspace.images / name for name in train], encoder.row.input_size)
    encode, tokenizer = compile_encoder(encoder), checkpoint.tokenizer
    features = np.concatenate([encode(batch.pixels) for batch in batches])
    tokens = [[tokenizer.encode(caption) for caption in group] for group in train.values()]
    detector = WordDetector.fit(features, tokens, len(tokenizer))
    return replace(checkpoint, familiarity=Familiarity.fit(features), detector=detector)


def record_log(workspace: Workspace) -> None:
    """Put the histories of all runs into one table, `models/log.csv`."""
    from caption_generator.train import read_history

    folders = [run_folder(workspace, stage, settings) for stage, runs in STAGES.items() for settings in runs]
    rows = [{"run": folder.name} | row for folder in folders for row in read_history(folder / "history.csv")]
    with replacing(workspace.models / "log.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        table.writeheader()
        table.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_log(path: Path = ROOT / "models" / "log.csv") -> dict[str, list[dict[str, float]]]:
    """The histories of the runs of the model that ships, or of another time that the recipe was followed."""
    histories: dict[str, list[dict[str, float]]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            history = histories.setdefault(row.pop("run"), [])
            history.append({name: float(value) for name, value in row.items() if value})
    return histories


def record_scores(workspace: Workspace, references: captions.Descriptions, names: Sequence[str]) -> None:
    """Print the dev scores of what was written to disk and keep them beside it, for each width of the beam."""
    from caption_generator import evaluate
    from caption_generator.captioner import Captioner

    rows = []
    for beam in BEAMS:
        captioner = Captioner.load(workspace.models / "bundled.h5", beam)
        found = captioner.caption_files([workspace.images / name for name in names])
        scores = evaluate.score({result.path.name: result.best.text for result in found}, references)
        corpus = {measure: round(value, 2) for measure, value in scores.corpus.items()}
        rows.append({"beam": beam} | corpus | {"tokens": scores.tokenizer})
        print(rows[-1])
    save_json_rows(workspace.models / "scores.json", rows)


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    load_tensorflow()
    try:
        run(find_workspace())
    except CaptionError as error:
        print(f"recipe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
