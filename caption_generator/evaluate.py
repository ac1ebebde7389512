"""Step 5b: how good the captions are, by the measures that the field reports.

Candidates and raw references are tokenized as by the Penn Treebank and scored by `pycocoevalcap`, the code of the COCO
caption challenge. Its tokenizer and METEOR are Java programs; without Java the tokens come from a regular expression
here, METEOR is left out, and the result says so.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, PTBTokenizer

from caption_generator.captions import Descriptions
from caption_generator.common.console import native_stderr_silenced
from caption_generator.common.errors import CaptionError

Tokenized = dict[str, list[str]]
# Words that tell nothing of the photo: neither naming one nor leaving it out is a mistake.
_FUNCTION = (
    "a an the in on of at and with to is are by from for as into onto while through over near up down out his her "
    "its their that this there it he she they who which be being has have some other another"
)
FUNCTION_WORDS = frozenset(_FUNCTION.split())


@dataclass(frozen=True)
class Scores:
    """The scores of a set of captions, in per cent, higher is better.

    Attributes:
        corpus: measure to score: BLEU-1 to BLEU-4 (Papineni et al. 2002), METEOR (Denkowski and Lavie 2014), ROUGE-L
            (Lin 2004) and CIDEr (Vedantam et al. 2015).
        by_image: measure to the score of each image, in the order of `images`. Corpus BLEU and CIDEr compare with the
            whole set, so the mean of these is not the corpus score of BLEU.
        images: the images' names.
        tokenizer: "PTB", or "regular expression (no Java)".
    """

    corpus: dict[str, float]
    by_image: dict[str, np.ndarray]
    images: list[str]
    tokenizer: str


@lru_cache(maxsize=1)
def has_java() -> bool:
    """Whether METEOR and the Penn Treebank tokenizer can run."""
    if shutil.which("java") is None:
        return False
    # Where Java is not installed, macOS has a `java` that only says so.
    return subprocess.run(["java", "-version"], capture_output=True, check=False).returncode == 0


def score(candidates: Mapping[str, str], references: Descriptions) -> Scores:
    """Score one caption an image against its human captions.

    Args:
        candidates: image name to generated caption.
        references: image name to raw captions, as their authors wrote them.

    Raises:
        CaptionError: an image has no references, or there is no image.
    """
    images = list(candidates)
    missing = [name for name in images if not references.get(name)]
    if missing or not images:
        raise CaptionError(
            f"{len(missing)} of {len(images)} captions have no references, {(missing or ['none'])[0]} first: "
            "score only images that have human captions."
        )
    tokenize, label = (_ptb, "PTB") if has_java() else (_plain, "regular expression (no Java)")
    truth = tokenize({name: list(references[name]) for name in images})
    found = tokenize({name: [candidates[name]] for name in images})

    corpus: dict[str, float] = {}
    by_image: dict[str, np.ndarray] = {}
    for names, scorer, options in _scorers():
        total, each = scorer.compute_score(truth, found, **options)
        if len(names) == 1:
            total, each = [total], [each]
        for name, value, values in zip(names, total, each, strict=True):
            corpus[name] = 100 * float(value)
            by_image[name] = 100 * np.asarray(values, dtype=float)
    return Scores(corpus, by_image, images, label)


@dataclass(frozen=True)
class Diversity:
    """How much a set of captions repeats itself.

    Attributes:
        captions: how many there are.
        distinct: how many different ones.
        vocabulary: how many different words they use.
        words: mean length.
    """

    captions: int
    distinct: int
    vocabulary: int
    words: float


def diversity(captions: Sequence[str]) -> Diversity:
    """Measure how much clean captions repeat themselves."""
    split = [caption.split() for caption in captions]
    words = [word for caption in split for word in caption]
    return Diversity(len(captions), len(set(captions)), len(set(words)), len(words) / max(1, len(captions)))


def word_rates(captions: Iterable[str]) -> dict[str, float]:
    """How many of a hundred clean captions say each word, the most frequent first."""
    said = [set(caption.split()) for caption in captions]
    return {word: 100 * count / len(said) for word, count in Counter(w for s in said for w in s).most_common()}


def scores_by_length(candidates: Mapping[str, str], scores: Scores, measure: str = "CIDEr") -> dict[int, np.ndarray]:
    """The scores of the images whose captions have a certain number of words, by that number."""
    lengths = np.array([len(candidates[name].split()) for name in scores.images])
    return {int(length): scores.by_image[measure][lengths == length] for length in np.unique(lengths)}


@dataclass(frozen=True)
class Mistakes:
    """What is wrong with a caption, as far as its references tell.

    Attributes:
        invented: words that no reference has.
        missed: words of most references that it lacks.
        repeated: words that it says more often than any reference.
    """

    invented: list[str]
    missed: list[str]
    repeated: list[str]

    def __str__(self) -> str:
        parts = [f"{name}: {', '.join(words)}" for name, words in vars(self).items() if words]
        return "; ".join(parts) or "only in how it is said"


def find_mistakes(candidate: str, references: Sequence[str]) -> Mistakes:
    """Compare the telling words of a caption with those of its references; all of them clean."""
    said = Counter(word for word in candidate.split() if word not in FUNCTION_WORDS)
    wanted = [Counter(word for word in text.split() if word not in FUNCTION_WORDS) for text in references]
    by_how_many = Counter(word for counts in wanted for word in counts)
    most = Counter()
    for counts in wanted:
        most |= counts
    return Mistakes(
        [word for word in said if word not in most],
        [word for word, count in by_how_many.most_common() if 2 * count > len(wanted) and word not in said],
        [word for word, count in said.items() if count > max(1, most[word])],
    )


def _scorers() -> list[tuple[list[str], object, dict]]:
    scorers = [
        ([f"BLEU-{n}" for n in (1, 2, 3, 4)], Bleu(4), {"verbose": 0}),
        (["ROUGE-L"], Rouge(), {}),
        (["CIDEr"], Cider(), {}),
    ]
    if has_java():
        scorers.insert(1, (["METEOR"], Meteor(), {}))
    return scorers


def _ptb(captions: Tokenized) -> Tokenized:
    with native_stderr_silenced():  # it reports its speed
        return PTBTokenizer().tokenize(
            {name: [{"caption": text} for text in group] for name, group in captions.items()}
        )


def _plain(captions: Tokenized) -> Tokenized:
    """As near to the Penn Treebank's tokens as one line gets: clitics apart, its punctuation gone."""

    def tokens(text: str) -> str:
        found = re.findall(r"n't|'\w+|\w+(?:-\w+)*?(?=n't)|\w+(?:-\w+)*|[^\w\s\"]", text.lower())
        return " ".join(token for token in found if token not in PUNCTUATIONS)

    return {name: [tokens(text) for text in group] for name, group in captions.items()}
