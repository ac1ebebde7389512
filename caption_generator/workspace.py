"""Where a dataset lies and where its results go."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import is_file
from caption_generator.common.pictures import is_picture

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample"
BUNDLED_MODEL = ROOT / "models" / "bundled.h5"

# The official spelling first, then the one inside the official zip, Kaggle's, and Flickr30k's.
IMAGE_FOLDERS = ("Flickr8k_Dataset", "Flicker8k_Dataset", "Images", "images", "flickr30k_images")
TEXTS = "Flickr8k_text"
CAPTION_FILES = (
    *(f"{TEXTS}/Flickr8k.token.txt", "Flickr8k.token.txt", f"{TEXTS}/captions.txt", "captions.txt"),
    *(f"{TEXTS}/captions.csv", "captions.csv", f"{TEXTS}/results.csv", "results.csv", "flickr30k_images/results.csv"),
)
# Where there is none of those: COCO's JSON, then whatever looks like captions.
CAPTION_PATTERNS = ("*captions*.json", "*token*.txt", "*caption*.txt", "*caption*.csv", "*caption*.tsv", "results*.csv")
TEXT_PATTERNS = ("*.csv", "*.tsv", "*.json")  # in the folder of texts alone


@dataclass(frozen=True)
class Workspace:
    """A folder laid out like the repository's top level.

    Attributes:
        inputs: the folder with `Flickr8k_Dataset/` and `Flickr8k_text/`; it is only ever read.
        outputs: the folder that `descriptions.txt`, `features.p`, `tokenizer.p`, `models/` and `model.png` are
            written to; the same folder, unless the dataset is read-only.
    """

    inputs: Path
    outputs: Path

    @property
    def images(self) -> Path:
        """The folder of images: under its spellings, and in the folders in these, the first that holds pictures.

        An empty one may lie beside the dataset, as in the repository, and an archive unpacks into a folder of its own.
        """
        if "found" not in vars(self):  # once there are pictures, they are not looked for again: that takes a while
            there = [folder for name in IMAGE_FOLDERS if (folder := self.inputs / name).is_dir()]
            found = next((found for folder in there for found in _picture_folders(folder)), None)
            if found is None:
                return there[0] if there else self.inputs / IMAGE_FOLDERS[0]
            vars(self)["found"] = found
        return vars(self)["found"]

    @property
    def captions(self) -> Path:
        """The file of raw captions: `Flickr8k.token.txt`, Kaggle's `captions.txt`, or another that looks like one."""
        named = (path for name in CAPTION_FILES if is_file(path := self.inputs / name))
        return next(named, None) or next(self._likely_captions(), self.inputs / CAPTION_FILES[0])

    def _likely_captions(self) -> Iterator[Path]:
        for folder, patterns in (
            (self.inputs / TEXTS, CAPTION_PATTERNS),
            (self.inputs, CAPTION_PATTERNS),
            (self.inputs / TEXTS, TEXT_PATTERNS),
        ):
            for pattern in patterns:
                found = (path for path in folder.glob(pattern) if is_file(path) and not path.name.startswith("."))
                # The repository's own requirements-caption.txt looks like captions by its name.
                yield from sorted(path for path in found if not path.name.startswith("requirements"))

    @property
    def texts(self) -> Path:
        """The folder that also holds the official split files."""
        return self.captions.parent

    @property
    def descriptions(self) -> Path:
        return self.outputs / "descriptions.txt"

    @property
    def features(self) -> Path:
        return self.outputs / "features.p"

    @property
    def tokenizer(self) -> Path:
        return self.outputs / "tokenizer.p"

    @property
    def models(self) -> Path:
        return self.outputs / "models"

    @property
    def best_model(self) -> Path:
        return self.models / "model_best.h5"

    @property
    def diagram(self) -> Path:
        return self.outputs / "model.png"

    def word_vectors(self, size: int) -> Path:
        """Pretrained word vectors, beside the captions: `glove*.{size}d.txt`, else a zip, else another `glove*.txt`.

        Raises:
            CaptionError: there are none.
        """
        for pattern in (f"glove*.{size}d.txt", "glove*.zip", "glove*.txt"):
            if found := sorted(self.texts.glob(pattern)):
                return found[0]
        raise CaptionError(
            f"{self.texts} holds no word vectors: put glove.6B.zip (822 MB) there, from "
            "https://nlp.stanford.edu/projects/glove/, or choose a system that learns its words."
        )

    @property
    def is_sample(self) -> bool:
        return self.inputs == SAMPLE

    @property
    def dataset(self) -> str:
        """The dataset's name, for checkpoints."""
        return {ROOT: "Flickr8k", SAMPLE: "sample"}.get(self.inputs, self.inputs.name)

    def image_names(self) -> list[str]:
        """The names of all image files, sorted."""
        images = self.images
        if not images.is_dir():
            raise CaptionError(f"{images} does not exist: put the photos there{or_fetch(images)}.")
        try:
            return sorted(path.name for path in images.iterdir() if is_picture(path) and not path.is_dir())
        except OSError as error:
            raise CaptionError(f"cannot look into {images} ({error.strerror}): change its permissions.") from error

    def __str__(self) -> str:
        where = _shown(self.inputs)
        return where if self.inputs == self.outputs else f"{where} (results go to {_shown(self.outputs)})"


def _picture_folders(folder: Path) -> Iterator[Path]:
    """`folder` and those in it that hold pictures, looked up one by one: the first does mostly, and may be large."""
    if _holds_pictures(folder):
        yield folder
    with suppress(OSError):  # it may not be looked into
        inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        yield from filter(_holds_pictures, inner)


def _holds_pictures(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:  # which does not list the folder to its end
            return any(is_picture(Path(entry.name)) and not entry.is_dir() for entry in entries)
    except OSError:
        return False


def find_workspace() -> Workspace:
    """Choose the workspace: `CAPTION_WORKSPACE`, else the repository if it holds Flickr8k's images, else the sample.

    `CAPTION_OUTPUTS` sends the results elsewhere, which lets a dataset be read-only. Both may be relative to the
    repository, whichever folder Jupyter or the shell is in.

    Raises:
        CaptionError: the folder that `CAPTION_WORKSPACE` names does not exist or may not be read, or there can be none
            of the name that one of the two has.
    """
    chosen = os.environ.get("CAPTION_WORKSPACE")
    if chosen:
        inputs = _from_root("CAPTION_WORKSPACE", chosen)
        if not os.access(inputs, os.R_OK | os.X_OK) or not inputs.is_dir():
            raise CaptionError(
                f"CAPTION_WORKSPACE={chosen} is not a folder that can be read: name one that holds Flickr8k_Dataset/ "
                "and Flickr8k_text/."
            )
    else:
        root = Workspace(ROOT, ROOT)
        has_images = root.images.is_dir() and bool(root.image_names())
        inputs = ROOT if has_images else SAMPLE
    outputs = os.environ.get("CAPTION_OUTPUTS")
    return Workspace(inputs, _from_root("CAPTION_OUTPUTS", outputs) if outputs else inputs)


def or_fetch(folder: Path) -> str:
    """What advice to fill a folder ends with, where notebook 1 can fetch Flickr8k into it: in the repository alone."""
    return ", or fetch Flickr8k with the last cell of notebook 1" if folder.parent == ROOT else ""


def missing_model(path: str | Path) -> str:
    """One sentence about a model that is not there, with one that is: of the current workspace, or the one that ships.

    Scripts and notebooks show it, so it speaks of no option.
    """
    with suppress(CaptionError):
        workspace = find_workspace()
        # The model of the sample knows nothing but drawings.
        trained = [] if workspace.outputs == SAMPLE else [workspace.best_model]
        for near in (workspace.outputs / path, ROOT / path, *trained):
            if is_file(near):
                return f"{path} does not exist: did you mean {_from_here(near)}?"
    ships = f", or name the one that ships, {_from_here(BUNDLED_MODEL)}" if is_file(BUNDLED_MODEL) else ""
    return f"{path} does not exist: train a model with notebook 4{ships}."


def _from_here(path: Path) -> Path:
    """A path as a command in the current folder can name it: short where it lies inside."""
    with suppress(OSError, ValueError):  # the folder is gone; the path lies elsewhere
        return path.relative_to(Path.cwd())
    return path


def _from_root(variable: str, path: str) -> Path:
    try:
        return (ROOT / Path(path).expanduser()).resolve()
    except RuntimeError as error:  # ~ with a name that the system does not know, or links in a circle
        reason = str(error).rstrip(".")
        raise CaptionError(f"{variable}={path} is no folder ({reason}): name another one.") from error


def announce(workspace: Workspace) -> str:
    """One line that says which workspace is in use and, for the sample, how to get the full set."""
    if workspace.is_sample:
        return f"Workspace: {workspace}, the small drawn dataset. The end of notebook 1 fetches the full Flickr8k."
    return f"Workspace: {workspace}"


def _shown(path: Path) -> str:
    """A path as the reader knows it: relative to the repository where it lies inside."""
    if path == ROOT:
        return "the repository"
    return f"{path.relative_to(ROOT)}/" if path.is_relative_to(ROOT) else str(path)
