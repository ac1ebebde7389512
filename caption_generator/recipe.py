"""The recipe of the model that ships: `python -m caption_generator.recipe`.

From the raw dataset to `models/bundled.h5` in one command, with MobileNetV2 as the encoder: frozen first, until the
decoder has settled, then fine-tuned with the caption loss. Interrupted, it goes on where it was. `CAPTION_WORKSPACE`
and `CAPTION_OUTPUTS` say where the dataset is and where everything is written.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from caption_generator.quiet import load_tensorflow

load_tensorflow()

from caption_generator import captions, evaluate  # noqa: E402
from caption_generator.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from caption_generator.decoding import BeamSearch  # noqa: E402
from caption_generator.encoders import build_encoder  # noqa: E402
from caption_generator.features import extract_features  # noqa: E402
from caption_generator.files import CaptionError, replacing  # noqa: E402
from caption_generator.finetune import finetune  # noqa: E402
from caption_generator.tokenizer import Tokenizer  # noqa: E402
from caption_generator.train import train_decoder  # noqa: E402
from caption_generator.workspace import Workspace, announce, find_workspace  # noqa: E402

ENCODER = "mobilenetv2"
MIN_COUNT = 4
FROZEN = {"epochs": 10, "batch_size": 256, "learning_rate": 1e-3}
FINETUNED = {"epochs": 6, "images_per_batch": 32, "learning_rate": 2e-4}
BEAMS = (1, 3, 5)


def run(workspace: Workspace) -> None:
    """Every step from captions to the shipped model, with its dev scores at the end."""
    print(announce(workspace), file=sys.stderr)
    references = captions.read_captions(workspace.captions).captions
    descriptions = captions.clean_captions(references)
    captions.save_descriptions(descriptions, workspace.descriptions)
    splits = captions.load_splits(workspace, descriptions)
    train, dev = (captions.subset(descriptions, splits.get(split, [])) for split in ("train", "dev"))

    encoder = build_encoder(ENCODER)
    features = extract_features(encoder, workspace.images, [*train, *dev], workspace.features)
    tokenizer = Tokenizer.fit((caption for group in train.values() for caption in group), MIN_COUNT)
    tokenizer.save(workspace.tokenizer)

    frozen, finetuned = workspace.models / "frozen", workspace.models / "finetuned"
    if not finished(frozen, FROZEN):
        train_decoder(train, dev, features, tokenizer, frozen, dataset="Flickr8k", **FROZEN)
    if not finished(finetuned, FINETUNED):
        settled = load_checkpoint(frozen / "model_best.h5")
        finetune(settled, encoder, workspace.images, train, dev, finetuned, **FINETUNED)
    # The last epoch, where the learning rate has come down, rather than the one of the lowest dev loss: the loss is the
    # same from the third epoch on, while the captions go on improving.
    last = load_checkpoint(finetuned / f"model_{FINETUNED['epochs']}.h5")
    save_checkpoint(last, workspace.models / "bundled.h5", half=True)
    record_scores(workspace, references, list(dev))


def finished(folder: Path, settings: Mapping[str, float]) -> bool:
    """Whether an earlier run has come to the last epoch."""
    return (folder / f"model_{settings['epochs']}.h5").is_file()


def record_scores(workspace: Workspace, references: captions.Descriptions, names: list[str]) -> None:
    """Print the dev scores of what was written to disk and keep them beside it, for each width of the beam."""
    model = load_checkpoint(workspace.models / "bundled.h5")
    features = extract_features(model.encoder, workspace.images, names, workspace.models / "finetuned" / "features.p")
    rows = []
    for beam in BEAMS:
        found = evaluate.caption_images(BeamSearch(model.decoder, model.tokenizer, beam), features, names)
        scores = evaluate.score(dict(zip(names, (caption.text for caption in found), strict=True)), references)
        rows.append({"beam": beam} | {measure: round(value, 2) for measure, value in scores.corpus.items()})
        print(rows[-1])
    with replacing(workspace.models / "scores.json") as temporary:
        temporary.write_text("[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]\n")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        run(find_workspace())
    except CaptionError as error:
        print(f"recipe: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
