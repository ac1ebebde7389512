"""Where a dataset lies and where its results go."""

import os
from dataclasses import dataclass
from pathlib import Path

from caption_generator.common.errors import CaptionError
from caption_generator.images import SUFFIXES

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sample"
BUNDLED_MODEL = ROOT / "models" / "bundled.h5"

# The official spelling first, then the one inside the official zip, then Kaggle's.
IMAGE_FOLDERS = ("Flickr8k_Dataset", "Flicker8k_Dataset", "Images")
CAPTION_FILES = ("Flickr8k_text/Flickr8k.token.txt", "Flickr8k.token.txt", "Flickr8k_text/captions.txt", "captions.txt")


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
        """The folder of images, under whichever of its spellings is there."""
        return next(
            (self.inputs / name for name in IMAGE_FOLDERS if (self.inputs / name).is_dir()),
            self.inputs / IMAGE_FOLDERS[0],
        )

    @property
    def captions(self) -> Path:
        """The file of raw captions: the official `Flickr8k.token.txt` or Kaggle's `captions.txt`."""
        return next(
            (self.inputs / name for name in CAPTION_FILES if (self.inputs / name).is_file()),
            self.inputs / CAPTION_FILES[0],
        )

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
        if not self.images.is_dir():
            raise CaptionError(
                f"{self.images} does not exist: put the images there, or fetch Flickr8k as notebook 1 shows."
            )
        return sorted(
            p.name for p in self.images.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        )

    def __str__(self) -> str:
        where = _shown(self.inputs)
        return where if self.inputs == self.outputs else f"{where} (results go to {_shown(self.outputs)})"


def find_workspace() -> Workspace:
    """Choose the workspace: `CAPTION_WORKSPACE`, else the repository if it holds Flickr8k's images, else the sample.

    `CAPTION_OUTPUTS` sends the results elsewhere, which lets a dataset be read-only. Both may be relative to the
    repository, whichever folder Jupyter or the shell is in.

    Raises:
        CaptionError: the folder that `CAPTION_WORKSPACE` names does not exist.
    """
    chosen = os.environ.get("CAPTION_WORKSPACE")
    if chosen:
        inputs = _from_root(chosen)
        if not inputs.is_dir():
            raise CaptionError(
                f"CAPTION_WORKSPACE={chosen} is not a folder: name one that holds Flickr8k_Dataset/ and Flickr8k_text/."
            )
    else:
        root = Workspace(ROOT, ROOT)
        has_images = root.images.is_dir() and bool(root.image_names())
        inputs = ROOT if has_images else SAMPLE
    outputs = os.environ.get("CAPTION_OUTPUTS")
    return Workspace(inputs, _from_root(outputs) if outputs else inputs)


def _from_root(path: str) -> Path:
    return (ROOT / Path(path).expanduser()).resolve()


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
