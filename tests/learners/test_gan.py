"""The GAN learner: each turn is the game's gradient step, under jit, vmap, scan and shared batches; and it learns."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners.gan import gan, sample
from dlfx.losses.adversarial import GAMES
from dlfx.models.generative.gan import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator
from tests.compiling import quick


class Shift(nn.Module):
    """Latents plus a vector: its gradient is known."""

    @nn.compact
    def __call__(self, z, labels=None, *, train=False):
        return z + self.param("shift", nn.initializers.ones, (2,))


class Plane(nn.Module):
    """A linear critic."""

    @nn.compact
    def __call__(self, x, labels=None, *, train=False):
        return x @ self.param("normal", nn.initializers.constant(0.5), (2,))


POINTS = {"image": jnp.array(np.random.default_rng(0).normal(3, 1, (8, 2)), jnp.float32)}


def linear(game, **options):
    return gan(Shift(), Plane(), GAMES[game], optax.sgd(0.1), optax.sgd(0.2), latent=2, **options)


def latents_of(state, turn):
    """Those that the turn draws: 0 the critic's, 2 the generator's."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0), turn)
    return np.asarray(jax.random.normal(key, (8, 2)))


def test_one_step_of_the_wasserstein_game_is_the_closed_form():
    learner = linear("wasserstein", penalty=10.0, gamma=0.6)
    before = learner.init(jax.random.key(3), POINTS)
    after, metrics = quick(learner.step)(before, POINTS)
    real, fake, w = np.asarray(POINTS["image"]), latents_of(before, 0) + 1, np.array([0.5, 0.5])
    norm = np.sqrt(0.5)
    slope = fake.mean(0) - real.mean(0) + 10 * 2 * (norm - 1) * w / norm + 0.6 * w
    w_after = w - 0.1 * slope
    np.testing.assert_allclose(after.critic.params["normal"], w_after, rtol=1e-5)
    np.testing.assert_allclose(after.generator.params["shift"], 1 + 0.2 * w_after, rtol=1e-5)  # it met the new critic
    np.testing.assert_allclose(metrics["d_real"], (real @ w).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["d_fake"], (fake @ w).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["penalty"], (norm - 1) ** 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["r1"], 0.25, rtol=1e-5)
    total = (fake @ w).mean() - (real @ w).mean() + 10 * (norm - 1) ** 2 + 0.6 * 0.25
    np.testing.assert_allclose(metrics["critic_loss"], total, rtol=1e-4)
    np.testing.assert_allclose(metrics["generator_loss"], -(fake @ w_after).mean(), rtol=1e-4)  # on the same fakes


@pytest.mark.parametrize("game", ["minimax", "non_saturating"])
def test_d_is_a_probability_in_the_games_that_have_one(game):
    learner = linear(game)
    state = learner.init(jax.random.key(0), POINTS)
    _, metrics = quick(learner.step)(state, POINTS)
    real = 1 / (1 + np.exp(-np.asarray(POINTS["image"]) @ [0.5, 0.5]))
    fake = 1 / (1 + np.exp(-(latents_of(state, 0) + 1) @ [0.5, 0.5]))
    np.testing.assert_allclose((metrics["d_real"], metrics["d_fake"]), (real.mean(), fake.mean()), rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_loss"], -np.log(real).mean() - np.log(1 - fake).mean(), rtol=1e-5)


def images(count, classes=3):
    rng = np.random.default_rng(1)
    image = jnp.array(rng.uniform(-1, 1, (count, 8, 8, 1)), jnp.float32)
    return {"image": image, "label": jnp.array(rng.integers(classes, size=count), jnp.int32)}


def dcgan(batch_norm, axis_name=None, **options):
    types = {"num_classes": 3, "axis_name": axis_name}
    players = DCGANGenerator((8, 8, 1), 2, **types), DCGANCritic(2, batch_norm, not batch_norm, **types)
    optimizer = optax.adam(1e-3)
    return gan(
        *players, GAMES["hinge"], optimizer, optimizer, latent=4, conditional=True, axis_name=axis_name, **options
    )


@pytest.mark.parametrize("batch_norm", [True, False])
def test_statistics_move_in_their_own_players_turns_and_types_stay(batch_norm):
    learner = dcgan(batch_norm, decay=0.9, penalty=0.0 if batch_norm else 1.0)
    batch, traces = images(4), []

    def step(state, batch):
        traces.append(1)
        return learner.step(state, batch)

    compiled = quick(step)
    start = quick(learner.init)(jax.random.key(0), batch)
    state, metrics = compiled(start, batch)
    state, metrics = compiled(state, batch)
    assert len(traces) == 1 and np.isfinite(metrics["loss"])
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(lambda x: (x.shape, x.dtype), start)
    assert set(start.generator.extra) == {"batch_stats"}
    assert set(start.critic.extra) == ({"batch_stats"} if batch_norm else {"spectral"})
    for player in ("generator", "critic"):
        pairs = zip(*(jax.tree.leaves(getattr(s, player).extra) for s in (start, state)), strict=True)
        assert all((a != b).any() for a, b in pairs)
    assert (jax.random.key_data(state.key) == jax.random.key_data(start.key)).all()


def test_devices_that_share_a_batch_do_as_one():
    """In float64, as batch norm, penalties' weights and the noise of every row are those of the whole batch."""
    with jax.enable_x64(True):
        types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        batch = jax.tree.map(lambda x: x.astype(jnp.float64) if x.ndim > 1 else x, images(8))

        def learner(axis_name):
            players = DCGANGenerator((8, 8, 1), 2, axis_name=axis_name, **types), MLPCritic((4,), **types)
            optimizer, options = optax.sgd(1e-2), {"penalty": 1.0, "critic_steps": 2, "axis_name": axis_name}
            return gan(*players, GAMES["wasserstein"], optimizer, optimizer, latent=4, **options)

        whole, shared = learner(None), learner("data")
        start = quick(whole.init)(jax.random.key(0), batch)
        alone, metrics = quick(whole.step)(start, batch)
        halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch)
        both, told = quick(jax.vmap(shared.step, (None, 0), axis_name="data"))(start, halves)
        for player in ("generator", "critic"):
            one, two = (jax.tree.leaves(getattr(s, player)._replace(opt_state=())) for s in (alone, both))
            for a, b in zip(one, two, strict=True):
                np.testing.assert_allclose(b, np.stack([a, a]), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(told["loss"], [metrics["loss"]] * 2, rtol=1e-9)


def test_a_population_learns_a_shifted_gaussian_and_samples_by_the_average():
    """Non-saturating with R1, in one program of two seeds: the samples' mean goes to the data's."""
    players = MLPGenerator((2,), (16,)), MLPCritic((16,))
    learner = gan(
        *players, GAMES["non_saturating"], optax.adam(1e-2, 0.5), optax.adam(1e-2, 0.5), latent=2, gamma=0.1, decay=0.95
    )
    states = jax.vmap(learner.init, (0, None))(jax.random.split(jax.random.key(0), 2), POINTS)

    def run(state):
        def one(state, i):
            points = 0.3 * jax.random.normal(jax.random.fold_in(jax.random.key(9), i), (64, 2)) + jnp.array([3.0, -2.0])
            return learner.step(state, {"image": points})

        return jax.lax.scan(one, state, jnp.arange(400))

    states, metrics = quick(jax.vmap(run))(states)
    z = jax.random.normal(jax.random.key(1), (1000, 2))
    points = jax.vmap(lambda state: sample(players[0], state, z))(states)
    np.testing.assert_allclose(points.mean(1), [[3, -2]] * 2, atol=0.2)
    np.testing.assert_allclose(metrics["d_real"][:, -50:].mean(1), 0.5, atol=0.1)
    raw = jax.vmap(lambda state: sample(players[0], state, z, averaged=False))(states)
    assert (raw != points).any() and (points[0] != points[1]).any()
