"""Precision, recall, density and coverage against a loop in NumPy and the expectations of Naeem et al."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.metrics.manifold import precision_recall
from dlfx.types import UserError
from tests.compiling import quick


def loop(real, generated, k):
    def radii(x):
        return [sorted(np.linalg.norm(x - p, axis=1))[k] for p in x]  # the nearest is the point itself

    real_radii, generated_radii = radii(real), radii(generated)
    inside = np.array([[np.linalg.norm(y - x) <= r for x, r in zip(real, real_radii, strict=True)] for y in generated])
    back = np.array(
        [[np.linalg.norm(x - y) <= r for y, r in zip(generated, generated_radii, strict=True)] for x in real]
    )
    return {
        "precision": inside.any(1).mean(),
        "recall": back.any(1).mean(),
        "density": inside.sum() / (k * len(generated)),
        "coverage": inside.any(0).mean(),
    }


@pytest.mark.parametrize(("k", "chunk"), [(3, 256), (1, 7), (5, 1)])
def test_it_equals_a_loop_whatever_the_chunks(k, chunk):
    rng = np.random.default_rng(k)
    real, generated = rng.normal(size=(40, 6)) + 5, rng.normal(size=(31, 6)) * 0.8 + 5.5 + (k == 5)
    expected = loop(real, generated, k)
    got = quick(lambda x, y: precision_recall(x, y, k, chunk))(jnp.asarray(real), jnp.asarray(generated))
    assert all(0 < value < 2 and value != 1 for value in expected.values())
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-6, err_msg=name)


def test_sets_apart_the_same_set_and_a_part_of_it():
    real = jax.random.normal(jax.random.key(0), (60, 3))
    scores = quick(precision_recall)
    assert all(value == 0 for value in scores(real, real + 100).values())
    same = scores(real, real)
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    half = scores(real, real[real[:, 0] > 0])
    assert half["precision"] == 1 and half["recall"] < 0.8 and half["coverage"] < 0.8


def test_the_edge_of_a_ball_belongs_to_it():
    real, generated = jnp.array([[-3.0], [-1.0], [4.0]]), jnp.array([[1.0], [20.0], [30.0]])
    got = precision_recall(real, generated, k=1)  # real radii 2, 2, 5; the first generated is on the edge of the second
    np.testing.assert_allclose([got["precision"], got["density"], got["coverage"]], [1 / 3, 2 / 3, 2 / 3], rtol=1e-6)


def test_of_one_distribution_density_and_coverage_are_as_expected():
    """Density 1, and coverage `1 - prod_{i <= k} (n - i) / (n + m - i)` (Naeem et al. 2020, lemmas 1 and 2)."""
    n, m, k = 60, 80, 5
    draws = jax.random.normal(jax.random.key(0), (40, n + m, 4))
    got = quick(jax.vmap(lambda x: precision_recall(x[:n], x[n:], k)))(draws)
    i = np.arange(1, k + 1)
    np.testing.assert_allclose(got["coverage"].mean(), 1 - np.prod((n - i) / (n + m - i)), atol=0.01)
    np.testing.assert_allclose(got["density"].mean(), 1, atol=0.05)


@pytest.mark.parametrize(("n", "m", "k"), [(4, 3, 3), (3, 9, 3), (9, 9, 0)])
def test_too_few_points_for_the_neighbours(n, m, k):
    with pytest.raises(UserError, match=f"{k} nearest neighbours need .* there are {n} real and {m} generated"):
        precision_recall(jnp.zeros((n, 2)), jnp.zeros((m, 2)), k)
