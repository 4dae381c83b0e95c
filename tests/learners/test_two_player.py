"""The two-player step: who moves when, on what, and that games need not converge."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners.two_player import State, Turn, generator_variables, two_player
from tests.compiling import quick


def bilinear(rate, **options):
    """f = x y: the critic's y ascends, the generator's x descends."""

    def critic_loss(params, state, batch, key):
        return -params["y"] * state.generator.params["x"], Turn({}, None, {})

    def generator_loss(params, state, batch, key):
        return params["x"] * state.critic.params["y"], Turn({}, None, {})

    def init(key, batch):
        return {"params": {"x": jnp.float32(1)}}, {"params": {"y": jnp.float32(0)}}, None

    return two_player(init, critic_loss, generator_loss, optax.sgd(rate), optax.sgd(rate), **options)


def play(learner, steps, batch=None):
    batch = jnp.zeros((4,)) if batch is None else batch
    start = learner.init(jax.random.key(0), batch)

    def one(state, _):
        state, metrics = learner.step(state, batch)
        return state, (state.generator.params, state.critic.params, metrics)

    return quick(lambda s: jax.lax.scan(one, s, None, steps))(start)


def test_alternating_steps_of_the_bilinear_game_are_the_closed_form_and_do_not_converge():
    rate = 0.1
    _, (x, y, _) = play(bilinear(rate), 200)
    a, b, wanted = 1.0, 0.0, []
    for _ in range(200):
        b = b + rate * a
        a = a - rate * b
        wanted.append((a, b))
    np.testing.assert_allclose(np.stack([x["x"], y["y"]], 1), wanted, atol=1e-4)
    # x^2 + y^2 + rate x y is kept: the players circle around the equilibrium at 0 for ever.
    kept = x["x"] ** 2 + y["y"] ** 2 + rate * x["x"] * y["y"]
    np.testing.assert_allclose(kept, kept[0], rtol=1e-3)
    assert np.hypot(x["x"], y["y"])[-60:].min() > 0.9


def test_more_turns_of_the_critic_spiral_outwards_and_simultaneous_steps_as_the_closed_form():
    _, (x, y, _) = play(bilinear(0.1, critic_steps=2), 200)
    a, b = 1.0, 0.0
    for _ in range(200):
        b += 2 * 0.1 * a
        a -= 0.1 * b
    np.testing.assert_allclose((x["x"][-1], y["y"][-1]), (a, b), atol=1e-3)

    def simultaneous(point, _):
        point = point + 0.1 * jnp.array([-point[1], point[0]])
        return point, jnp.linalg.norm(point)

    _, radii = jax.lax.scan(simultaneous, jnp.array([1.0, 0.0]), None, 200)
    np.testing.assert_allclose(radii, (1 + 0.1**2) ** (np.arange(1, 201) / 2), rtol=1e-4)  # outwards without end


def recorder(**options):
    """A game whose critic counts the rows that it saw in its extra, and whose generator says what it met."""

    def critic_loss(params, state, batch, key):
        seen = state.critic.extra["seen"] * 100 + batch[0]
        return params["y"] * batch.mean(), Turn({"seen": seen}, state.memory + 1, {"noise": jax.random.uniform(key)})

    def generator_loss(params, state, batch, key):
        told = {"met": batch[0], "turned": state.memory, "critics": state.critic.params["y"]}
        return params["x"] ** 2, Turn({}, state.memory * 0, {**told, "own": jax.random.uniform(key)})

    def init(key, batch):
        critic = {"params": {"y": jnp.float32(0)}, "seen": jnp.float32(0)}
        return {"params": {"x": jnp.float32(1)}}, critic, jnp.int32(0)

    return two_player(init, critic_loss, generator_loss, optax.sgd(1.0), optax.sgd(0.25), **options)


def test_every_turn_of_the_critic_has_its_own_rows_and_key_and_the_generator_moves_last():
    learner = recorder(critic_steps=3)
    batch = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])  # turns see (1, 4), (2, 5), (3, 6)
    start = learner.init(jax.random.key(1), batch)
    state, metrics = quick(learner.step)(start, batch)
    assert state.critic.extra["seen"] == 10203 and metrics["met"] == 3
    np.testing.assert_allclose(state.critic.params["y"], -(2.5 + 3.5 + 4.5), rtol=1e-6)
    assert metrics["critics"] == state.critic.params["y"]  # the generator met the critic after its turns
    assert state.memory == 3 and metrics["turned"] == 3  # the memory is the critic's
    np.testing.assert_allclose(state.generator.params["x"], 0.5)
    np.testing.assert_allclose(metrics["loss"], metrics["critic_loss"] + metrics["generator_loss"])
    np.testing.assert_allclose(metrics["generator_grad_norm"], 2)
    again = quick(learner.step)(state._replace(step=start.step), batch)[1]
    assert again["noise"] == metrics["noise"] != quick(learner.step)(state, batch)[1]["noise"]
    assert (jax.random.key_data(state.key) == jax.random.key_data(start.key)).all() and state.step == 1


def test_devices_that_share_a_batch_take_the_turns_of_one():
    whole, shared = recorder(critic_steps=2), recorder(critic_steps=2, axis_name="data")
    batch = jnp.arange(8.0)
    start = whole.init(jax.random.key(0), batch)
    alone, metrics = quick(whole.step)(start, batch)
    both, told = quick(jax.vmap(shared.step, (None, 0), axis_name="data"))(start, batch.reshape(2, 4))
    for player in ("generator", "critic"):
        one, two = getattr(alone, player).params, getattr(both, player).params
        for name, leaf in one.items():
            np.testing.assert_allclose(two[name], [leaf, leaf], rtol=1e-6)
    np.testing.assert_allclose(told["critic_loss"], [metrics["critic_loss"]] * 2, rtol=1e-6)


def test_the_critic_is_clipped():
    _, (_, y, _) = play(bilinear(0.1, clip=0.05), 30)
    assert np.abs(y["y"]).max() <= np.float32(0.05) and np.abs(y["y"]).max() > 0.049


def test_the_average_of_the_generator_is_the_recursion():
    final, (x, _, _) = play(bilinear(0.1, decay=0.9), 50)
    average = 1.0
    for step, value in enumerate(np.asarray(x["x"])):
        d = min(0.9, (1 + step) / (10 + step))
        average = d * average + (1 - d) * value
    np.testing.assert_allclose(final.average["x"], average, rtol=1e-5)
    assert generator_variables(final)["params"] is final.average
    assert generator_variables(final, averaged=False)["params"] is final.generator.params
    plain, _ = play(bilinear(0.1), 2)
    assert plain.average is None and generator_variables(plain)["params"] is plain.generator.params


@pytest.mark.parametrize("steps", [1, 2])
def test_it_compiles_once_and_buffers_can_be_donated(steps):
    learner, traces = recorder(critic_steps=steps, decay=0.5), []

    def step(state, batch):
        traces.append(1)
        return learner.step(state, batch)

    compiled = jax.jit(step, donate_argnums=0)
    batch = jnp.arange(4.0)
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for _ in range(3):
        state, _ = compiled(state, batch)
    assert len(traces) == 1 and isinstance(state, State)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
