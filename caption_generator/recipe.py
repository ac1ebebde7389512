"""The recipe of the model that ships: `python -m caption_generator.recipe`.

From the raw dataset to `models/bundled.h5` in one command, with MobileNetV2 as the encoder and attention in the
decoder: the decoder settles on a frozen encoder, then both are trained together, then the decoder learns from the
scores of its own captions. Interrupted, it goes on where it was. `CAPTION_WORKSPACE` and `CAPTION_OUTPUTS` say where
the dataset is and where everything is written.
"""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from caption_generator import captions
from caption_generator.files import CaptionError, replacing
from caption_generator.quiet import load_tensorflow
from caption_generator.tokenizer import Tokenizer
from caption_generator.workspace import Workspace, announce, find_workspace

ENCODER = "mobilenetv2"
MIN_COUNT = 4
STAGES: Mapping[str, Mapping[str, float]] = {
    "settled": {"epochs": 4, "learning_rate": 1e-3, "freeze_encoder": True},
    "finetuned": {"epochs": 9, "learning_rate": 3e-4},
    "self_critical": {"epochs": 8, "learning_rate": 2e-5},
}
BEAMS = (1, 3, 5)


def run(workspace: Workspace) -> None:
    """Every step from captions to the shipped model, with its dev scores at the end."""
    from caption_generator.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from caption_generator.decoders import DecoderSpec, build_decoder, decoder_row
    from caption_generator.encoders import build_encoder
    from caption_generator.finetune import train_captioner
    from caption_generator.self_critical import train_self_critical

    print(announce(workspace), file=sys.stderr)
    references = captions.read_captions(workspace.captions).captions
    descriptions = captions.clean_captions(references)
    captions.save_descriptions(descriptions, workspace.descriptions)
    splits = captions.load_splits(workspace, descriptions)
    train, dev = (captions.subset(descriptions, splits.get(split, [])) for split in ("train", "dev"))
    tokenizer = Tokenizer.fit((caption for group in train.values() for caption in group), MIN_COUNT)
    tokenizer.save(workspace.tokenizer)
    folders = {stage: workspace.models / stage for stage in STAGES}
    last = {stage: folders[stage] / f"model_{settings['epochs']}.h5" for stage, settings in STAGES.items()}

    if not last["settled"].is_file():
        encoder = build_encoder(ENCODER, pooling="grid")
        row = decoder_row("attention")
        decoder = build_decoder(DecoderSpec("attention", encoder.row.feature_size, len(tokenizer), row.units))
        about = {"dataset": "Flickr8k", "images": len(train), "fingerprint": captions.fingerprint(train)}
        new = Checkpoint(decoder, tokenizer, encoder.identity, training=about)
        train_captioner(new, encoder, workspace.images, train, dev, folders["settled"], **STAGES["settled"])
    if not last["finetuned"].is_file():
        settled = load_checkpoint(last["settled"])
        encoder = settled.encoder
        train_captioner(settled, encoder, workspace.images, train, dev, folders["finetuned"], **STAGES["finetuned"])
    if not last["self_critical"].is_file():
        finetuned = load_checkpoint(last["finetuned"])
        train_self_critical(
            finetuned, workspace.images, train, dev, folders["self_critical"], **STAGES["self_critical"]
        )
    finished = load_checkpoint(last["self_critical"])
    finished = replace(finished, familiarity=measure_familiarity(finished, workspace, list(train)))
    save_checkpoint(finished, workspace.models / "bundled.h5", half=True)
    record_log(folders, workspace.models / "log.csv")
    record_scores(workspace, references, list(dev))


def measure_familiarity(checkpoint, workspace: Workspace, names: Sequence[str]):
    """What photos usually look like to the encoder of `checkpoint`."""
    import numpy as np

    from caption_generator.encoders import with_pooling
    from caption_generator.familiarity import Familiarity
    from caption_generator.images import load_batches

    encoder = with_pooling(checkpoint.encoder, "avg")
    batches = load_batches([workspace.images / name for name in names], encoder.row.input_size)
    return Familiarity.fit(np.concatenate([encoder.model.predict_on_batch(batch.pixels) for batch in batches]))


def record_log(folders: Mapping[str, Path], path: Path) -> None:
    """Put the histories of all stages into one table."""
    from caption_generator.train import read_history

    rows = [{"stage": stage} | row for stage, folder in folders.items() for row in read_history(folder / "history.csv")]
    with replacing(path) as temporary, open(temporary, "w", newline="") as file:
        table = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        table.writeheader()
        table.writerows({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows)


def record_scores(workspace: Workspace, references: captions.Descriptions, names: Sequence[str]) -> None:
    """Print the dev scores of what was written to disk and keep them beside it, for each width of the beam."""
    from caption_generator import evaluate
    from caption_generator.captioner import Captioner

    rows = []
    for beam in BEAMS:
        captioner = Captioner.load(workspace.models / "bundled.h5", beam)
        found = captioner.caption_files([workspace.images / name for name in names])
        scores = evaluate.score({result.path.name: result.best.text for result in found}, references)
        rows.append({"beam": beam} | {measure: round(value, 2) for measure, value in scores.corpus.items()})
        print(rows[-1])
    with replacing(workspace.models / "scores.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")


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
