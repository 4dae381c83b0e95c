"""Advantages against their definition, gradients of policies against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dlfx.losses import policy_gradient as losses


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def mixture_of_returns(r, gamma, terminated, ended, v_tm1, v_t, decay):
    """(1 - lambda) sum_n lambda^(n-1) G^(n) - v, the longest return of the episode getting all that is left."""
    out = np.zeros(len(r))
    for t in range(len(r)):
        last = t
        while not ended[last] and last + 1 < len(r):
            last += 1
        total = 0.0
        for n in range(1, last - t + 2):
            g = sum(gamma**i * r[t + i] for i in range(n))
            if not terminated[t + n - 1]:
                g += gamma**n * v_t[t + n - 1]
            total += (decay ** (n - 1)) * (1 if t + n - 1 == last else 1 - decay) * (g - v_tm1[t])
        out[t] = total
    return out


@pytest.mark.parametrize("decay", [0.0, 0.95, 1.0])
def test_generalized_advantage_is_the_mixture_of_n_step_returns(decay):
    rng = np.random.default_rng(0)
    r, values, v_t = rng.normal(size=(3, 12))
    compiled = jax.jit(losses.generalized_advantage)
    cases = [[], [(4, True)], [(4, False)], [(11, True)], [(11, False)], [(0, True), (1, False), (6, False), (9, True)]]
    for ends in cases:
        terminated, ended = np.zeros((2, 12), bool)
        for at, terminal in ends:
            ended[at], terminated[at] = True, terminal
        v_tm1 = np.append(values[0], np.where(ended, np.roll(values, -1), v_t)[:-1])  # of another state after a reset
        found = compiled(*map(jnp.float32, (r, 0.9 * ~terminated)), ended, jnp.float32(v_tm1), jnp.float32(v_t), decay)
        expected = mixture_of_returns(r, 0.9, terminated, ended, v_tm1, v_t, decay)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=str(ends))


def test_the_mean_gradient_of_reinforce_is_that_of_the_expected_reward():
    """In a bandit, over its three arms exactly: d/dlogits sum_a pi(a) r(a) = pi (r - mean), whatever the baseline."""
    logits, reward = jnp.array([0.3, -1.0, 0.8]), np.array([1.0, 5.0, -2.0])
    pi = softmax(np.float64(logits))
    gradient = jax.vmap(jax.grad(losses.policy_gradient), (None, 0, 0))
    for baseline in (0.0, 3.0):
        each = gradient(logits, jnp.arange(3), jnp.float32(reward - baseline))
        np.testing.assert_allclose(-pi @ each, pi * (reward - pi @ reward), atol=1e-6)
    assert jax.grad(losses.policy_gradient, 2)(logits, 1, 2.0) == 0
    assert losses.policy_gradient(logits, 1, 2.0) == pytest.approx(-2 * np.log(pi[1]), rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [(1.5, 2.0, True), (0.5, 2.0, False), (1.5, -2.0, False), (0.5, -2.0, True), (1.1, 2.0, False), (0.9, -2.0, False)],
)
def test_the_clipped_surrogate_has_no_gradient_where_the_ratio_went_too_far_the_right_way(ratio, advantage, clipped):
    logits = jnp.array([0.3, -1.0, 0.8])
    pi = softmax(np.float64(logits))
    log_prob_old = np.log(pi[2] / ratio)
    value, gradient = jax.value_and_grad(losses.clipped_surrogate)(logits, 2, advantage, log_prob_old, 0.2)
    bound = (1.2 if ratio > 1 else 0.8) if clipped else ratio
    assert value == pytest.approx(-bound * advantage, rel=1e-5)
    expected = np.zeros(3) if clipped else -advantage * ratio * (np.eye(3)[2] - pi)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


def test_at_the_policy_that_acted_the_surrogate_s_gradient_is_reinforce_s():
    logits = jnp.array([0.3, -1.0, 0.8])
    old = jax.nn.log_softmax(logits)[0]
    np.testing.assert_allclose(
        jax.grad(losses.clipped_surrogate)(logits, 0, -1.3, old, 0.2),
        jax.grad(losses.policy_gradient)(logits, 0, -1.3),
        atol=1e-6,
    )


def test_entropy():
    assert losses.entropy(jnp.zeros(5)) == pytest.approx(np.log(5), rel=1e-6)
    logits = np.random.default_rng(0).normal(size=7)
    assert losses.entropy(jnp.float32(logits)) == pytest.approx(scipy.stats.entropy(softmax(logits)), rel=1e-5)
    np.testing.assert_allclose(jax.grad(losses.entropy)(jnp.full(4, 3.0)), np.zeros(4), atol=1e-6)
    certain = jnp.array([500.0, -500.0, 0.0])
    assert losses.entropy(certain) == 0 and np.isfinite(jax.grad(losses.entropy)(certain)).all()
