"""Step 8: the reward of a sampled caption, from the measures by which captions are judged."""

from collections import Counter
from collections.abc import Sequence
from functools import reduce
from math import exp, log
from operator import or_

import numpy as np

from caption_generator.captions import Descriptions
from caption_generator.objects import hallucinated, named_objects
from caption_generator.tokenizer import END, SPECIAL_TOKENS

Ngram = tuple[str, ...]
LENGTHS = (1, 2, 3, 4)
SIGMA = 6.0  # how far CIDEr-D lets lengths differ
ALPHA = 0.85  # the share of recall in METEOR's F-score


class Reward:
    """CIDEr-D of a caption against its image's references (Vedantam et al. 2015), with shares of other measures.

    The words that tell images apart weigh most: document frequencies come from all references. The end of a caption
    counts as a word, or captions learn to stop in the middle of a phrase to save what comes after.
    """

    def __init__(self, references: Descriptions, bleu: float = 1.0, recall: float = 0.0, hallucination: float = 0.0):
        """
        Args:
            references: image name to clean captions.
            bleu: weight of BLEU-4, 0 to 1, beside CIDEr-D, 0 to 10.
            recall: weight of `f_score`, 0 to 1, which keeps captions from becoming brief.
            hallucination: what each object costs that the caption names and no reference does.
        """
        self.bleu, self.recall, self.hallucination = bleu, recall, hallucination
        end = SPECIAL_TOKENS[END]
        counts = [[ngrams([*caption.split(), end]) for caption in group] for group in references.values()]
        self.log_images = log(len(counts))
        self.document_frequency = Counter(ngram for group in counts for ngram in set().union(*group))
        self.vectors = [[self._vector(caption) for caption in group] for group in counts]
        self.most = [_most(group) for group in counts]
        self.unigrams = [[_unigrams(caption) for caption in group] for group in counts]
        self.lengths = [[caption.total() for caption in group] for group in self.unigrams]
        self.named = [named_objects(group) for group in references.values()] if hallucination else []

    def __call__(self, image: int, words: Sequence[str]) -> float:
        """The reward of `words`, with the end as the last of them if it was reached, for the image of that number."""
        candidate = ngrams(words)
        reward = self.cider_d(image, candidate)
        if self.bleu:
            reward += self.bleu * self.bleu_4(image, candidate)
        if self.recall:
            reward += self.recall * self.f_score(image, candidate)
        if self.hallucination:
            reward -= self.hallucination * len(hallucinated(words, self.named[image]))
        return reward

    def cider_d(self, image: int, candidate: Counter[Ngram]) -> float:
        """CIDEr-D, 0 to 10, as `pycocoevalcap` computes it."""
        weights, norms, length = self._vector(candidate)
        total = 0.0
        for other, other_norms, other_length in self.vectors[image]:
            products = [0.0] * len(LENGTHS)
            for ngram, weight in weights.items():
                if ngram in other:
                    products[len(ngram) - 1] += min(weight, other[ngram]) * other[ngram]
            cosines = sum(p / (a * b) for p, a, b in zip(products, norms, other_norms, strict=True) if a * b)
            total += cosines / len(LENGTHS) * exp(-((length - other_length) ** 2) / (2 * SIGMA**2))
        return 10 * total / len(self.vectors[image])

    def bleu_4(self, image: int, candidate: Counter[Ngram]) -> float:
        """BLEU-4 of one sentence, 0 to 1, with 1 added to the counts of runs of two words and more.

        Lin and Och 2004, "ORANGE": without it, a sentence without a matching run of four words has no BLEU-4 at all.
        """
        length, most = _unigrams(candidate).total(), self.most[image]
        hits, totals = [0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]
        for ngram, count in candidate.items():
            totals[len(ngram) - 1] += count
            hits[len(ngram) - 1] += min(count, most.get(ngram, 0))
        if not hits[0]:
            return 0.0
        nearest = min(self.lengths[image], key=lambda reference: (abs(reference - length), reference))
        brevity = min(0.0, 1 - nearest / length)
        return exp(brevity + sum(log(hit / total) for hit, total in zip(hits, totals, strict=True)) / len(LENGTHS))

    def f_score(self, image: int, candidate: Counter[Ngram]) -> float:
        """The F-score of single words against the reference that they match best, 0 to 1; recall counts most in it.

        METEOR (Denkowski and Lavie 2014, "Meteor Universal") is this, with synonyms, stems and the words' order. Its
        Java program would be too slow for every sample.
        """
        words, best = _unigrams(candidate), 0.0
        for reference in self.unigrams[image]:
            if matches := sum(min(count, reference[word]) for word, count in words.items() if word in reference):
                precision, recall = matches / words.total(), matches / reference.total()
                best = max(best, precision * recall / (ALPHA * precision + (1 - ALPHA) * recall))
        return best

    def _vector(self, counts: Counter[Ngram]) -> tuple[dict[Ngram, float], list[float], int]:
        """The weight of each run of words, the norm for each length of run, and how many runs of two there are."""
        weights = {
            ngram: n * (self.log_images - log(max(1, self.document_frequency[ngram]))) for ngram, n in counts.items()
        }
        squares, pairs = [0.0] * len(LENGTHS), 0
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
            pairs += counts[ngram] * (len(ngram) == 2)
        return weights, np.sqrt(squares).tolist(), pairs


def ngrams(words: Sequence[str]) -> Counter[Ngram]:
    """How often each run of one to four words occurs."""
    return Counter(tuple(words[i : i + n]) for n in LENGTHS for i in range(len(words) - n + 1))


def _unigrams(counts: Counter[Ngram]) -> Counter[Ngram]:
    return Counter({ngram: count for ngram, count in counts.items() if len(ngram) == 1})


def _most(group: Sequence[Counter[Ngram]]) -> Counter[Ngram]:
    """How often each run occurs in that reference which has it most often."""
    return reduce(or_, group, Counter())
