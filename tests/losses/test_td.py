"""Temporal-difference errors: hand-computed numbers, loops in NumPy, closed forms of their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.losses import td
from tests.compiling import quick

Q_TM1, Q_T = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.5, 3.0, 4.0])


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def bellemare(atoms_t, probs_t, atoms):
    """Algorithm 1 of Bellemare et al. 2017, atom by atom; an atom that falls on another gives it its whole mass."""
    low, high, spacing, out = atoms[0], atoms[-1], atoms[1] - atoms[0], np.zeros(len(atoms))
    for z, p in zip(np.float64(atoms_t), np.float64(probs_t), strict=True):
        b = (min(max(z, low), high) - low) / spacing
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            out[lower] += p
        else:
            out[lower] += p * (upper - b)
            out[upper] += p * (b - lower)
    return out


def test_errors_by_hand():
    # The selector's best action is 1; the other values judge it, although they hold 2 for better.
    selector = jnp.array([0.0, 9.0, 1.0])
    assert td.double_q_learning(Q_TM1, 0, -1.0, 0.5, Q_T, selector) == pytest.approx(-1 + 1.5 - 1)
    # Q-learning's error is that of values which select for themselves.
    assert td.double_q_learning(Q_TM1, 0, -1.0, 0.5, Q_T, Q_T) == pytest.approx(-1 + 2 - 1)
    # After a termination nothing of the successor counts.
    assert td.double_q_learning(Q_TM1, 1, 1.0, 0.0, Q_T * 1e6, Q_T) == -1


def test_errors_of_a_batch_are_loops_over_its_rows():
    q_tm1, q_t, other = random(20, 4), random(20, 4, seed=1), random(20, 4, seed=2)
    rng = np.random.default_rng(3)
    a, r, discount = rng.integers(0, 4, 20), random(20, seed=4), rng.random(20).astype(np.float32)
    found = jax.vmap(td.double_q_learning)(q_tm1, a, r, discount, q_t, other)
    best = [max(range(4), key=lambda b, i=i: other[i][b]) for i in range(20)]
    np.testing.assert_allclose(
        found, [r[i] + discount[i] * q_t[i][best[i]] - q_tm1[i][a[i]] for i in range(20)], atol=1e-6
    )
    assert any(best[i] != q_t[i].argmax() for i in range(20))  # or else it would be no test of double Q-learning


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        (td.double_q_learning, (Q_T, Q_TM1)),
    ],
)
def test_targets_are_constants(rule, more):
    gradients = jax.grad(lambda q, r, discount, q_t: rule(q, 2, r, discount, q_t, *more[1:]), (0, 1, 2, 3))(
        Q_TM1, 1.0, 0.9, more[0]
    )
    np.testing.assert_array_equal(gradients[0], [0, 0, -1])
    assert not any(np.any(gradient) for gradient in gradients[1:])


@pytest.mark.parametrize("atoms", [np.linspace(-2, 3, 6), np.linspace(0, 1, 51), np.linspace(-10, 10, 2)])
def test_projection_is_the_loop_of_bellemare(atoms):
    rng, k = np.random.default_rng(0), len(atoms)
    project = quick(td.categorical_projection)
    for r, discount in [(0.0, 1.0), (0.3, 0.9), (-1.7, 0.5), (100.0, 0.9), (-100.0, 0.9), (0.25, 0.0), (1.0, 1.0)]:
        probs = rng.dirichlet(np.ones(k))
        shifted = r + discount * atoms
        found = np.asarray(project(jnp.float32(shifted), jnp.float32(probs), jnp.float32(atoms)))
        np.testing.assert_allclose(found, bellemare(shifted, probs, atoms), atol=2e-5)
        assert found.sum() == pytest.approx(1, abs=1e-5) and (found >= 0).all()
        inside = np.clip(shifted, atoms[0], atoms[-1])
        assert found @ atoms == pytest.approx(probs @ inside, abs=1e-4)


def test_projection_clips_at_the_ends_and_a_terminal_collapses_to_the_reward():
    atoms, probs = jnp.linspace(0.0, 4.0, 5), jnp.array([0.1, 0.2, 0.3, 0.25, 0.15])
    np.testing.assert_allclose(td.categorical_projection(atoms + 99, probs, atoms), [0, 0, 0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(td.categorical_projection(atoms - 99, probs, atoms), [1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(td.categorical_projection(3 + 0 * atoms, probs, atoms), [0, 0, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(td.categorical_projection(1.25 + 0 * atoms, probs, atoms), [0, 0.75, 0.25, 0, 0])


def test_categorical_loss_and_its_gradient():
    """The cross-entropy of a loop's target; d/dlogits of the action taken is softmax - target, else nothing."""
    atoms, logits, logits_t = np.linspace(-1, 2, 7), random(3, 7), random(3, 7, seed=1)
    selector = jnp.array([0.0, 1.0, 5.0])

    def loss(logits, r, logits_t):
        return td.categorical_q_learning(logits, 1, r, 0.8, logits_t, selector, jnp.float32(atoms))

    target = bellemare(0.4 + 0.8 * atoms, softmax(logits_t[2]), atoms)
    assert loss(logits, 0.4, logits_t) == pytest.approx(-(target * np.log(softmax(logits[1]))).sum(), abs=1e-5)
    online, reward, later = quick(jax.grad(loss, (0, 1, 2)))(logits, 0.4, logits_t)
    np.testing.assert_allclose(online[1], softmax(logits[1]) - target, atol=1e-5)
    assert not np.any(online[jnp.array([0, 2])]) and not np.any(reward) and not np.any(later)


@pytest.mark.parametrize("delta", [0.0, 0.5, 1.0])
def test_quantile_loss_is_the_double_loop(delta):
    estimate, following, selector = random(3, 5), random(3, 5, seed=1), jnp.array([0.0, 1.0, 5.0])
    total = 0.0
    for i in range(5):
        for j in range(5):
            error = 0.4 + 0.8 * float(following[2, j]) - float(estimate[1, i])
            if delta:
                size = error**2 / 2 if abs(error) <= delta else delta * (abs(error) - delta / 2)
            weight = abs((2 * i + 1) / 10 - (error < 0))
            total += weight * (size / delta if delta else abs(error)) / 5
    args = (1, 0.4, 0.8, following, selector, delta)
    assert td.quantile_q_learning(jnp.asarray(estimate), *args) == pytest.approx(total, abs=1e-5)
    later = jax.grad(lambda q_t: td.quantile_q_learning(jnp.asarray(estimate), 1, 0.4, 0.8, q_t, selector, delta))
    assert not np.any(later(following))


def test_quantile_loss_is_least_at_the_quantiles():
    """Of an exponential distribution, whose p-quantile is -log(1 - p): descent from 0 ends there."""
    target = jnp.asarray(-np.log(1 - (np.arange(2000) + 0.5) / 2000), jnp.float32)[None]
    levels = (np.arange(8) + 0.5) / 8

    def loss(theta):
        return td.quantile_q_learning(theta[None], 0, 0.0, 1.0, target, jnp.zeros(1), 0.0)

    theta = quick(
        lambda theta: jax.lax.fori_loop(0, 4000, lambda _, theta: theta - 0.05 * jax.grad(loss)(theta), theta)
    )(jnp.zeros(8))
    np.testing.assert_allclose(theta, -np.log(1 - levels), atol=5e-3)
    # Anywhere else the slope is the distribution function less the level.
    theta = jnp.linspace(0.1, 3, 8)
    np.testing.assert_allclose(jax.grad(loss)(theta), 1 - np.exp(-theta) - levels, atol=1e-3)


def test_huber_is_optax_s():
    error = jnp.linspace(-3, 3, 61)
    for delta in (0.3, 1.0, 2.5, 10.0):
        np.testing.assert_allclose(td.huber(error, delta), optax.huber_loss(error, delta=delta), atol=1e-6)
        ours, theirs = (
            jax.vmap(jax.grad(f))(error)
            for f in (lambda e, d=delta: td.huber(e, d), lambda e, d=delta: optax.huber_loss(e, delta=d))
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 5])
@pytest.mark.parametrize("gamma", [0.9, 1.0, 0.0])
def test_n_step_return_is_a_loop_wherever_the_episode_ends(n, gamma):
    rewards = random(n)
    cases = [(None, False)] + [(at, terminal) for at in range(n) for terminal in (True, False)]
    ended, terminated = np.zeros((2, len(cases) + 1, n), bool)
    for row, (at, terminal) in enumerate(cases):
        if at is not None:
            ended[row, at], terminated[row, at] = True, terminal
    ended[-1], terminated[-1] = True, True  # of ends that follow, only the first counts
    terminated[-1, 0] = False
    found = quick(jax.vmap(td.n_step_return, (None, 0, 0, None)))(rewards, terminated, ended, gamma)
    for row in range(len(ended)):
        total, discount = 0.0, 1.0
        for i in range(n):
            total, discount = total + discount * rewards[i], discount * gamma
            if ended[row, i]:
                break
        expected = (total, 0.0 if terminated[row, i] else discount, i)
        np.testing.assert_allclose([x[row] for x in found], expected, atol=1e-6)
