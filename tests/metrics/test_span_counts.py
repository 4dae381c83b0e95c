import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.metrics.span_counts import continues, f1, span_counts
from dlfx.metrics.spans import span_scores
from tests.compiling import quick

SCHEMES = {"BIO": ["O", "B-X", "I-X", "B-Y", "I-Y"], "BMES": ["B", "M", "E", "S", "O"]}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_counts_are_those_of_spans(scheme):
    names, rng = SCHEMES[scheme], np.random.default_rng(0)
    lengths = rng.integers(1, 10, 300)
    true = rng.integers(0, 5, (300, 9))
    predicted = np.where(rng.random(true.shape) < 0.7, true, rng.integers(0, 5, true.shape))
    within = np.arange(9) < lengths[:, None]
    given = quick(lambda a, b, c: span_counts(a, b, c, names, scheme))(
        jnp.where(within, predicted, 99), jnp.where(within, true, -1), lengths
    )
    rows = [[[names[k] for k in row[:n]] for row, n in zip(tags, lengths, strict=True)] for tags in (predicted, true)]
    wanted = [span_scores([ours], [theirs], scheme) for ours, theirs in zip(*rows, strict=True)]
    for name, counts in given.items():
        np.testing.assert_array_equal(counts, [getattr(scores, name) for scores in wanted], err_msg=name)
    assert given["correct"].sum() > 100
    whole, shares = span_scores(*rows, scheme), f1(*(given[name].sum() for name in ("correct", "predicted", "true")))
    for name, share in shares.items():
        np.testing.assert_allclose(share, getattr(whole, name), rtol=1e-6)


def test_what_goes_on_with_what():
    goes_on = continues(["O", "B-X", "I-X", "I-Y"])
    np.testing.assert_array_equal(np.argwhere(goes_on), [[1, 2], [2, 2], [3, 3]])


def test_nothing_found_is_0():
    zero = np.zeros(2)
    assert all(not share.any() for share in f1(zero, zero, np.array([0, 4])).values())
