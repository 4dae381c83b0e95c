"""Adversarial losses: their formulas, and what theory says of games on finite sets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.losses import adversarial
from dlfx.losses.adversarial import GAMES, gradient_penalty, interpolates, r1, value
from tests.compiling import quick

REAL, FAKE = np.array([2.0, -1.0, 0.5]), np.array([-0.3, 1.2])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


BY_HAND = {
    "minimax": (
        -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(),
        np.log(1 - sigmoid(FAKE)).mean(),
    ),
    "non_saturating": (
        -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean(),
        -np.log(sigmoid(FAKE)).mean(),
    ),
    "least_squares": (((REAL - 1) ** 2).mean() / 2 + (FAKE**2).mean() / 2, ((FAKE - 1) ** 2).mean() / 2),
    "hinge": (np.maximum(0, 1 - REAL).mean() + np.maximum(0, 1 + FAKE).mean(), -FAKE.mean()),
    "wasserstein": (FAKE.mean() - REAL.mean(), -FAKE.mean()),
}


@pytest.mark.parametrize("name", GAMES)
def test_a_game_is_its_formula(name):
    game = GAMES[name]
    critic, generator = BY_HAND[name]
    np.testing.assert_allclose(game.critic(jnp.array(REAL), jnp.array(FAKE)), critic, rtol=1e-6)
    np.testing.assert_allclose(game.generator(jnp.array(FAKE)), generator, rtol=1e-6)
    wanted = sigmoid(FAKE) if name in ("minimax", "non_saturating") else FAKE
    np.testing.assert_allclose(game.output(jnp.array(FAKE)), wanted, rtol=1e-6)


@pytest.mark.parametrize("name", GAMES)
def test_extreme_logits_give_finite_losses_and_gradients(name):
    extreme = jnp.array([-1e4, 1e4, 0.0])
    game = GAMES[name]
    loss, slopes = jax.value_and_grad(game.critic, (0, 1))(extreme, extreme)
    assert np.isfinite(loss) and np.isfinite(slopes).all()
    assert np.isfinite(jax.grad(game.generator)(extreme)).all()


def test_where_the_critic_is_sure_only_the_non_saturating_generator_has_a_gradient():
    sure = jnp.full(4, -30.0)
    assert np.abs(jax.grad(GAMES["minimax"].generator)(sure)).max() < 1e-12
    np.testing.assert_allclose(jax.grad(GAMES["non_saturating"].generator)(sure), -1 / 4, rtol=1e-6)


def js(p, q):
    m = (p + q) / 2
    return sum((x[x > 0] * np.log(x[x > 0] / m[x > 0])).sum() / 2 for x in (p, q))


def counted(counts):
    """The points of a finite set, each as often as it is counted: their mean is an expectation."""
    return np.repeat(np.arange(len(counts)), counts)


P, Q = np.array([4, 2, 1, 1]), np.array([1, 1, 3, 3])  # of 8


def best_logits(p, q):
    """Of a table D over a finite set, by gradient ascent on the value function alone."""

    def loss(logits):
        return -value(logits[counted(p)], logits[counted(q)])

    ascent = optax.adam(0.1)

    def step(state, _):
        logits, opt_state = state
        updates, opt_state = ascent.update(jax.grad(loss)(logits), opt_state)
        return (optax.apply_updates(logits, updates), opt_state), None

    start = jnp.zeros(len(p))
    (logits, _), _ = quick(lambda s: jax.lax.scan(step, s, None, 1000))((start, ascent.init(start)))
    return logits


def test_the_best_critic_is_p_over_p_plus_q():
    np.testing.assert_allclose(sigmoid(np.asarray(best_logits(P, Q))), P / (P + Q), atol=1e-4)


def test_at_the_best_critic_the_value_is_the_jensen_shannon_divergence():
    for p, q in ((P, Q), (P, P), (np.array([3, 5, 0, 0]), np.array([0, 0, 4, 4]))):
        with np.errstate(divide="ignore"):
            logits = jnp.clip(jnp.log(p) - jnp.log(q), -50, 50)
        got = value(logits[counted(p)], logits[counted(q)])
        np.testing.assert_allclose(got, -np.log(4) + 2 * js(p / 8, q / 8), atol=1e-6)
    np.testing.assert_allclose(value(jnp.zeros(3), jnp.zeros(5)), -1.3862944, rtol=1e-6)  # equal
    np.testing.assert_allclose(value(jnp.full(3, 50.0), jnp.full(5, -50.0)), 0, atol=1e-6)  # disjoint


def test_on_disjoint_supports_only_the_wasserstein_distance_tells_how_far():
    """Data at 0, the generator's one point at theta: JS is log 2 wherever it is, W_1 is |theta|."""

    def at_the_best_critic(theta):
        logits = jnp.where(theta == 0, 0.0, 50.0)  # the best critic of two different points is sure, wherever they are
        return value(jnp.array([logits]), jnp.array([-logits]))

    def wasserstein(theta):
        def critic(x):
            return -x * jnp.sign(theta)  # 1-Lipschitz, and the best there is

        return -adversarial.wasserstein_critic(critic(jnp.zeros(1)), critic(theta[None]))

    for theta in (0.5, 2.0, -3.0):
        np.testing.assert_allclose(at_the_best_critic(jnp.float32(theta)), 0, atol=1e-6)
        assert jax.grad(at_the_best_critic)(jnp.float32(theta)) == 0
        distance, slope = jax.value_and_grad(wasserstein)(jnp.float32(theta))
        np.testing.assert_allclose((distance, slope), (abs(theta), np.sign(theta)))


def test_exact_alternation_reaches_nash_where_d_is_one_half():
    """A finite game: the critic is the best of each turn, the generator descends C(q) by its logits."""
    p = jnp.array([0.5, 0.25, 0.25])

    def cost(generator):
        q = jax.nn.softmax(generator)
        logits = jax.lax.stop_gradient(jnp.log(p) - jnp.log(q))
        return (p * jax.nn.log_sigmoid(logits)).sum() + (q * jax.nn.log_sigmoid(-logits)).sum()

    def step(generator, _):
        return generator - 2.0 * jax.grad(cost)(generator), None

    end, _ = quick(lambda g: jax.lax.scan(step, g, None, 400))(jnp.array([-1.0, 0.0, 2.0]))
    q = jax.nn.softmax(end)
    np.testing.assert_allclose(q, p, atol=1e-4)
    np.testing.assert_allclose(p / (p + q), 0.5, atol=1e-4)
    np.testing.assert_allclose(cost(end), -np.log(4), atol=1e-6)


def test_gradient_penalty_of_a_linear_critic_is_closed():
    weights = np.array([3.0, -4.0])
    points = jnp.array(np.random.default_rng(0).normal(size=(7, 2)))
    np.testing.assert_allclose(gradient_penalty(lambda x: x @ weights, points), (5 - 1) ** 2, rtol=1e-6)
    np.testing.assert_allclose(gradient_penalty(lambda x: x @ weights, points, 2.0), 9, rtol=1e-6)
    np.testing.assert_allclose(r1(lambda x: x @ weights, points), 25 / 2, rtol=1e-6)


def test_penalties_of_a_quadratic_critic_take_each_point_on_its_own():
    images = np.random.default_rng(0).normal(size=(5, 2, 3, 1)).astype(np.float32)
    norms = 2 * np.sqrt((images**2).sum((1, 2, 3)))  # of the gradient of sum x^2
    critic = lambda x: (x**2).sum((1, 2, 3))  # noqa: E731
    np.testing.assert_allclose(gradient_penalty(critic, images), ((norms - 1) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(r1(critic, images), (norms**2).mean() / 2, rtol=1e-5)


def test_the_gradient_of_the_penalty_is_its_numerical_one_and_finite_where_the_critic_is_flat():
    points = jnp.array(np.random.default_rng(1).normal(size=(4, 2)), jnp.float32)

    def penalty(scale):
        return gradient_penalty(lambda x: scale * jnp.sin(x).sum(-1), points)

    numeric = (penalty(0.7 + 1e-2) - penalty(0.7 - 1e-2)) / 2e-2
    np.testing.assert_allclose(jax.grad(penalty)(0.7), numeric, rtol=1e-2)
    assert penalty(0.0) == 1 and np.isfinite(jax.grad(penalty)(0.0))


def test_interpolates_lie_between():
    x, y = np.random.default_rng(2).normal(size=(2, 3, 2, 2, 1))
    got = interpolates(jnp.array(x), jnp.array(y), jnp.array([0.0, 1.0, 0.25]))
    for row, wanted in zip(got, (y[0], x[1], 0.25 * x[2] + 0.75 * y[2]), strict=True):
        np.testing.assert_allclose(row, wanted, atol=1e-6)
