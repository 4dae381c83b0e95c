"""Metrics of generative models: against closed forms, loops in NumPy, and SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.metrics import generative
from tests.compiling import quick

RING = np.array([[np.cos(a), np.sin(a)] for a in 2 * np.pi * np.arange(8) / 8], np.float32) * 2


def test_modes_equal_a_loop():
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(size=(200, 2)) * 1.5, RING[[1, 1, 4]] + 0.01, [[np.nan, 0], [np.inf, 0]]])
    counts = np.zeros(8, int)
    for x in samples:
        distances = [math.dist(x, c) for c in RING]
        if min(distances) <= 3 * 0.1:
            counts[np.argmin(distances)] += 1
    got = quick(generative.modes)(jnp.asarray(samples, jnp.float32), RING, 0.1)
    np.testing.assert_array_equal(got["counts"], counts)
    assert got["covered"] == (counts > 0).sum() and 0 < counts.sum() < 100
    np.testing.assert_allclose(got["quality"], counts.sum() / len(samples), rtol=1e-6)
    p = counts[counts > 0] / counts.sum()
    np.testing.assert_allclose(got["divergence"], (p * np.log(p * 8)).sum(), rtol=1e-5)


def test_modes_of_the_mixture_itself_are_the_closed_form():
    rng = np.random.default_rng(0)
    samples = RING[rng.integers(8, size=20000)] + 0.02 * rng.normal(size=(20000, 2))
    for radius in (1.0, 3.0):
        got = generative.modes(jnp.asarray(samples), RING, 0.02, radius)
        expected = 1 - math.exp(-(radius**2) / 2)
        assert abs(got["quality"] - expected) < 4 * math.sqrt(expected * (1 - expected) / 20000)
    assert got["covered"] == 8 and 0 <= got["divergence"] < 1e-3


def test_modes_at_the_extremes():
    equal = generative.modes(jnp.asarray(np.repeat(RING, 3, 0)), RING, 0.02)
    assert equal["covered"] == 8 and equal["quality"] == 1 and 0 <= equal["divergence"] < 1e-6
    collapsed = generative.modes(jnp.asarray(np.repeat(RING[:1], 10, 0)), RING, 0.02)
    nothing = generative.modes(jnp.full((10, 2), 50.0), RING, 0.02)
    assert collapsed["covered"] == 1 and nothing["covered"] == 0 and nothing["quality"] == 0
    np.testing.assert_allclose([collapsed["divergence"], nothing["divergence"]], math.log(8), rtol=1e-6)


def test_least_asks_for_more_samples_and_the_edge_belongs_to_a_mode():
    samples = jnp.array([[0.0, 0.0], [3.0, 0.0], [3.1, 0.0], [10.0, 0.0]])
    got = generative.modes(samples, jnp.array([[0.0, 0.0], [10.0, 0.0]]), 1.0)
    np.testing.assert_array_equal(got["counts"], [2, 1])
    assert generative.modes(samples, jnp.array([[0.0, 0.0], [10.0, 0.0]]), 1.0, least=2)["covered"] == 1


def test_modes_of_a_population_are_those_of_its_members():
    samples = jax.random.normal(jax.random.key(0), (3, 50, 2))
    together = jax.vmap(lambda x: generative.modes(x, RING, 0.2))(samples)
    for member in range(3):
        alone = generative.modes(samples[member], RING, 0.2)
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][member], value, rtol=1e-6)


def test_class_shares_and_their_ratios():
    logits = jnp.array([[3.0, 1, 0, 0], [2, 0, 1, 0], [0, 5, 0, 0], [1, 0, 0, 0]])
    got = quick(generative.class_shares)(logits, jnp.array([5.0, 3.0, 2.0, 0.0]))
    np.testing.assert_allclose(got["shares"], [0.75, 0.25, 0, 0])
    np.testing.assert_allclose([got["smallest"], got["largest"]], [0, 1.5], rtol=1e-6)
    unseen = generative.class_shares(logits, jnp.array([0.0, 1.0, 0.0, 0.0]))
    assert unseen["largest"] == np.inf and unseen["smallest"] == 0.25


def test_inception_score_in_closed_form():
    classes = jnp.repeat(jnp.arange(10), 7)
    sure = 100 * jax.nn.one_hot(classes, 10)
    np.testing.assert_allclose(quick(generative.inception_score)(sure), 10, rtol=1e-5)
    np.testing.assert_allclose(generative.inception_score(jnp.where(sure > 0, 0, -jnp.inf)), 10, rtol=1e-5)
    np.testing.assert_allclose(generative.inception_score(jnp.tile(jnp.array([[1.0, 2, 3]]), (5, 1))), 1, rtol=1e-6)
    # Two classes, (q, 1 - q) for one half and the reverse for the other: log 2 minus the entropy of q.
    q = 0.8
    logits = jnp.log(jnp.array([[q, 1 - q], [1 - q, q]]))
    expected = 2 * q**q * (1 - q) ** (1 - q)
    np.testing.assert_allclose(generative.inception_score(logits + jnp.array([[5.0], [-3.0]])), expected, rtol=1e-5)


def test_inception_score_equals_a_loop_and_splits_by_vmap():
    logits = np.random.default_rng(0).normal(size=(20, 4)) * 3
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    def loop(p):
        marginal = p.mean(0)
        return np.exp(np.mean([sum(a * np.log(a / b) for a, b in zip(row, marginal, strict=True)) for row in p]))

    np.testing.assert_allclose(generative.inception_score(jnp.asarray(logits)), loop(p), rtol=1e-5)
    splits = jax.vmap(generative.inception_score)(jnp.asarray(logits).reshape(4, 5, 4))
    np.testing.assert_allclose(splits, [loop(part) for part in p.reshape(4, 5, 4)], rtol=1e-5)


def test_importance_bound_of_constant_weights_is_exact_and_of_one_is_the_elbo():
    np.testing.assert_allclose(generative.importance_bound(jnp.full((50, 3), -812.5)), -812.5)
    elbo = jnp.array([[-3.0, 700.0]])
    np.testing.assert_allclose(generative.importance_bound(elbo), elbo[0])
    weights = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    np.testing.assert_allclose(
        generative.importance_bound(jnp.asarray(weights), axis=1), np.log(np.exp(weights).mean(1)), rtol=1e-5
    )


def test_importance_bound_rises_with_samples_up_to_the_likelihood():
    """log w normal with deviation s and log p(x) = 0: the ELBO is -s^2 / 2, two samples gain, many reach 0."""
    s = 0.8
    log_weights = s * jax.random.normal(jax.random.key(0), (4096, 2000)) - s**2 / 2
    bounds = [generative.importance_bound(log_weights[:k]).mean() for k in (1, 2, 8, 64, 4096)]
    assert all(later > earlier for earlier, later in zip(bounds, bounds[1:], strict=False))
    assert abs(bounds[0] + s**2 / 2) < 4 * s / math.sqrt(2000) and abs(bounds[-1]) < 1e-3


def test_chunks_give_the_whole_bound_and_are_traced_once():
    log_weights = 30 * jax.random.normal(jax.random.key(1), (60, 5)) - 1000
    log_weights = log_weights.at[:, 4].set(-jnp.inf).at[:20, 3].set(-jnp.inf)
    traced = []

    @quick
    def chunked(log_weights):
        def chunk(i):
            traced.append(i)
            return jax.lax.dynamic_slice_in_dim(log_weights, i * 12, 12)

        return generative.chunked_importance_bound(chunk, 5)

    got = chunked(log_weights)
    np.testing.assert_allclose(got, generative.importance_bound(log_weights), rtol=1e-6)
    assert got[4] == -np.inf and len(traced) <= 3  # once for the shape, and for the loop
    population = jax.vmap(lambda x: generative.chunked_importance_bound(lambda i: x[i], 4))
    x = jax.random.normal(jax.random.key(2), (3, 4, 2))
    np.testing.assert_allclose(population(x), jax.vmap(generative.importance_bound)(x.reshape(3, 8)), rtol=1e-5)


def test_bits_per_dimension():
    """Uniform pixels of 256 levels need 8 bits each, whichever way the density is written."""
    assert generative.bits_per_dimension(12 * math.log(256), 12) == pytest.approx(8)
    assert generative.bits_per_dimension(0.0, 12, levels=256) == pytest.approx(8)
    assert generative.bits_per_dimension(-12 * math.log(256), 12, levels=256) == pytest.approx(0)
