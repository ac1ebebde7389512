"""Export a trained model, so that captioning needs no TensorFlow and starts in a fraction of a second.

    python -m caption_generator.inference.export models/model_best.h5

The exported model lies beside the checkpoint, and the script and `Captioner.load` then use it by themselves. After more
training, export again: an export of an earlier state is never used.
"""

import argparse
import sys
from pathlib import Path

from caption_generator.common.console import need_tensorflow, quiet_at_ctrl_c
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import file_digest, is_file
from caption_generator.inference.exported import ExportedModel, export_path
from caption_generator.workspace import missing_model


def export_checkpoint(path: str | Path, encoder_weights: str | Path = "imagenet") -> Path:
    """Write the exported model beside a checkpoint, whole or not at all.

    The weights are stored in 16 bits where they lose nothing by it, as those of the shipped model. The computation
    stays in 32 bits.

    Args:
        path: any checkpoint of this project.
        encoder_weights: a local file, for a checkpoint whose encoder is neither in it nor downloadable.

    Returns:
        The path of the exported model.

    Raises:
        CaptionError: the checkpoint is missing or damaged, or its encoder cannot be had.
    """
    if not is_file(path):
        raise CaptionError(missing_model(path))
    if Path(path) == export_path(path):
        raise CaptionError(f"{path} is an exported model already: name its checkpoint, an .h5 file.")
    need_tensorflow("exporting")
    from caption_generator.inference.conversion import convert_networks
    from caption_generator.inference.keras_engine import KerasEngine

    fingerprint = file_digest(path)
    engine = KerasEngine.load(path, encoder_weights)
    model = ExportedModel(
        fingerprint,
        engine.description,
        engine.input_size,
        engine.grid,
        engine.tokenizer,
        convert_networks(engine.encoder, engine.checkpoint.decoder),
        engine.detector,
        engine.familiarity,
        engine.classifier,
    )
    exported = export_path(path)
    model.save(exported)
    return exported


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint, such as models/model_best.h5")
    parser.add_argument(
        "--encoder-weights",
        default="imagenet",
        metavar="FILE",
        help="a weights file for the model's encoder, where Keras cannot download it",
    )
    options = parser.parse_args()
    try:
        print(export_checkpoint(options.model, options.encoder_weights))
    except CaptionError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(quiet_at_ctrl_c(main))
