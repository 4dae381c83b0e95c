"""Hopfield networks: energies by definition, recall against loops, and the capacity that theory tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.hopfield import corrupt, energy, hebbian, mean_field, projection, recall, update
from dlfx.types import UserError
from tests.compiling import quick


def signs(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice([-1.0, 1.0], shape).astype(np.float32)


def test_hebbian_weights_and_energy_by_definition():
    patterns, state = signs(3, 7), signs(7, seed=1)
    w = np.zeros((7, 7))
    for i, j in np.ndindex(7, 7):
        w[i, j] = sum(x[i] * x[j] for x in patterns) / 7 if i != j else 0
    np.testing.assert_allclose(hebbian(patterns), w, atol=1e-6)
    total = -sum(w[i, j] * state[i] * state[j] for i in range(7) for j in range(i))  # each pair once
    np.testing.assert_allclose(energy(hebbian(patterns), state), total, rtol=1e-5)


def test_no_update_raises_the_energy():
    """In float64, one unit after the other, from random states of an overloaded network, where ties happen too."""
    patterns, states = signs(12, 30), signs(5, 30, seed=1)
    weights = np.asarray(hebbian(patterns), np.float64)
    one = quick(update)
    for unit in np.random.default_rng(2).integers(0, 30, 150):
        after = np.asarray(one(weights, states, unit))
        changes = np.einsum("bi,ij,bj->b", after, weights, after) - np.einsum("bi,ij,bj->b", states, weights, states)
        assert np.all(-0.5 * changes <= 1e-6)
        field = (weights[unit] * states.astype(np.float64)).sum(-1)
        decided = np.abs(field) > 1e-6
        np.testing.assert_array_equal(after[decided, unit], np.sign(field)[decided])
        np.testing.assert_array_equal(np.delete(after, unit, -1), np.delete(states, unit, -1))
        states = after
    tie = update(jnp.zeros((2, 2)), jnp.array([-1.0, 1.0]), 0)
    assert tie.tolist() == [-1, 1]


def test_recall_completes_patterns_and_stops_where_nothing_changes():
    patterns = signs(5, 120)
    weights = hebbian(patterns)
    start = corrupt(jax.random.key(0), jnp.asarray(patterns), 0.25)
    assert np.all((np.asarray(start) != patterns).sum(-1) == 30)
    found = quick(recall)(weights, start, jax.random.key(1))
    np.testing.assert_array_equal(found.states, patterns)
    assert 2 <= int(found.sweeps) < 10
    falls = np.diff(np.asarray(found.energies), axis=0)
    assert np.all(falls <= 1e-5) and np.all(falls[0] < -1) and np.all(falls[int(found.sweeps) - 1 :] == 0)
    np.testing.assert_allclose(found.energies[0], energy(weights, start), rtol=1e-5)
    np.testing.assert_allclose(found.energies[-1], energy(weights, found.states), rtol=1e-5)
    short = quick(lambda s: recall(weights, s, jax.random.key(1), max_sweeps=1))(start[0])
    assert int(short.sweeps) == 1 and short.energies.shape == (2,)


def test_an_inverted_pattern_is_a_memory_as_well():
    patterns = signs(2, 60)
    found = quick(recall)(hebbian(patterns), -patterns, jax.random.key(0))
    np.testing.assert_array_equal(found.states, -patterns)


def test_projection_stores_what_resembles_each_other():
    """20 patterns of 64 units that share three quarters of their units: Hebb's rule mixes them up."""
    base = signs(64)
    patterns = np.stack([np.where(np.arange(64) < 40, base, x) for x in signs(20, 64, seed=3)])
    run = quick(recall)
    kept = run(projection(patterns), patterns, jax.random.key(0)).states
    mixed = run(hebbian(patterns), patterns, jax.random.key(0)).states
    np.testing.assert_array_equal(kept, patterns)
    assert np.all(np.any(np.asarray(mixed) != patterns, -1))
    whole = np.linalg.pinv(patterns) @ patterns  # with its diagonal it leaves every pattern as it is
    np.testing.assert_allclose(patterns @ whole, patterns, atol=1e-4)
    np.testing.assert_allclose(projection(patterns), whole - np.diag(np.diag(whole)), atol=1e-4)


def test_theory_of_capacity():
    """Amit et al.'s figures: at most 0.138 N patterns, where 1.6 % of the units are wrong."""
    loads, overlaps = mean_field()
    assert np.all(np.diff(loads) > 0) and np.all(np.diff(overlaps) <= 0)
    assert abs(loads[-1] - 0.138) < 5e-4 and abs((1 - overlaps[-1]) / 2 - 0.016) < 1e-3
    assert overlaps[0] == pytest.approx(1)


def test_measured_capacity():
    """600 units: few errors at 0.10, many at 0.20."""
    for load, low, high in ((0.10, 0.0, 0.012), (0.20, 0.1, 0.5)):
        patterns = jnp.asarray(signs(int(600 * load), 600))
        found = quick(recall)(hebbian(patterns), patterns[:20], jax.random.key(0))
        assert low <= float((found.states != patterns[:20]).mean()) < high


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: recall(jnp.eye(2), jnp.ones(2), jax.random.key(0), max_sweeps=0), "max_sweeps 0"),
        (lambda: corrupt(jax.random.key(0), jnp.ones(2), 1.5), "share 1.5"),
    ],
)
def test_bad_arguments(call, says):
    with pytest.raises(UserError, match=says):
        call()
