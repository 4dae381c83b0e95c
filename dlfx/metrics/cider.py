"""CIDEr: the cosine between captions and references in the space of n-grams, weighted by how telling they are."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from dlfx.metrics.ngrams import Tokens, check_corpus, count_ngrams

Vector = dict[tuple[Hashable, ...], float]


def cider(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], order: int = 4) -> np.ndarray:
    """CIDEr of each caption; the mean is the corpus's.

    `CIDEr = (10 / N) sum_n mean_j cos(g_n(c), g_n(s_j))`, `g_n` the counts of n-grams times `log(I / df)`, with I the
    number of images and df the number of them with the n-gram in a reference (at least 1)

    Args:
      hypotheses: I captions as tokens. The paper stems them first; pass stems for that.
      references: for each caption one or more references. Document frequencies are of these: with one image all
        weights are 0, and so is CIDEr.
      order: N, the longest n-grams.

    Returns:
      `[I]`, from 0 to 10.

    Source: Vedantam, Zitnick and Parikh 2015, CIDEr, equations 1 to 3; the factor 10 is that of the server of COCO.
    """
    return _scores(hypotheses, references, order, None)


def cider_d(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], order: int = 4, sigma: float = 6.0
) -> np.ndarray:
    """CIDEr-D of each caption, harder to game: weights clipped to the reference's, other lengths punished.

    The term of a reference is `exp(-(l(c) - l(s))^2 / (2 sigma^2)) min(g_n(c), g_n(s)) . g_n(s) / (|g_n(c)| |g_n(s)|)`,
    l the number of tokens. Papers that give "CIDEr" by coco-caption or nlg-eval give this.

    Args, returns: as `cider`.

    Source: Vedantam, Zitnick and Parikh 2015, section 7, equation 4.
    """
    return _scores(hypotheses, references, order, sigma)


def _scores(
    hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], order: int, sigma: float | None
) -> np.ndarray:
    check_corpus(hypotheses, references)
    scores = np.zeros(len(hypotheses))
    for n in range(1, order + 1):
        counts = [[count_ngrams(reference, n) for reference in own] for own in references]
        documents = Counter(ngram for own in counts for ngram in set().union(*own))
        for i, hypothesis in enumerate(hypotheses):
            vector = _weighted(count_ngrams(hypothesis, n), documents, len(hypotheses))
            terms = []
            for reference, own in zip(references[i], counts[i], strict=True):
                other = _weighted(own, documents, len(hypotheses))
                penalty = 1.0
                if sigma is not None:
                    penalty = math.exp(-((len(hypothesis) - len(reference)) ** 2) / (2 * sigma**2))
                terms.append(penalty * _similarity(vector, other, clipped=sigma is not None))
            scores[i] += 10 / order * sum(terms) / len(terms)
    return scores


def _weighted(counts: Counter, documents: Counter, images: int) -> Vector:
    return {ngram: count * math.log(images / max(1, documents[ngram])) for ngram, count in counts.items()}


def _similarity(a: Vector, b: Vector, clipped: bool) -> float:
    length = math.hypot(*a.values()) * math.hypot(*b.values())
    shared = a.keys() & b.keys()
    product = sum((min(a[ngram], b[ngram]) if clipped else a[ngram]) * b[ngram] for ngram in shared)
    return product / length if length else 0.0
