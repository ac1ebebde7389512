"""Step 1: raw captions in, clean `descriptions.txt` and the train, dev and test splits out."""

import json
import random
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path

from caption_generator.caption_files import (
    Descriptions,
    RawCaptions,
    check_match,
    match_names,
    read_captions,
    read_lines,
    tidy,
)
from caption_generator.common.errors import CaptionError
from caption_generator.common.files import digest, replacing
from caption_generator.workspace import Workspace, or_fetch

__all__ = [
    "SPLIT_FILES",
    "Dataset",
    "Descriptions",
    "DiskCheck",
    "RawCaptions",
    "captions_fingerprint",
    "clean_caption",
    "clean_captions",
    "combine",
    "compare_with_disk",
    "load_dataset",
    "load_descriptions",
    "load_splits",
    "prepare",
    "read_captions",
    "read_workspace",
    "save_descriptions",
    "spell_out",
    "subset",
]

SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}


def _marks() -> str:
    """The signs that many scripts put on or around a letter, and `\\w` lacks; not those that only colour an emoji."""
    found = (chr(code) for code in range(0x20000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    return "".join(mark for mark in found if not 0xFE00 <= ord(mark) <= 0xFE0F)


MARKS = _marks()
JOINERS = "\u200c\u200d"  # inside words of Persian and of Indian languages
HYPHENS = re.compile(r"[-/\u2010-\u2015\u058a\u05be]")
PUNCTUATION = re.compile(rf"[^\w\s{MARKS}{JOINERS}]|_")
NO_LETTERS = re.compile(f"[{MARKS}{JOINERS}]")

# French and Italian put two words together with an apostrophe where the second one starts with a vowel.
_ELIDED = (
    "l d j m t s n c qu jusqu lorsqu puisqu quoiqu quelqu presqu aujourd un dell all dall nell sull quell bell gl sant"
)
ELISION = re.compile(
    rf"(?<![\w'\u2019])({_ELIDED.replace(' ', '|')})['\u2019](?=[aeiouhàâáäæéèêëîïìíôöòóœùûüú]|y(?!ou))", re.IGNORECASE
)
# An apostrophe inside a word that no English word has, as in Ukrainian; English has 's and its like after any word.
INNER = re.compile(r"(?<=\w)['\u2019\u05f3\u05f4](?!(?:s|m|d|t|re|ve|ll)\b)(?=\w)", re.IGNORECASE)
WORD_WITH_INNER = re.compile(rf"[\w{MARKS}]+(?:['\u2019\u05f3\u05f4][\w{MARKS}]+)+")

# Scripts that are written without spaces between words, and from how many letters "a word" on it is a sentence.
_UNSPACED = (
    (re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"), 4),  # Chinese, Japanese
    (re.compile("[\u0e01-\u0e2e\u0e81-\u0eae\u0f40-\u0f6c\u1000-\u102a\u1780-\u17b3]"), 9),  # Thai to Khmer
)


def read_workspace(workspace: Workspace) -> RawCaptions:
    """The raw captions of a workspace, under the names of its image files where these are there.

    Raises:
        CaptionError: as `read_captions`, and where text and images do not match.
    """
    return read_captions(workspace.captions, workspace.image_names())


def spell_out(text: str) -> str:
    """Separate the words of a caption that are written together, so that cleaning and scoring find the same words.

    As `tidy`, with French and Italian elisions written as two words (`l'herbe`, `l herbe`), and without the apostrophe
    in a word of another language that has one inside. English stays as it is.
    """
    text = ELISION.sub(r"\1 ", tidy(text))
    if text.isascii():
        return text
    return WORD_WITH_INNER.sub(lambda word: word[0] if _is_ascii(word[0]) else INNER.sub("", word[0]), text)


def _is_ascii(word: str) -> bool:
    return all(char.isascii() for char in word if char.isalpha())


def clean_caption(caption: str, min_letters: int = 1) -> str:
    """Lower-case words only: hyphens split, punctuation goes, words with digits go.

    The signs that scripts put on letters are part of the word, in Unicode's composed form (NFC).

    Args:
        caption: as its author wrote it.
        min_letters: drop shorter words. The usual recipe is 2, which loses "a"; references have it, so a
            model that was never taught "a" loses BLEU.
    """
    text = PUNCTUATION.sub("", HYPHENS.sub(" ", spell_out(caption).lower()))
    words = (word.strip(JOINERS) for word in unicodedata.normalize("NFC", text).split())
    return " ".join(word for word in words if NO_LETTERS.sub("", word).isalpha() and len(word) >= min_letters)


def clean_captions(captions: Mapping[str, Iterable[str]], min_letters: int = 1) -> Descriptions:
    """Clean every caption; those of which nothing remains, and images left without any, are dropped.

    Raises:
        CaptionError: most captions are in a language that is written without spaces.
    """
    captions = {name: list(group) for name, group in captions.items()}
    _check_spaces([caption for group in captions.values() for caption in group])
    cleaned = {name: [clean_caption(caption, min_letters) for caption in group] for name, group in captions.items()}
    cleaned = {name: [caption for caption in group if caption] for name, group in cleaned.items()}
    return {name: group for name, group in cleaned.items() if group}


def _check_spaces(captions: list[str]) -> None:
    """Refuse sentences of Chinese, Thai and the like that are not divided into words."""
    for script, longest in _UNSPACED:
        words = [found for caption in captions for word in caption.split() if (found := len(script.findall(word)))]
        letters = sum(char.isalpha() for caption in captions for char in caption) if words else 0
        if 2 * sum(words) > letters and sum(words) > longest * len(words):
            example = next(caption for caption in captions if script.search(caption))
            raise CaptionError(
                f"the captions, such as {example[:60]!r}, have no spaces between their words, which captions are "
                "learned by: separate the words by spaces, as a word segmenter for the language does."
            )


def save_descriptions(descriptions: Mapping[str, Iterable[str]], path: str | Path) -> None:
    """Write one `image<TAB>caption` line for every caption."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for name, group in descriptions.items():
            file.writelines(f"{name}\t{caption}\n" for caption in group)


def load_descriptions(path: str | Path) -> Descriptions:
    """Read what `save_descriptions` wrote.

    Raises:
        CaptionError: the file is missing, is not UTF-8 text, or holds not one caption.
    """
    descriptions: Descriptions = {}
    for line in read_lines(path, "run notebook 1, which writes it"):
        name, _, caption = line.partition("\t")
        if name and caption:
            descriptions.setdefault(name, []).append(caption)
    if not descriptions:
        raise CaptionError(f"{path} holds no captions: make it again with notebook 1.")
    return descriptions


@dataclass(frozen=True)
class DiskCheck:
    """How the captions and the image folder differ.

    Attributes:
        without_image: names that have captions and no file.
        without_caption: files that have no caption.
        in_no_split: names that have captions and a file, and that no split file names: they go unused.
    """

    without_image: list[str]
    without_caption: list[str]
    in_no_split: list[str] = field(default_factory=list)


def compare_with_disk(names: Iterable[str], workspace: Workspace) -> DiskCheck:
    """List the names in the text that are not on disk, the reverse, and what no split file names.

    Raises:
        CaptionError: there are no images, or text and images do not match.
    """
    names, on_disk = list(dict.fromkeys(names)), workspace.image_names()
    matched = _on_disk(names, workspace)
    used = {name for split in load_splits(workspace, names).values() for name in split}
    return DiskCheck(
        sorted(set(names) - set(matched)),
        sorted(set(on_disk) - set(matched.values())),
        sorted(set(matched) - used),
    )


def _on_disk(names: list[str], workspace: Workspace) -> dict[str, str]:
    on_disk = workspace.image_names()
    if not on_disk:
        images = workspace.images
        raise CaptionError(f"{images} holds no pictures: put the photos there{or_fetch(images)}.")
    matched = match_names(names, on_disk)
    check_match(matched, names, on_disk, str(workspace.captions))
    return matched


def load_splits(workspace: Workspace, names: Iterable[str], seed: int = 0) -> dict[str, list[str]]:
    """Divide the images that have captions and a file into train, dev and test.

    The official split files decide. Where some are missing, so are their splits; where all are, a seeded shuffle
    gives three quarters to train and an eighth each to dev and test, which is Flickr8k's own proportion.

    Args:
        workspace: where the split files and the images are.
        names: the images that have captions.

    Returns:
        Split name to image names, in the order of the file. `DiskCheck.in_no_split` has those that are in none.

    Raises:
        CaptionError: there are no images, they match neither the text nor the split files, these are empty, or an
            image is in two splits.
    """
    usable = _on_disk(list(dict.fromkeys(names)), workspace)
    files = {split: workspace.texts / file for split, file in SPLIT_FILES.items()}
    splits = {split: _read_names(path) for split, path in files.items() if path.is_file()}
    if not splits:
        shuffled = sorted(usable)
        random.Random(seed).shuffle(shuffled)
        eighth = len(shuffled) // 8
        splits = {"dev": shuffled[:eighth], "test": shuffled[eighth : 2 * eighth], "train": shuffled[2 * eighth :]}
    listed = [name for split in splits.values() for name in split]
    matched = match_names(listed, usable)
    if listed and usable and not matched:
        raise CaptionError(
            f"the split files in {workspace.texts} name none of the {len(usable):,} images with captions: they say "
            f"{listed[0]}, an image is {next(iter(usable))}; correct {SPLIT_FILES['train']} and its like, or remove "
            "them, and the images are divided at random."
        )
    divided = {
        split: list(dict.fromkeys(matched[name] for name in splits[split] if name in matched))
        for split in SPLIT_FILES
        if split in splits
    }
    if usable and not any(divided.values()):
        raise CaptionError(
            f"the split files in {workspace.texts} are empty: correct them, or remove them, and the {len(usable):,} "
            "images with captions are divided at random."
        )
    for one, other in combinations(divided, 2):
        if both := set(divided[one]).intersection(divided[other]):
            raise CaptionError(
                f"{len(both):,} images are in {SPLIT_FILES[one]} and in {SPLIT_FILES[other]}, such as {min(both)}: "
                "remove them from one of the two, or scores tell nothing."
            )
    return divided


def _read_names(path: Path) -> list[str]:
    names = (line.strip() for line in read_lines(path))
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
        CaptionError: as `read_workspace` and `load_splits`.
    """
    descriptions = load_descriptions(workspace.descriptions)
    return _divided(workspace, descriptions, read_workspace(workspace).captions)


def prepare(workspace: Workspace) -> Dataset:
    """All of step 1 at once, for commands: reads and cleans the captions, writes `descriptions.txt`, splits.

    Raises:
        CaptionError: as `read_workspace` and `load_splits`.
    """
    references = read_workspace(workspace).captions
    descriptions = clean_captions(references)
    save_descriptions(descriptions, workspace.descriptions)
    return _divided(workspace, descriptions, references)


def combine(datasets: Sequence[Dataset]) -> Dataset:
    """Several datasets as one.

    Raises:
        CaptionError: two of them have an image of the same name.
    """
    together = Dataset({}, {}, {}, " and ".join(data.name for data in datasets))
    for data in datasets:
        if both := together.references.keys() & data.references.keys():
            raise CaptionError(f"two datasets have an image called {min(both)}: rename it in one of them.")
        for part in ("train", "dev", "references", "test"):
            getattr(together, part).update(getattr(data, part))
    return together


def _divided(workspace: Workspace, descriptions: Descriptions, references: Descriptions) -> Dataset:
    splits = load_splits(workspace, descriptions)
    train, dev, test = (subset(descriptions, splits.get(split, [])) for split in ("train", "dev", "test"))
    return Dataset(train, dev, references, workspace.dataset, test)
