"""Whole episodes, many or one, against a loop in Python over the same keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs.episodes import episodic
from dlfx.envs.evaluation import play, record
from tests.compiling import quick

GAMMA = 0.8


def dynamics(key, state, action):
    """A walk on whole numbers that ends beyond 3, or is cut after 7 steps; the reward has noise."""
    after = state + jnp.where(action == 1, 1, -1) + jax.random.bernoulli(key, 0.3)
    return after, jnp.float32(after), after + jax.random.normal(key), after > 3


WALK = episodic(
    "walk", lambda key: (start := jax.random.randint(key, (), -2, 3), jnp.float32(start)), dynamics,
    num_actions=2, render=lambda state: None, max_steps=7,
)  # fmt: skip


def step(key, state, action):
    """Time is up below -1 too, so that some are cut while others go on."""
    state, then = WALK.step(key, state, action)
    return state, then._replace(truncated=then.truncated | (~then.terminated & (then.successor < -1)))


ENV = WALK._replace(step=step)
STEP, RESET = quick(jax.vmap(ENV.step)), quick(jax.vmap(ENV.reset))


def policy(key, observation):
    """By chance, so that the key matters; what it expects is a function of the observation."""
    return jax.random.bernoulli(key, 0.6, observation.shape).astype(jnp.int32), 10 + observation


def loop(key, count, max_steps):
    """What `play` shall give, an episode after the other."""
    act = quick(policy)
    states, observation = RESET(jax.random.split(jax.random.fold_in(key, 2**31 - 1), count))
    first, steps = np.asarray(observation), []
    for time in range(max_steps):
        act_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        states, then = STEP(jax.random.split(env_key, count), states, act(act_key, observation)[0])
        observation = then.observation
        steps.append(jax.tree.map(np.asarray, then))
    out = []
    for e in range(count):
        total, discounted, length, terminated = 0.0, 0.0, 0, False
        for then in steps:
            total, discounted = total + then.reward[e], discounted + GAMMA**length * then.reward[e]
            length, terminated = length + 1, bool(then.terminated[e])
            if terminated or then.truncated[e]:
                break
        out.append((total, discounted, length, terminated, 10 + first[e]))
    return out


PLAY = quick(lambda key, max_steps, gamma: play(ENV, policy, key, 20, max_steps, gamma))


@pytest.mark.parametrize("max_steps", [3, 7, 50])
def test_episodes_are_those_of_a_loop(max_steps):
    key = jax.random.key(max_steps)
    played = PLAY(key, max_steps, GAMMA)
    expected = loop(key, 20, min(max_steps, 7))
    for name, column in zip(played._fields, zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(getattr(played, name), column, rtol=1e-5, atol=1e-5, err_msg=name)
    lengths = np.asarray(played.lengths)
    assert lengths.dtype == np.int32 and played.terminated.dtype == np.bool_
    assert 1 <= lengths.min() < lengths.max() == min(max_steps, 7)  # they end at different times
    assert 0 < np.sum(played.terminated) < 20 and (~played.terminated & (lengths < lengths.max())).any()


def test_gamma_0_and_1():
    key = jax.random.key(0)
    played = PLAY(key, 50, 1.0)
    np.testing.assert_array_equal(played.discounted, played.returns)
    np.testing.assert_allclose(PLAY(key, 50, 0.0).discounted, PLAY(key, 1, 1.0).returns, rtol=1e-6)


def test_a_task_without_end_is_cut():
    endless = episodic(
        "endless", lambda key: (jnp.int32(0), jnp.int32(0)),
        lambda key, s, a: (s, s, jnp.float32(1), jnp.bool_(False)), num_actions=1, render=lambda state: None,
    )  # fmt: skip

    def only(key, observation):
        return jnp.zeros_like(observation), jnp.float32(observation)

    played = play(endless, only, jax.random.key(0), 3, 9, GAMMA)
    np.testing.assert_array_equal(played.lengths, 9)
    np.testing.assert_array_equal(played.returns, 9)
    np.testing.assert_allclose(played.discounted, (1 - GAMMA**9) / (1 - GAMMA), rtol=1e-6)
    assert not played.terminated.any()
    seen = record(endless, only, jax.random.key(0), 9)
    assert len(seen.rewards) == 9 and seen.terminated is False


def test_a_population_plays_what_its_members_would():
    keys = jax.random.split(jax.random.key(0), 3)
    together = quick(jax.vmap(lambda key: play(ENV, policy, key, 20, 50, GAMMA)))(keys)
    for i in range(3):
        alone = PLAY(keys[i], 50, GAMMA)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-5), together, alone)


def test_a_recording_is_a_loop_up_to_the_end_of_its_episode():
    step, act, reset, ends = quick(ENV.step), quick(policy), quick(ENV.reset), set()
    for seed in (1, 2):
        key = jax.random.key(seed)
        seen = record(ENV, policy, key, 30)
        state, observation = reset(jax.random.fold_in(key, 2**31 - 1))
        for time in range(30):
            act_key, env_key = jax.random.split(jax.random.fold_in(key, time))
            action, value = act(act_key, observation[None])
            assert seen.observations[time] == observation and seen.actions[time] == action[0]
            assert seen.values[time] == value[0] and seen.states.task[time] == state.task
            assert seen.states.time[time] == state.time == time
            state, then = step(env_key, state, action[0])
            observation = then.observation
            assert seen.rewards[time] == pytest.approx(float(then.reward), abs=1e-5)
            if then.terminated or then.truncated:
                break
        assert {len(x) for x in seen[:5] if isinstance(x, np.ndarray)} == {time + 1}
        assert seen.terminated is bool(then.terminated)
        ends.add(seen.terminated)
    assert ends == {True, False}
