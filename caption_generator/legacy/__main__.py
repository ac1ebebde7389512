"""Convert the files of a Keras 2 project: `python -m caption_generator.legacy --tokenizer tokenizer.p --out FOLDER`.

The projects that this one descends from leave a pickled Keras `Tokenizer`, a `features.p` and a merge model saved whole
as `.h5`. Here these become this project's own, so that nothing has to be extracted or trained again. Such files come
from anyone. Pickles are therefore read with inert stand-ins for the few classes that belong in them. The description of
a model is read as text, and its weights as arrays. Nothing that a file names is ever run.
"""

import argparse
import shlex
import sys
from pathlib import Path

from caption_generator.common.console import need_tensorflow, positive, quiet_at_ctrl_c
from caption_generator.common.errors import CaptionError
from caption_generator.legacy.pickles import MAX_LENGTH, read_tokenizer
from caption_generator.workspace import Workspace


def convert(options: argparse.Namespace) -> None:
    """Convert the files that `options` names and write them into a workspace.

    Raises:
        CaptionError: as the functions that read them, or a file would be written over one that is read.
    """
    out = Workspace(Path(options.out), Path(options.out))
    model = out.models / f"{Path(options.model or '').stem}.h5"
    pairs = ((options.tokenizer, out.tokenizer), (options.features, out.features), (options.model, model))
    read = {Path(path).resolve() for path, _ in pairs if path}
    for path, target in pairs:
        if path and target.resolve() in read:
            raise CaptionError(f"{target} would be written over, which is to be read: name another folder with --out.")

    vocabulary, features, checkpoint = read_tokenizer(options.tokenizer, options.max_length or MAX_LENGTH), None, None
    tokenizer = vocabulary.tokenizer
    if options.features or options.model:
        need_tensorflow("converting features or a model")
        from caption_generator.checkpoint import load_encoder, save_checkpoint
        from caption_generator.features import save_features
        from caption_generator.legacy.features import read_features
        from caption_generator.legacy.merge_model import read_merge_model

        identity = load_encoder(options.encoder, options.encoder_weights).identity
        features = read_features(options.features, identity) if options.features else None
        if options.model:
            checkpoint = read_merge_model(options.model, vocabulary, identity, options.max_length)
            tokenizer = checkpoint.tokenizer

    # All could be read: now they are written.
    tokenizer.save(out.tokenizer)
    print(f"{out.tokenizer}: {len(tokenizer)} words, captions of at most {tokenizer.max_length}")
    if features:
        save_features(features, out.features)
        print(f"{out.features}: {len(features.vectors)} vectors of {identity}")
    if checkpoint:
        save_checkpoint(checkpoint, model)
        command = ["python", "testing_caption_generator.py", "-i", "photo.jpg", "--model", str(model)]
        if options.encoder_weights != "imagenet":
            command += ["--encoder-weights", options.encoder_weights]
        print(f"{model}: caption with {shlex.join(command)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, metavar="FILE", help="the other project's tokenizer.p")
    parser.add_argument("--features", metavar="FILE", help="its features.p")
    parser.add_argument("--model", metavar="FILE", help="its merge model, such as models/model_9.h5")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", help="the workspace to write tokenizer.p and so on into"
    )
    parser.add_argument("--encoder", metavar="NAME", help="what made the features, such as xception")
    parser.add_argument(
        "--encoder-weights",
        default="imagenet",
        metavar="FILE",
        help="a weights file for the encoder, where Keras cannot download it",
    )
    parser.add_argument(
        "--max-length",
        type=positive,
        metavar="N",
        help=f"words of the longest caption (default: what the model has room for, {MAX_LENGTH} without a model)",
    )
    options = parser.parse_args()
    if (options.features or options.model) and not options.encoder:
        parser.error("features and models need --encoder: several encoders make vectors of the same length")
    try:
        convert(options)
    except CaptionError as error:
        print(f"legacy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(quiet_at_ctrl_c(main))
