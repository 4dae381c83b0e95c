"""ROUGE: how much of a reference a text covers, by n-grams or by the longest common subsequence."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from dlfx.metrics.ngrams import Tokens, check_corpus, count_ngrams
from dlfx.types import UserError


class Rouge(NamedTuple):
    """`f = (1 + beta^2) P R / (R + beta^2 P)`, and 0 where P and R are."""

    precision: float
    recall: float
    f: float


def _rouge(precision: float, recall: float, beta: float) -> Rouge:
    weighted = recall + beta**2 * precision
    return Rouge(precision, recall, (1 + beta**2) * precision * recall / weighted if weighted else 0.0)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def rouge_n(hypothesis: Tokens, references: Sequence[Tokens], n: int, beta: float = 1.0) -> Rouge:
    """ROUGE-N of one text: matching n-grams over those of the hypothesis (precision) and of the reference (recall).

    Args:
      hypothesis: tokens.
      references: one or more references; the one of the highest F counts.
      n: 1 for ROUGE-1, 2 for ROUGE-2.
      beta: how many times more recall matters than precision.

    Source: Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 2. Equal to the package
      rouge-score on the same tokens, not stemmed.
    """
    if n < 1:
        raise UserError(f"n of ROUGE-N is {n}: it must be at least 1")
    own = count_ngrams(hypothesis, n)

    def score(reference: Tokens) -> tuple[float, float]:
        theirs = count_ngrams(reference, n)
        matches = (own & theirs).total()
        return _ratio(matches, own.total()), _ratio(matches, theirs.total())

    return _best(score, hypothesis, references, beta)


def rouge_l(hypothesis: Tokens, references: Sequence[Tokens], beta: float = 1.0, best_of_each: bool = False) -> Rouge:
    """ROUGE-L of one text: the length of the longest common subsequence over both lengths.

    Args:
      hypothesis: tokens.
      references: one or more references; the one of the highest F counts.
      beta: how many times more recall matters than precision.
      best_of_each: take the highest precision and the highest recall, be they of different references. With
        `beta=1.2` and the mean over sentences this is the ROUGE-L of captioning (coco-caption, nlg-eval).

    Source: Lin 2004, section 3.1, equations 2 to 4.
    """

    def score(reference: Tokens) -> tuple[float, float]:
        common = longest_common_subsequence(hypothesis, reference)
        return _ratio(common, len(hypothesis)), _ratio(common, len(reference))

    return _best(score, hypothesis, references, beta, best_of_each)


def _best(
    score: Callable[[Tokens], tuple[float, float]],
    hypothesis: Tokens,
    references: Sequence[Tokens],
    beta: float,
    best_of_each: bool = False,
) -> Rouge:
    check_corpus([hypothesis], [references])
    scores = [score(reference) for reference in references]
    if best_of_each:
        return _rouge(max(p for p, _ in scores), max(r for _, r in scores), beta)
    return max((_rouge(p, r, beta) for p, r in scores), key=lambda rouge: rouge.f)


def mean_rouge(scores: Iterable[Rouge]) -> Rouge:
    """ROUGE of a corpus: the mean of each number over its texts."""
    rows = list(scores)
    if not rows:
        raise UserError("the corpus is empty: give the ROUGE of at least one text")
    return Rouge(*np.mean(rows, axis=0).tolist())


def longest_common_subsequence(a: Tokens, b: Tokens) -> int:
    """The length of the longest sequence that a and b both contain in order, with gaps."""
    numbers: dict[Hashable, int] = {}
    first = np.array([numbers.setdefault(token, len(numbers)) for token in a], np.int64)
    second = np.array([numbers.setdefault(token, len(numbers)) for token in b], np.int64)
    row = np.zeros(len(second) + 1, np.int64)
    for token in first:
        # l[i, j] = max(l[i-1, j], l[i-1, j-1] + [a_i = b_j], l[i, j-1]), and the last is a running maximum
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], row[:-1] + (second == token)))
    return int(row[-1])
