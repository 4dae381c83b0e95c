"""Policies and schedules against their formulas, and actions drawn with the frequencies they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.learners.tabular import policies, schedules
from dlfx.learners.tabular.policies import Situation
from dlfx.learners.tabular.tables import first_best, pick, sample


def situation(values, visits=None, time=0, state=0):
    visits = np.zeros(len(values)) if visits is None else visits
    return Situation(jnp.int32(state), jnp.float32(values), jnp.float32(visits), jnp.int32(time))


def test_epsilon_greedy_shares_among_the_best():
    policy = policies.epsilon_greedy(schedules.constant(0.3))
    got = policy.probabilities(situation([1.0, 2.0, 2.0, -1.0]))
    np.testing.assert_allclose(got, [0.075, 0.425, 0.425, 0.075], rtol=1e-6)
    np.testing.assert_array_equal(policies.greedy().probabilities(situation([0.0, 3.0, 1.0])), [0, 1, 0])


def test_softmax():
    values = np.array([1.0, 2.0, 4.0])
    got = policies.softmax(schedules.constant(0.5)).probabilities(situation(values))
    np.testing.assert_allclose(got, np.exp(values / 0.5) / np.exp(values / 0.5).sum(), rtol=1e-5)
    assert np.isfinite(policies.softmax(schedules.constant(1e-3)).probabilities(situation([1e3, -1e3]))).all()


def test_upper_confidence_tries_everything_first():
    policy = policies.upper_confidence(2.0)
    np.testing.assert_array_equal(policy.probabilities(situation([5.0, 0.0, 0.0], [3, 0, 0])), [0, 0.5, 0.5])
    values, visits = np.array([1.0, 0.9, 0.0]), np.array([50.0, 20.0, 2.0])
    wanted = np.argmax(values + 2 * np.sqrt(np.log(visits.sum()) / visits))
    assert wanted != 0
    assert policy.probabilities(situation(values, visits)).argmax() == wanted and policy.counts


def test_a_given_policy_is_looked_up():
    table = np.array([[0.2, 0.8], [1.0, 0.0]])
    np.testing.assert_allclose(policies.given(table).probabilities(situation([0, 0], state=1)), table[1])


def test_schedules():
    times = jnp.array([0, 50, 100, 1000])
    linear = schedules.linear(1.0, 0.2, 100).value(times, jnp.float32(0))
    np.testing.assert_allclose(linear, [1.0, 0.6, 0.2, 0.2], rtol=1e-6)
    exponential = schedules.exponential(1.0, 0.01, 100).value(times, jnp.float32(0))
    np.testing.assert_allclose(exponential, [1.0, 0.1, 0.01, 0.01], rtol=1e-5)
    assert schedules.constant(0.3).value(times[1], jnp.float32(9)) == np.float32(0.3)
    visited = schedules.by_visits(0.5)
    assert visited.counts and visited.value(times[1], jnp.float32(16)) == 0.25


@pytest.mark.parametrize("chances", [[0.1, 0.0, 0.6, 0.3], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3, 0.0], [1.0, 0.0]])
def test_sample_inverts_the_cumulative_probabilities(chances):
    u = (np.arange(4096, dtype=np.float32) + 0.5) / 4096
    edges = np.float32([0.0, np.nextafter(np.float32(1), np.float32(0))])
    drawn = jax.vmap(sample, (None, 0))(jnp.float32(chances), jnp.concatenate([u, edges]))
    assert (np.asarray(chances)[np.asarray(drawn)] > 0).all()
    np.testing.assert_allclose(np.bincount(drawn[:-2], minlength=len(chances)) / 4096, chances, atol=4e-4)


def test_pick_and_first_best():
    u = jnp.float32([0.0, 0.24, 0.25, 0.999, np.nextafter(np.float32(1), np.float32(0))])
    np.testing.assert_array_equal(pick(u, 4), [0, 0, 1, 3, 3])
    assert first_best(jnp.float32([1, 3, 3])) == 1
