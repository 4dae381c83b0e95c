import math

import numpy as np
import pytest

from dlfx.metrics.cider import cider, cider_d
from dlfx.types import UserError
from tests.metrics.captions import HYPOTHESES, REFERENCES


def test_published_value_of_captions_is_cider_d():
    assert cider_d(HYPOTHESES, REFERENCES).mean() == pytest.approx(1.242192, abs=5e-7)
    assert cider(HYPOTHESES, REFERENCES).mean() != pytest.approx(1.242192, abs=0.1)


def dense(hypotheses, references, order, sigma):
    """The paper's equations with a vector over the whole vocabulary of n-grams."""
    scores = np.zeros(len(hypotheses))
    for n in range(1, order + 1):
        grams = lambda s: [tuple(s[i : i + n]) for i in range(len(s) - n + 1)]  # noqa: E731, B023
        texts = [*hypotheses, *(ref for own in references for ref in own)]
        vocabulary = sorted({gram for text in texts for gram in grams(text)})
        df = [sum(any(gram in grams(ref) for ref in own) for own in references) for gram in vocabulary]
        idf = np.log(len(hypotheses)) - np.log(np.maximum(1, df))
        vector = lambda s: np.array([grams(s).count(gram) for gram in vocabulary]) * idf  # noqa: E731, B023
        for i, (hyp, own) in enumerate(zip(hypotheses, references, strict=True)):
            for ref in own:
                a, b = vector(hyp), vector(ref)
                norms = np.linalg.norm(a) * np.linalg.norm(b)
                if norms:
                    value = a @ b if sigma is None else np.minimum(a, b) @ b
                    if sigma is not None:
                        value *= np.exp(-((len(hyp) - len(ref)) ** 2) / (2 * sigma**2))
                    scores[i] += 10 / order * value / norms / len(own)
    return scores


@pytest.mark.parametrize("seed", range(5))
def test_equals_dense_vectors(seed):
    rng = np.random.default_rng(seed)
    words = lambda: rng.integers(0, 6, rng.integers(0, 9)).tolist()  # noqa: E731
    hyps = [words() for _ in range(4)]
    refs = [[words() for _ in range(rng.integers(1, 4))] for _ in range(4)]
    np.testing.assert_allclose(cider(hyps, refs, 3), dense(hyps, refs, 3, None), atol=1e-12)
    np.testing.assert_allclose(cider_d(hyps, refs, 4, 2.0), dense(hyps, refs, 4, 2.0), atol=1e-12)


def test_by_hand():
    hyps, refs = [["a", "b"], ["c", "d"]], [[["a", "b"]], [["d", "x"]]]
    # Every word is of one image: weight ln 2. Image 1: cosine 1 of words and of pairs. Image 2: 1 of 2 words.
    np.testing.assert_allclose(cider(hyps, refs, 2), [10, 10 / 2 * 0.5])
    # A repeated word costs CIDEr-D: (1 of 2, clipped) and a length that is 1 off.
    clipped = 10 * math.exp(-1 / (2 * 36)) / 2
    np.testing.assert_allclose(cider_d([["a", "a"], ["b"]], [[["a"]], [["b"]]], 1), [clipped, 10])
    np.testing.assert_allclose(cider([["a", "a"], ["b"]], [[["a"]], [["b"]]], 1), [10, 10])


def test_edge_cases():
    np.testing.assert_array_equal(cider_d([["a"], []], [[[]], [["a"]]]), [0, 0])
    np.testing.assert_array_equal(cider([["a"]], [[["a"]]]), [0])  # what all images have tells nothing
    with pytest.raises(UserError, match="string"):
        cider(["a"], [[["a"]]])
