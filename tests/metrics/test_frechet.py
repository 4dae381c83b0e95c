"""The Frechet distance against closed forms and SciPy; its moments against NumPy, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dlfx.metrics.frechet import frechet_distance, frechet_distance_of, mean_and_covariance, moments
from dlfx.types import UserError
from tests.compiling import quick


def covariance_of_rank(rank, size, seed):
    x = np.random.default_rng(seed).normal(size=(size, rank))
    return x @ x.T


def test_of_one_dimension_and_of_commuting_covariances():
    np.testing.assert_allclose(frechet_distance([2.0], [[9.0]], [-1.0], [[0.25]]), 3.0**2 + (3 - 0.5) ** 2)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    a, b = np.array([4.0, 1, 9, 0, 1e-9]), np.array([1.0, 0, 16, 2, 1e-3])
    ca, cb = (rotation @ np.diag(x) @ rotation.T for x in (a, b))
    expected = 5 * 0.5**2 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    np.testing.assert_allclose(frechet_distance(np.zeros(5), ca, np.full(5, 0.5), cb), expected, rtol=1e-7)


def test_of_general_covariances_equals_scipy():
    c1, c2 = covariance_of_rank(9, 6, 0), covariance_of_rank(7, 6, 1)
    m1, m2 = np.random.default_rng(2).normal(size=(2, 6))
    root = scipy.linalg.sqrtm(c1 @ c2)
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root.real)
    np.testing.assert_allclose(frechet_distance(m1, c1, m2, c2), expected, rtol=1e-10)
    np.testing.assert_allclose(frechet_distance(m2, c2, m1, c1), expected, rtol=1e-10)
    both = frechet_distance(np.stack([m1, m1]), np.stack([c1, c1]), np.stack([m2, m1]), np.stack([c2, c1]))
    np.testing.assert_allclose(both, [expected, 0], rtol=1e-10, atol=1e-12)


def test_of_equal_sets_is_zero_also_where_covariances_are_singular():
    for rank in (1, 3, 40):
        c = covariance_of_rank(rank, 40, rank)
        assert 0 <= frechet_distance(np.ones(40), c, np.ones(40), c) < 1e-10 * np.trace(c)
    assert frechet_distance(np.ones(3), np.zeros((3, 3)), np.zeros(3), np.zeros((3, 3))) == 3


def test_of_singular_covariances_is_the_closed_form():
    """Rank one each, u u^T and v v^T: the trace of the root is |u v|."""
    u, v = np.random.default_rng(0).normal(size=(2, 30))
    expected = u @ u + v @ v - 2 * abs(u @ v)
    got = frechet_distance(np.zeros(30), np.outer(u, u), np.zeros(30), np.outer(v, v))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_of_two_sets_of_features():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 4)) + 100, rng.normal(size=(300, 4)) * [1, 2, 0.1, 1] + 101
    means, covariances = [s.mean(0) for s in (x, y)], [np.cov(s, rowvar=False) for s in (x, y)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance_of(x, y) == pytest.approx(expected, rel=1e-6)
    # A shift alone is the distance of the means, here 4 * 3^2; one set alone is at no distance from itself.
    assert frechet_distance_of(x, x + 3) == pytest.approx(36, rel=1e-9) and frechet_distance_of(x, x) < 1e-9
    few = rng.normal(size=(3, 20))
    assert frechet_distance_of(few, few[::-1]) < 1e-9
    with pytest.raises(UserError, match="at least 2 samples, not 1"):
        frechet_distance_of(x[:1], y)


@pytest.mark.parametrize("sizes", [(10,), (1, 9), (3, 3, 4)])
def test_moments_add_up_to_the_covariance_over_any_split(sizes):
    x = (np.random.default_rng(0).normal(size=(10, 3)) * [1, 5, 0.1] + 1000).astype(np.float32)
    center = x[0]
    total = jax.tree.map(np.zeros_like, moments(jnp.asarray(x), center=center))
    for rows in np.split(x, np.cumsum(sizes)[:-1]):
        filled = np.concatenate([rows, np.full((2, 3), np.nan, np.float32)])  # filling must not leak
        mask = jnp.arange(len(filled)) < len(rows)
        part = quick(moments)(jnp.asarray(filled), mask.astype(jnp.float32), center)
        total = jax.tree.map(np.add, total, part)
    mean, covariance = mean_and_covariance(total, center)
    assert total["count"] == 10 and covariance.dtype == np.float64
    np.testing.assert_allclose(mean, x.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(x, rowvar=False, dtype=np.float64), rtol=1e-5)


def test_moments_of_a_population():
    x = jax.random.normal(jax.random.key(0), (2, 8, 3))
    mean, covariance = mean_and_covariance(jax.vmap(moments)(x))
    for member in range(2):
        np.testing.assert_allclose(mean[member], x[member].mean(0), atol=1e-6)
        np.testing.assert_allclose(covariance[member], np.cov(x[member], rowvar=False), rtol=1e-4, atol=1e-5)


def test_sums_in_float32_of_fewer_samples_than_features_lose_little():
    """The zeros among the eigenvalues come out at 1e-7; their roots alone would add 1e-3 of the distance."""
    x = np.maximum(np.random.default_rng(0).normal(size=(200, 60)), 0).astype(np.float32)
    few = x[:20] * 1.1
    for center in (0.0, x.mean(0)):
        parts = [p for s in (x, few) for p in mean_and_covariance(moments(jnp.asarray(s), center=center), center)]
        np.testing.assert_allclose(frechet_distance(*parts), frechet_distance_of(x, few), rtol=1e-5)
