"""Caption photos from the command line with a trained model."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from caption_generator.captioner import Captioner, Result, vocabulary_note
from caption_generator.common.console import (
    beam_width,
    drop_stdout,
    json_line,
    let_stdout_take_any_text,
    progress,
    put_line,
    quiet_at_ctrl_c,
)
from caption_generator.common.errors import CaptionError, printable
from caption_generator.images import find_pictures
from caption_generator.search import BEAM
from caption_generator.workspace import BUNDLED_MODEL

MOST_SHOWN = 99  # photos in the picture of --show, each of which takes 1.5 MB of memory and 0.1 s until it is drawn
EXAMPLES = """\
examples:
  python testing_caption_generator.py -i dog.jpg                one caption on one line
  python testing_caption_generator.py -i holiday/ "*.png"       file<TAB>caption, a line each
  python testing_caption_generator.py -i dog.jpg --top 3 --json the three best, with scores
  python testing_caption_generator.py -i dog.jpg --model models/model_best.h5
  python testing_caption_generator.py -i dog.jpg --show --out captioned.png
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-i", "--image", nargs="+", required=True, metavar="PATH", help="photos, folders or globs")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: image, caption, score (0 to 1)")
    parser.add_argument(
        "--beam", type=beam_width, default=BEAM, metavar="N", help="beam width; 1 is greedy (default: %(default)s)"
    )
    parser.add_argument("--top", type=beam_width, default=1, metavar="N", help="captions a photo; widens the beam to N")
    parser.add_argument("--model", metavar="FILE", help="a checkpoint of notebook 4 (default: the one that ships)")
    parser.add_argument(
        "--encoder-weights",
        default="imagenet",
        metavar="FILE",
        help="a weights file for the model's encoder, where Keras cannot download it",
    )
    parser.add_argument("--show", action="store_true", help="show photo and caption in a window, or save it as --out")
    parser.add_argument(
        "--out",
        default="captioned.png",
        metavar="PNG",
        help="the picture of --show where there is no display (default: captioned.png)",
    )
    return parser.parse_args()


def complain(sentence: str) -> None:
    with contextlib.suppress(OSError):  # the disk behind stderr is full
        print(f"testing_caption_generator.py: {printable(sentence)}", file=sys.stderr)


def main() -> int:
    options = parse_arguments()
    let_stdout_take_any_text()
    model = BUNDLED_MODEL if options.model is None else options.model
    paths, errors = find_pictures(options.image)
    one_photo = len(options.image) == 1 and paths == [Path(options.image[0])]
    shown: list[Result] = []
    captioned = 0
    try:
        if options.show and os.path.realpath(options.out) in map(os.path.realpath, paths):
            raise CaptionError(f"{options.out} is one of the photos: name another picture with --out.")
        captioner = Captioner.load(model, max(options.beam, options.top), options.encoder_weights)
        if note := vocabulary_note(captioner.engine.tokenizer, model):
            complain(note)
        # A bar only where it does not get between the captions.
        quiet = one_photo or sys.stdout.isatty() or not sys.stderr.isatty()
        for result in progress(captioner.caption_files(paths), total=len(paths), unit="image", disable=quiet):
            if result.error:
                errors.append(result.error)
                continue
            for caption in result.captions[: options.top]:
                if options.json:
                    line = {"image": str(result.path), "caption": caption.text, "score": round(caption.score, 4)}
                    put_line(json_line(line))
                else:
                    # Programs read the name as it is.
                    name = printable(str(result.path)) if sys.stdout.isatty() else result.path
                    text = printable(caption.text)
                    put_line(text if one_photo else f"{name}\t{text}")
            captioned += 1
            if options.show and captioned <= MOST_SHOWN:  # the memory of a run must not grow with its photos
                shown.append(result)
        if options.show and shown:
            try:
                from caption_generator.plots import show_or_save
            except ImportError as error:  # captions alone need fewer packages
                raise CaptionError(f"--show needs more packages ({error}): pip install -r requirements.txt.") from error
            if saved := show_or_save(shown, options.out):
                complain(f"no display: the picture is in {saved}.")
            if captioned > MOST_SHOWN:
                complain(f"the picture shows the first {MOST_SHOWN} photos of {captioned:,}.")
    except CaptionError as error:
        errors.append(str(error))
    for sentence in errors:
        complain(sentence)
    return 2 if errors else 0


def run() -> int:
    """As `main`, ended quietly by Ctrl-C and by a reader that goes away. An installed package has it as `caption`."""
    try:
        return quiet_at_ctrl_c(main)
    except BrokenPipeError:  # the reader, `head` for one, has seen enough
        drop_stdout()
        return 0


if __name__ == "__main__":
    sys.exit(run())
