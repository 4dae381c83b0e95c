import math

import numpy as np
import pytest

from dlfx.metrics.bleu import bleu_counts, bleu_of_counts, corpus_bleu, sentence_bleu
from dlfx.types import UserError
from tests.metrics.captions import HYPOTHESES, REFERENCES


def test_published_values_of_captions():
    scores = [corpus_bleu(HYPOTHESES, REFERENCES, order).score for order in (1, 2, 3, 4)]
    np.testing.assert_allclose(scores, [0.550000, 0.428174, 0.284043, 0.201143], atol=5e-7)


def test_matches_are_clipped():
    """Section 2.1 of Papineni et al.: unclipped, the precision would be 7 / 7."""
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert corpus_bleu([["the"] * 7], [references], order=1).precisions == (2 / 7,)


def test_brevity_by_hand():
    # Of "a b c" 2 of 3 words and 1 of 2 pairs are in "a b d e f".
    bleu = corpus_bleu([list("abc")], [[list("abdef")]], order=2)
    assert bleu.precisions == (2 / 3, 1 / 2)
    assert bleu.brevity_penalty == pytest.approx(math.exp(1 - 5 / 3))
    assert bleu.score == pytest.approx(math.exp(1 - 5 / 3) * math.sqrt(2 / 3 * 1 / 2))
    # The nearest reference has 2 or 4 tokens: the shorter.
    assert corpus_bleu([list("abc")], [[list("abcd"), list("ab")]]).reference_length == 2


def random_corpus(seed, sentences=6, references=2):
    rng = np.random.default_rng(seed)
    words = lambda shortest: [str(w) for w in rng.integers(0, 4, rng.integers(shortest, 12))]  # noqa: E731
    return [words(0) for _ in range(sentences)], [[words(1) for _ in range(references)] for _ in range(sentences)]


SMOOTHINGS = [("none", None), ("exp", None), ("floor", None), ("floor", 0.3), ("add-k", None), ("add-k", 0.5)]


@pytest.mark.parametrize(("smoothing", "value"), SMOOTHINGS)
def test_equals_sacrebleu(smoothing, value):
    sacrebleu = pytest.importorskip("sacrebleu")
    join = " ".join
    for seed in range(15):
        hyps, refs = random_corpus(seed, sentences=seed % 4 + 1)
        for order in (2, 4):
            for effective in (False, True):
                theirs = sacrebleu.BLEU(
                    max_ngram_order=order,
                    smooth_method=smoothing,
                    smooth_value=value,
                    effective_order=effective,
                    tokenize="none",
                    force=True,
                )
                if effective:
                    ours = sentence_bleu(hyps[0], refs[0], order, smoothing, value)
                    expected = theirs.sentence_score(join(hyps[0]), [join(ref) for ref in refs[0]])
                else:
                    ours = corpus_bleu(hyps, refs, order, smoothing, value)
                    streams = [[join(own[k]) for own in refs] for k in range(2)]
                    expected = theirs.corpus_score([join(hyp) for hyp in hyps], streams)
                assert 100 * ours.score == pytest.approx(expected.score, abs=1e-9)
                assert ours.brevity_penalty == pytest.approx(expected.bp)
                assert (ours.hypothesis_length, ours.reference_length) == (expected.sys_len, expected.ref_len)
                if expected.score:
                    np.testing.assert_allclose(100 * np.array(ours.precisions), expected.precisions)


@pytest.mark.parametrize("smoothing", ["none", "exp", "floor", "add-k"])
def test_smoothing_makes_nothing_of_no_match(smoothing):
    assert corpus_bleu([list("abcde")], [[list("vwxyz")]], smoothing=smoothing).score == 0
    assert sentence_bleu(list("abcde"), [list("vwxyz")], smoothing=smoothing).score == 0


def test_counts_add_up_over_batches():
    hyps, refs = random_corpus(3, sentences=8)
    halves = [sum(bleu_counts(h, r) for h, r in zip(hyps[s], refs[s], strict=True)) for s in np.s_[:3, 3:]]
    assert bleu_of_counts(halves[0] + halves[1]) == corpus_bleu(hyps, refs)


def test_edge_cases():
    assert corpus_bleu([[]], [[["a"]]]).score == 0
    assert corpus_bleu([["a"]], [[[]]]).score == 0
    assert corpus_bleu([[]], [[[]]]).score == 0
    assert sentence_bleu(["a", "b"], [["a", "b"]]).score == 1  # it has no 3-grams
    assert corpus_bleu([["a", "b"]], [[["a", "b"]]]).score == 0
    assert corpus_bleu([[1, 2, 3, 4]], [[np.array([1, 2, 3, 4])]]).score == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "corpus is empty"),
        (([["a"]], []), "1 hypotheses but references for 0"),
        (([["a"]], [[]]), "hypothesis 0 needs a list of at least one reference"),
        (([["a"]], [["a b"]]), "'a b' is a string, not tokens"),
        ((["a"], [[["a"]]]), "'a' is a string, not tokens"),
        (([["a"]], [[["a"]]], 0), "at least 1"),
        (([["a"]], [[["a"]]], 4, "add"), "unknown smoothing 'add'; did you mean add-k?"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(UserError, match=message):
        corpus_bleu(*arguments)
