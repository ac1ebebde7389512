"""Step 5b: how good the captions are, by the measures that the field reports.

Candidates and raw references are tokenized as by the Penn Treebank and scored by `pycocoevalcap`, the code of the COCO
caption challenge. Its tokenizer and METEOR are Java programs; where Java is missing or fails, the tokens come from a
regular expression here, METEOR is left out, and the result says so.
"""

import contextlib
import re
import shutil
import subprocess
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from operator import or_

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS, PTBTokenizer

from caption_generator.captions import JOINERS, MARKS, Descriptions, spell_out
from caption_generator.common.console import native_stderr_silenced
from caption_generator.common.errors import CaptionError
from caption_generator.objects import hallucinated, named_objects, nouns, synonyms

Tokenized = dict[str, list[str]]
# Words that tell nothing of the photo: neither naming one nor leaving it out is a mistake.
_FUNCTION = (
    "a an the in on of at and with to is are by from for as into onto while through over near up down out his her "
    "its their that this there it he she they who which be being has have some other another"
)
FUNCTION_WORDS = frozenset(_FUNCTION.split())
LETTER = rf"[\w{MARKS}{JOINERS}]"
# At the end of each image's captions, with its number: what comes back there tells whether a line was lost or added,
# and the umlaut whether Java took the text for another encoding.
LAST_LINE = "letztezeilefürbild"
METEOR_SECONDS = (120, 0.5)  # that METEOR may take: to start, and for an image


@dataclass(frozen=True)
class Scores:
    """The scores of a set of captions, in per cent, higher is better.

    Attributes:
        corpus: measure to score: BLEU-1 to BLEU-4 (Papineni et al. 2002), METEOR (Denkowski and Lavie 2014), ROUGE-L
            (Lin 2004) and CIDEr (Vedantam et al. 2015).
        by_image: measure to the score of each image, in the order of `images`. Corpus BLEU adds up the counts of
            all images, so it is not the mean of these. The CIDEr of one image depends on all, through the document
            frequencies.
        images: the images' names.
        tokenizer: "PTB", or "regular expression (no Java)", or the like.
        left_out: the measures that could not be computed, each with why.
    """

    corpus: dict[str, float]
    by_image: dict[str, np.ndarray]
    images: list[str]
    tokenizer: str
    left_out: dict[str, str] = field(default_factory=dict)


@cache
def has_java() -> bool:
    """Whether METEOR and the Penn Treebank tokenizer can run."""
    if shutil.which("java") is None:
        return False
    # Where Java is not installed, macOS has a `java` that only says so.
    try:
        return subprocess.run(["java", "-version"], capture_output=True, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def score(candidates: Mapping[str, str], references: Descriptions) -> Scores:
    """Score one caption an image against its human captions.

    Args:
        candidates: image name to generated caption.
        references: image name to raw captions, as their authors wrote them.

    Raises:
        CaptionError: an image has no references, there is no image, or the tokenizer lost count of the lines.
    """
    images = list(candidates)
    missing = [name for name in images if not references.get(name)]
    if missing or not images:
        raise CaptionError(
            f"{len(missing)} of {len(images)} captions have no references, {(missing or ['none'])[0]} first: "
            "score only images that have human captions."
        )
    truth, found, label = _tokenize(
        {name: list(references[name]) for name in images}, {name: [candidates[name]] for name in images}
    )
    corpus: dict[str, float] = {}
    by_image: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    for names, scorer, options in _scorers():
        try:
            total, each = scorer(truth, found, **options)
        except _JavaFailed as error:
            left_out |= dict.fromkeys(names, str(error))
            continue
        if len(names) == 1:
            total, each = [total], [each]
        for name, value, values in zip(names, total, each, strict=True):
            corpus[name] = 100 * float(value)
            by_image[name] = 100 * np.asarray(values, dtype=float)
    return Scores(corpus, by_image, images, label, left_out)


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


def scores_by_length(candidates: Mapping[str, str], scores: Scores) -> dict[int, np.ndarray]:
    """CIDEr by caption length: the number of words to the scores of the images whose captions have that many."""
    lengths = np.array([len(candidates[name].split()) for name in scores.images])
    return {int(length): scores.by_image["CIDEr"][lengths == length] for length in np.unique(lengths)}


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
    most: Counter[str] = reduce(or_, wanted, Counter())
    return Mistakes(
        [word for word in said if word not in most],
        [word for word, count in by_how_many.most_common() if 2 * count > len(wanted) and word not in said],
        [word for word, count in said.items() if count > max(1, most[word])],
    )


def names_a_thing(candidate: str, references: Sequence[str]) -> bool:
    """Whether a clean caption names a person, an animal or a thing that two of its clean references name too.

    Where there is one reference, it must name it.
    """
    counts = Counter(word for reference in references for word in nouns().intersection(reference.split()))
    return any(counts[word] >= min(2, len(references)) for word in nouns().intersection(candidate.split()))


def chair(candidates: Mapping[str, str], references: Descriptions) -> dict[str, float]:
    """How often captions name what is not there, in per cent; lower is better.

    This is CHAIR (Rohrbach et al. 2018, "Object Hallucination in Image Captioning"), with people's captions alone to
    tell what is there, and with the words of `objects`.

    Args:
        candidates: image name to clean caption.
        references: image name to clean captions.

    Returns:
        CHAIRi, the share of hallucinated objects among all that are mentioned, and CHAIRs, the share of captions with
        at least one.
    """
    mentioned = wrong = captions = 0
    for name, caption in candidates.items():
        words = set(caption.split())
        found = hallucinated(words, named_objects(references[name]))
        mentioned += len(words & synonyms().keys())
        wrong += len(found)
        captions += bool(found)
    return {"CHAIRi": 100 * wrong / max(1, mentioned), "CHAIRs": 100 * captions / max(1, len(candidates))}


def area_under_curve(scores: Sequence[float], right: Sequence[bool]) -> float:
    """The probability that a right caption has a higher score than a wrong one; 0.5 says that the score tells nothing.

    It is the area under the receiver operating characteristic curve.

    Raises:
        CaptionError: all captions are right, or all are wrong.
    """
    values, is_right = np.asarray(scores), np.asarray(right, bool)
    high, low = values[is_right][:, None], values[~is_right]
    if not high.size or not low.size:
        raise CaptionError("right and wrong captions are needed: score more of them.")
    return float(np.mean((high > low) + 0.5 * (high == low)))


class _JavaFailed(Exception):
    """Why a Java program gave no result, in words."""


def _scorers() -> list[tuple[list[str], Callable, dict]]:
    return [
        ([f"BLEU-{n}" for n in (1, 2, 3, 4)], Bleu(4).compute_score, {"verbose": 0}),
        (["METEOR"], _meteor, {}),
        (["ROUGE-L"], Rouge().compute_score, {}),
        (["CIDEr"], Cider().compute_score, {}),
    ]


def _meteor(truth: Tokenized, found: Tokenized) -> tuple[float, list[float]]:
    """METEOR of the set and of each image.

    Raises:
        _JavaFailed: there is no Java, it cannot have the 2 GB that METEOR asks for, or it does not answer.
    """
    if not has_java():
        raise _JavaFailed("there is no Java")
    try:
        meteor = Meteor()
    except OSError as error:
        raise _JavaFailed(f"Java does not start ({error.strerror})") from error
    process = meteor.meteor_p
    watch = threading.Timer(METEOR_SECONDS[0] + METEOR_SECONDS[1] * len(found), process.kill)
    watch.start()
    try:
        return meteor.compute_score(truth, found)
    except (OSError, ValueError) as error:  # it is gone, or what it says is no number
        process.kill()
        said = " ".join(process.stderr.read().decode(errors="replace").split())
        raise _JavaFailed(f"Java ran it without a result ({said[:200] or 'it said nothing'})") from error
    finally:
        watch.cancel()
        process.kill()
        # What it has not read yet cannot be written any more. Its destructor waits for the lock, which an error left.
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()
        if meteor.lock.locked():
            meteor.lock.release()


def _tokenize(truth: Tokenized, found: Tokenized) -> tuple[Tokenized, Tokenized, str]:
    """Both in tokens, by the same tokenizer, and its name.

    Raises:
        CaptionError: as many lines as went in did not come back.
    """
    truth, found = (
        {name: [spell_out(text) for text in group] for name, group in captions.items()} for captions in (truth, found)
    )
    label = "PTB"
    try:
        if not has_java():
            raise _JavaFailed("no Java")
        tokenized = [_ptb(captions) for captions in (truth, found)]
    except _JavaFailed as error:
        label = f"regular expression ({error})"
        tokenized = [_plain(captions) for captions in (truth, found)]
    truth, found = (
        {name: [_without_signs(text) for text in group] for name, group in captions.items()} for captions in tokenized
    )
    return truth, found, label


def _without_signs(tokens: str) -> str:
    """Tokens without the punctuation of other scripts, which the list of the Penn Treebank lacks."""
    if tokens.isascii():
        return tokens
    return " ".join(token for token in tokens.split() if not all(map(_is_foreign_sign, token)))


def _is_foreign_sign(char: str) -> bool:
    return not char.isascii() and unicodedata.category(char).startswith("P")


def _ptb(captions: Tokenized) -> Tokenized:
    """Tokens as by the Penn Treebank.

    Raises:
        _JavaFailed: nothing came back.
        CaptionError: as many lines as went in did not come back, so that captions would belong to other images.
    """
    lines = {
        name: [*({"caption": text} for text in group), {"caption": f"{LAST_LINE}{number}"}]
        for number, (name, group) in enumerate(captions.items())
    }
    try:
        with native_stderr_silenced():  # it reports its speed
            tokenized = PTBTokenizer().tokenize(lines)
    except OSError as error:  # its folder may be one that cannot be written to
        raise _JavaFailed(f"the Penn Treebank's does not run, {error.strerror}") from error
    if lines and not any(text for group in tokenized.values() for text in group):
        raise _JavaFailed("Java does not run the Penn Treebank's")
    for number, (name, group) in enumerate(captions.items()):
        *texts, last = tokenized.get(name, [""])
        if last != f"{LAST_LINE}{number}" or len(texts) != len(group):
            raise CaptionError(
                f"the tokenizer returned other lines than it got, from {name} on: look for unusual characters in the "
                "captions of that image and of the one before, for scores would compare the wrong ones."
            )
        tokenized[name] = texts
    return tokenized


def _plain(captions: Tokenized) -> Tokenized:
    """As near to the Penn Treebank's tokens as one line gets: clitics apart, its punctuation gone."""
    word = rf"{LETTER}+(?:-{LETTER}+)"
    pattern = re.compile(rf"n't|'{LETTER}+|{word}*?(?=n't)|{word}*|[^\w\s\"]")

    def tokens(text: str) -> str:
        return " ".join(token for token in pattern.findall(text.lower()) if token not in PUNCTUATIONS)

    return {name: [tokens(text) for text in group] for name, group in captions.items()}
