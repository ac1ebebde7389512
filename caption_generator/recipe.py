"""The recipe of the model that ships: `python -m caption_generator.recipe`.

From the raw dataset to `models/bundled.h5` in one command, with MobileNetV2 as the encoder and attention in the
decoder: the decoder settles on a frozen encoder, then both are trained together, twice over, then the decoder learns
from the scores of its own captions, and its last epochs are averaged. Interrupted, it goes on where it was.
`CAPTION_WORKSPACE` and `CAPTION_OUTPUTS` say where the dataset is and where everything is written.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from caption_generator import captions
from caption_generator.files import CaptionError, replacing, save_json_rows
from caption_generator.quiet import load_tensorflow
from caption_generator.tokenizer import fit_tokenizer
from caption_generator.workspace import ROOT, Workspace, announce, find_workspace

SYSTEM = "mobilenetv2-attention"
STAGES: Mapping[str, Mapping[str, float]] = {
    "settled": {"epochs": 3, "learning_rate": 1e-3, "freeze_encoder": True},
    "finetuned": {"epochs": 8, "learning_rate": 4e-4},
    # A warm restart, as in Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts".
    "restarted": {"epochs": 10, "learning_rate": 3e-4, "seed": 1},
    "self_critical": {"epochs": 8, "learning_rate": 3e-5},
}
AVERAGED = 5  # of the last stage, this many last epochs
BEAMS = (1, 3, 5)


def run(workspace: Workspace) -> None:
    """Every step from captions to the shipped model, with its dev scores at the end."""
    import keras

    from caption_generator.checkpoint import Checkpoint, average_checkpoints, load_checkpoint, save_checkpoint
    from caption_generator.encoders import build_encoder
    from caption_generator.finetune import train_captioner
    from caption_generator.self_critical import train_self_critical
    from caption_generator.systems import SYSTEMS
    from caption_generator.train import build_system, check_captions

    print(announce(workspace), file=sys.stderr)
    data = captions.prepare(workspace)
    train, dev = data.train, data.dev
    check_captions(train, dev)
    system = SYSTEMS[SYSTEM]
    tokenizer = fit_tokenizer(train, system.min_count)
    tokenizer.save(workspace.tokenizer)

    keras.utils.set_random_seed(0)
    encoder = build_encoder(system.encoder, pooling=system.pooling)
    decoder = build_system(system, encoder.row.feature_size, tokenizer)
    about = {"dataset": workspace.dataset, "images": len(train), "fingerprint": captions.fingerprint(train)}
    model = Checkpoint(decoder, tokenizer, encoder.identity, encoder, about)
    for stage, settings in STAGES.items():
        folder = workspace.models / stage
        last = folder / f"model_{settings['epochs']}.h5"
        if not is_finished(last, model, settings):
            if stage == "self_critical":
                train_self_critical(model, workspace.images, train, dev, folder, **settings)
            else:
                train_captioner(model, model.encoder, workspace.images, train, dev, folder, **settings)
        model = load_checkpoint(last)
    epochs = range(STAGES["self_critical"]["epochs"], 0, -1)[:AVERAGED]
    model = average_checkpoints([folder / f"model_{epoch}.h5" for epoch in epochs])
    finished = replace(
        model,
        training=dict(model.training) | {"averaged_epochs": list(epochs)},
        familiarity=measure_familiarity(model, workspace, list(train)),
    )
    save_checkpoint(finished, workspace.models / "bundled.h5", half=True)
    record_log(workspace)
    record_scores(workspace, data.references, list(dev))


def is_finished(last: Path, model, settings: Mapping[str, float]) -> bool:
    """Whether `last` is what the checkpoint `model` became after training with `settings`, and not of another run."""
    from caption_generator.checkpoint import load_checkpoint

    if not last.is_file():
        return False
    found = load_checkpoint(last)
    *before, stage = found.training.get("stages") or [{}]
    return (
        settings.items() <= stage.items()
        and before == model.training.get("stages", [])
        and found.training.get("fingerprint") == model.training["fingerprint"]
        and found.tokenizer.fingerprint == model.tokenizer.fingerprint
    )


def measure_familiarity(checkpoint, workspace: Workspace, names: Sequence[str]):
    """What photos usually look like to the encoder of `checkpoint`."""
    import numpy as np

    from caption_generator.encoders import compile_encoder, with_pooling
    from caption_generator.familiarity import Familiarity
    from caption_generator.images import load_batches

    encoder = with_pooling(checkpoint.encoder, "avg")
    batches = load_batches([workspace.images / name for name in names], encoder.row.input_size)
    encode = compile_encoder(encoder)
    return Familiarity.fit(np.concatenate([encode(batch.pixels) for batch in batches]))


def record_log(workspace: Workspace) -> None:
    """Put the histories of all stages into one table, `models/log.csv`."""
    from caption_generator.train import read_history

    histories = {stage: read_history(workspace.models / stage / "history.csv") for stage in STAGES}
    rows = [{"stage": stage} | row for stage, history in histories.items() for row in history]
    with replacing(workspace.models / "log.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        table.writeheader()
        table.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def read_log(path: Path = ROOT / "models" / "log.csv") -> dict[str, list[dict[str, float]]]:
    """The histories of the stages of the model that ships, or of another run of this recipe."""
    histories: dict[str, list[dict[str, float]]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            stage = histories.setdefault(row.pop("stage"), [])
            stage.append({name: float(value) for name, value in row.items() if value})
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
