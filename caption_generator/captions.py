"""Step 1: raw captions in, clean `descriptions.txt` and the train, dev and test splits out."""

import csv
import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest, replacing
from caption_generator.workspace import Workspace

Descriptions = dict[str, list[str]]

SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}

NUMBER = re.compile(r"#\d+$")  # of a caption, at the end of its id
HYPHENS = re.compile(r"[-/\u2010-\u2015]")
PUNCTUATION = re.compile(r"[^\w\s]|_")


@dataclass
class RawCaptions:
    """The captions as their authors wrote them, and what was wrong with the file.

    Attributes:
        captions: image name to its captions, in the file's order.
        duplicates: ids (`name#n`) that came more than once; the first caption was kept.
        malformed: line numbers, from 1, without an image name or without a caption.
    """

    captions: Descriptions = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    malformed: list[int] = field(default_factory=list)


def read_captions(path: str | Path) -> RawCaptions:
    """Read `Flickr8k.token.txt` (`name#n<TAB>caption`) or Kaggle's `captions.txt` (CSV with a header).

    Byte-order marks, Windows line ends and blank lines are taken in stride.

    Raises:
        CaptionError: the file is missing, is not UTF-8 text, or holds not one caption.
    """
    lines = _read_lines(path)
    header = next((line for line in lines if line.strip()), "")
    is_csv = header.strip().replace(" ", "").lower() == "image,caption"
    rows = _csv_rows(lines) if is_csv else _token_rows(lines)

    raw, seen = RawCaptions(), set()
    for number, identifier, caption in rows:
        name = NUMBER.sub("", identifier).strip()
        caption = caption.strip()
        if not name or not caption:
            raw.malformed.append(number)
        elif name != identifier and identifier in seen:
            raw.duplicates.append(identifier)
        else:
            seen.add(identifier)
            raw.captions.setdefault(name, []).append(caption)
    if not raw.captions:
        raise CaptionError(f"{path} holds no captions: its lines should read name.jpg#0<TAB>caption.")
    return raw


def _read_lines(path: str | Path) -> list[str]:
    try:
        # Not splitlines(), which also splits at the likes of U+2028, and they may be part of a caption.
        return Path(path).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise CaptionError(
            f"{path} does not exist: put Flickr8k's texts there, or fetch them as notebook 1 shows."
        ) from None
    except OSError as error:
        raise CaptionError(f"cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise CaptionError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8.") from error


def _token_rows(lines: list[str]) -> Iterable[tuple[int, str, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            identifier, _, caption = line.partition("\t")
            yield number, identifier.strip(), caption


def _csv_rows(lines: list[str]) -> Iterable[tuple[int, str, str]]:
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in rows[1:]:  # after the header
        # Line by line: a quote that nobody closed must not swallow the lines after it. A caption with commas that
        # nobody quoted spills into further columns.
        identifier, *caption = next(csv.reader([line]))
        yield number, identifier.strip(), ",".join(caption)


def clean_caption(caption: str, min_letters: int = 1) -> str:
    """Lower-case words only: hyphens split, punctuation goes, words with digits go.

    Args:
        caption: as its author wrote it.
        min_letters: drop shorter words. The usual recipe is 2, which loses "a"; references have it, so a
            model that was never taught "a" loses BLEU.
    """
    text = PUNCTUATION.sub("", HYPHENS.sub(" ", caption.lower()))
    return " ".join(word for word in text.split() if word.isalpha() and len(word) >= min_letters)


def clean_captions(captions: Mapping[str, Iterable[str]], min_letters: int = 1) -> Descriptions:
    """Clean every caption; those of which nothing remains, and images left without any, are dropped."""
    cleaned = {name: [clean_caption(caption, min_letters) for caption in group] for name, group in captions.items()}
    cleaned = {name: [caption for caption in group if caption] for name, group in cleaned.items()}
    return {name: group for name, group in cleaned.items() if group}


def save_descriptions(descriptions: Mapping[str, Iterable[str]], path: str | Path) -> None:
    """Write one `image<TAB>caption` line for every caption."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for name, group in descriptions.items():
            file.writelines(f"{name}\t{caption}\n" for caption in group)


def load_descriptions(path: str | Path) -> Descriptions:
    """Read what `save_descriptions` wrote.

    Raises:
        CaptionError: as `read_captions`.
    """
    return read_captions(path).captions


@dataclass(frozen=True)
class DiskCheck:
    """How the captions and the image folder differ.

    Attributes:
        without_image: names that have captions and no file.
        without_caption: files that have no caption.
    """

    without_image: list[str]
    without_caption: list[str]


def compare_with_disk(names: Iterable[str], workspace: Workspace) -> DiskCheck:
    """List the names in the text that are not on disk, and the reverse."""
    named, on_disk = set(names), set(workspace.image_names())
    return DiskCheck(sorted(named - on_disk), sorted(on_disk - named))


def load_splits(workspace: Workspace, names: Iterable[str], seed: int = 0) -> dict[str, list[str]]:
    """Divide the images that have captions and a file into train, dev and test.

    The official split files decide. Where some are missing, so are their splits; where all are, a seeded shuffle
    gives three quarters to train and an eighth each to dev and test, which is Flickr8k's own proportion.

    Args:
        workspace: where the split files and the images are.
        names: the images that have captions.

    Returns:
        Split name to image names, in the order of the file.
    """
    usable = set(names) & set(workspace.image_names())
    files = {split: workspace.texts / file for split, file in SPLIT_FILES.items()}
    splits = {split: _read_names(path) for split, path in files.items() if path.is_file()}
    if not splits:
        shuffled = sorted(usable)
        random.Random(seed).shuffle(shuffled)
        eighth = len(shuffled) // 8
        splits = {"dev": shuffled[:eighth], "test": shuffled[eighth : 2 * eighth], "train": shuffled[2 * eighth :]}
    return {split: [name for name in splits[split] if name in usable] for split in SPLIT_FILES if split in splits}


def _read_names(path: Path) -> list[str]:
    names = (line.strip() for line in _read_lines(path))
    return list(dict.fromkeys(name for name in names if name))


def captions_fingerprint(descriptions: Mapping[str, Iterable[str]]) -> str:
    """Twelve hexadecimal digits that tell one set of images and captions from another."""
    return digest(json.dumps({name: list(group) for name, group in descriptions.items()}))


def subset(descriptions: Mapping[str, list[str]], names: Iterable[str]) -> Descriptions:
    """The captions of `names` alone."""
    return {name: descriptions[name] for name in names}


@dataclass(frozen=True)
class Dataset:
    """What training and scoring need of the captions.

    Attributes:
        train: image name to clean captions.
        dev: likewise.
        references: image name to raw captions, of all images.
        name: of the dataset.
        test: likewise clean captions; nothing that is tuned may look at them.
    """

    train: Descriptions
    dev: Descriptions
    references: Descriptions
    name: str = ""
    test: Descriptions = field(default_factory=dict)

    @property
    def images(self) -> list[str]:
        """The names of the images of all three splits."""
        return [*self.train, *self.dev, *self.test]

    def first(self, train: int, dev: int) -> "Dataset":
        """A smaller dataset to try things on: the first training and dev images."""
        return replace(
            self, train=dict(list(self.train.items())[:train]), dev=dict(list(self.dev.items())[:dev]), test={}
        )


def load_dataset(workspace: Workspace) -> Dataset:
    """What step 1 left: `descriptions.txt`, in splits, and the raw captions.

    Raises:
        CaptionError: as `read_captions` and `load_splits`.
    """
    descriptions = load_descriptions(workspace.descriptions)
    return _divided(workspace, descriptions, read_captions(workspace.captions).captions)


def prepare(workspace: Workspace) -> Dataset:
    """All of step 1 at once, for commands: reads and cleans the captions, writes `descriptions.txt`, splits.

    Raises:
        CaptionError: as `read_captions` and `load_splits`.
    """
    references = read_captions(workspace.captions).captions
    descriptions = clean_captions(references)
    save_descriptions(descriptions, workspace.descriptions)
    return _divided(workspace, descriptions, references)


def _divided(workspace: Workspace, descriptions: Descriptions, references: Descriptions) -> Dataset:
    splits = load_splits(workspace, descriptions)
    train, dev, test = (subset(descriptions, splits.get(split, [])) for split in ("train", "dev", "test"))
    return Dataset(train, dev, references, workspace.dataset, test)
