import itertools

import numpy as np
import pytest

from dlfx.metrics.rouge import Rouge, longest_common_subsequence, mean_rouge, rouge_l, rouge_n
from dlfx.types import UserError
from tests.metrics.captions import HYPOTHESES, REFERENCES


def random_words(rng):
    return [str(w) for w in rng.integers(0, 4, rng.integers(0, 9))]


def test_published_value_of_captions():
    pairs = zip(HYPOTHESES, REFERENCES, strict=True)
    assert mean_rouge(rouge_l(h, r, 1.2, True) for h, r in pairs).f == pytest.approx(0.522104, abs=5e-7)


def test_example_of_the_paper():
    """Lin 2004, section 3.1: ROUGE-2 cannot tell the two candidates apart, ROUGE-L can."""
    reference = ["police", "killed", "the", "gunman"]
    first, second = ["police", "kill", "the", "gunman"], ["the", "gunman", "kill", "police"]
    assert rouge_n(first, [reference], 2) == rouge_n(second, [reference], 2) == Rouge(1 / 3, 1 / 3, 1 / 3)
    assert rouge_l(first, [reference]).f == 3 / 4
    assert rouge_l(second, [reference]).f == 2 / 4


def test_common_subsequence_is_the_longest():
    rng = np.random.default_rng(0)
    for _ in range(30):
        a, b = random_words(rng)[:6], random_words(rng)

        def subsequence(part, whole):
            rest = iter(whole)
            return all(token in rest for token in part)

        parts = itertools.chain.from_iterable(itertools.combinations(a, k) for k in range(len(a) + 1))
        assert longest_common_subsequence(a, b) == max(len(part) for part in parts if subsequence(part, b))


def test_equals_rouge_score():
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"])
    rng = np.random.default_rng(1)
    for _ in range(40):
        hyp, refs = random_words(rng), [random_words(rng) for _ in range(3)]
        expected = scorer.score_multi([" ".join(ref) for ref in refs], " ".join(hyp))
        ours = {"rouge1": rouge_n(hyp, refs, 1), "rouge2": rouge_n(hyp, refs, 2), "rougeL": rouge_l(hyp, refs)}
        for name, score in ours.items():
            assert score.f == pytest.approx(expected[name].fmeasure)
        single = scorer.score(" ".join(refs[0]), " ".join(hyp))
        np.testing.assert_allclose(rouge_n(hyp, refs[:1], 1), single["rouge1"])
        np.testing.assert_allclose(rouge_n(hyp, refs[:1], 2), single["rouge2"])
        np.testing.assert_allclose(rouge_l(hyp, refs[:1]), single["rougeL"])


def test_beta_weighs_recall():
    # P = 1, R = 1 / 2
    assert rouge_l(["a"], [["a", "b"]], beta=2.0) == Rouge(1.0, 0.5, 5 * 0.5 / (0.5 + 4))
    # The best precision is of one reference, the best recall of the other.
    references = [list("abcd"), list("ax")]
    assert rouge_l(list("ab"), references) == Rouge(1.0, 0.5, 2 / 3)
    assert rouge_l(list("aby"), [list("abcd"), list("a")], best_of_each=True)[:2] == (2 / 3, 1.0)


def test_edge_cases():
    assert rouge_n([], [["a"]], 1) == rouge_l([], [["a"]]) == Rouge(0, 0, 0)
    assert rouge_n(["a"], [[]], 1) == rouge_l(["a"], [[]]) == Rouge(0, 0, 0)
    assert rouge_n(["a"], [["a"]], 2) == Rouge(0, 0, 0)  # no pairs at all
    assert mean_rouge([Rouge(1, 0, 0), Rouge(0, 1, 0)]) == Rouge(0.5, 0.5, 0)
    for call in (
        lambda: rouge_l("a b", [["a"]]),
        lambda: rouge_l(["a"], []),
        lambda: rouge_n(["a"], [["a"]], 0),
        lambda: mean_rouge([]),
    ):
        with pytest.raises(UserError):
            call()
