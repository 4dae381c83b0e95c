"""BLEU: clipped n-gram precisions, their geometric mean, and a penalty for being short."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dlfx.metrics.ngrams import Tokens, check_corpus, count_ngrams
from dlfx.types import UserError, unknown

SMOOTHINGS = ("none", "floor", "add-k", "exp")


class Bleu(NamedTuple):
    """BLEU and what it is made of.

    Attributes:
      score: BLEU, from 0 to 1.
      precisions: p_1 ... p_order, after smoothing.
      brevity_penalty: 1, or less where the hypotheses are shorter than the references.
      hypothesis_length: tokens of all hypotheses.
      reference_length: tokens of the reference nearest in length to each hypothesis (the shorter of two), summed.
    """

    score: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    hypothesis_length: int
    reference_length: int


def bleu_counts(hypothesis: Tokens, references: Sequence[Tokens], order: int = 4) -> np.ndarray:
    """What one sentence adds to the BLEU of its corpus; sums over sentences, batches and hosts are exact.

    Returns:
      `[2 * order + 2]` int64: the matches and the totals of n-grams of each order, the length of the hypothesis, and
      that of the nearest reference. An n-gram matches at most as often as it occurs in one reference: seven times
      "the" matches "the cat is on the mat" twice.
    """
    if order < 1:
        raise UserError(f"the order of BLEU is {order}: it must be at least 1")
    check_corpus([hypothesis], [references])
    counts = np.zeros(2 * order + 2, np.int64)
    for n in range(1, order + 1):
        own = count_ngrams(hypothesis, n)
        allowed = count_ngrams(references[0], n)
        for reference in references[1:]:
            allowed |= count_ngrams(reference, n)  # the larger count of each
        counts[n - 1] = (own & allowed).total()
        counts[order + n - 1] = own.total()
    length = len(hypothesis)
    counts[-2:] = length, min((abs(len(ref) - length), len(ref)) for ref in references)[1]
    return counts


def bleu_of_counts(
    counts: np.ndarray, smoothing: str = "none", value: float | None = None, effective_order: bool = False
) -> Bleu:
    """BLEU from summed `bleu_counts`.

    `BLEU = exp(min(0, 1 - r / h) + (1 / N) sum_n log p_n)`, h and r the lengths of hypotheses and references

    Args:
      counts: `[2 * order + 2]`.
      smoothing: what stands for a precision without matches. `none`: 0, and so is BLEU. `floor`: `value` matches
        (0.1 if None). `exp`: 1/2 a match at the first such order, 1/4 at the second ... `add-k`: `value` (1 if None)
        added to the matches and the totals of every order above 1. A text without a single match stays at 0.
      value: see smoothing.
      effective_order: leave out orders of which the hypotheses are too short to have any n-gram.

    Source: Papineni et al. 2002, BLEU, section 2; Chen and Cherry 2014, A Systematic Comparison of Smoothing
      Techniques for Sentence-Level BLEU, methods 1 to 3. Equal to sacrebleu's (Post 2018) up to its factor of 100.
    """
    if smoothing not in SMOOTHINGS:
        raise unknown("smoothing", smoothing, SMOOTHINGS)
    order = (len(counts) - 2) // 2
    hypothesis_length, reference_length = (int(x) for x in counts[-2:])
    matches, totals = counts[:order].astype(float), counts[order : 2 * order].astype(float)
    any_match = bool(matches.any())
    if smoothing == "add-k":
        added = 1.0 if value is None else value
        matches[1:] += added
        totals[1:] += added
    elif smoothing == "floor":
        matches[matches == 0] = 0.1 if value is None else value
    elif smoothing == "exp":
        missing = (matches == 0) & (totals > 0)
        matches[missing] = 0.5 ** np.arange(1, missing.sum() + 1)
    possible = totals > 0
    precisions = np.divide(matches, totals, out=np.zeros(order), where=possible)
    penalty = math.exp(min(0.0, 1 - reference_length / hypothesis_length)) if hypothesis_length else 0.0
    used = precisions[possible] if effective_order else precisions
    score = penalty * math.exp(np.log(used).mean()) if any_match and used.all() else 0.0
    return Bleu(score, tuple(precisions.tolist()), penalty, hypothesis_length, reference_length)


def corpus_bleu(
    hypotheses: Sequence[Tokens],
    references: Sequence[Sequence[Tokens]],
    order: int = 4,
    smoothing: str = "none",
    value: float | None = None,
) -> Bleu:
    """BLEU of a corpus: matches, totals and lengths are summed over the sentences before anything is divided.

    Args:
      hypotheses: N sentences as tokens.
      references: for each hypothesis one or more references as tokens.
      order: the longest n-grams; BLEU-1 ... BLEU-4.
      smoothing, value: see `bleu_of_counts`.
    """
    check_corpus(hypotheses, references)
    pairs = zip(hypotheses, references, strict=True)
    counts = np.sum([bleu_counts(hypothesis, own, order) for hypothesis, own in pairs], axis=0)
    return bleu_of_counts(counts, smoothing, value)


def sentence_bleu(
    hypothesis: Tokens,
    references: Sequence[Tokens],
    order: int = 4,
    smoothing: str = "exp",
    value: float | None = None,
) -> Bleu:
    """BLEU of one sentence: smoothed, and without the orders that the hypothesis is too short for.

    The mean over sentences is not the BLEU of the corpus.
    """
    return bleu_of_counts(bleu_counts(hypothesis, references, order), smoothing, value, effective_order=True)
