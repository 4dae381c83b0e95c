"""Stepping through tables: what is drawn follows them, and episodes end and begin as they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs import gridworlds
from dlfx.envs.tabular import environment
from dlfx.ops.mdp import build
from dlfx.types import Environment, Timestep, UserError


def play(env: Environment, key, count: int, steps: int) -> tuple[np.ndarray, np.ndarray, Timestep]:
    """Random actions: states before each step, actions, and what came of them; `[steps, count]`."""

    def step(carry, key):
        state, observation = carry
        act_key, *keys = jax.random.split(key, count + 1)
        action = jax.random.randint(act_key, (count,), 0, env.num_actions)
        state, timestep = jax.vmap(env.step)(jnp.stack(keys), state, action)
        return (state, timestep.observation), (observation, action, timestep)

    first = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, 0), count))
    _, seen = jax.jit(lambda first: jax.lax.scan(step, first, jax.random.split(key, steps)))(first)
    return jax.tree.map(np.asarray, seen)


def random_mdp(states=7, actions=3):
    """Rows with one, two ... successors; the last state is terminal and its rows are never used."""
    rng = np.random.default_rng(0)
    transition = np.zeros((states, actions, states))
    for s in range(states):
        for a in range(actions):
            successors = rng.choice(states, 1 + (s + a) % 5, replace=False)
            transition[s, a, successors] = rng.dirichlet(np.ones(len(successors)))
    transition[-1] = np.nan
    start = np.array([0.1, 0, 0.6, 0, 0.3, 0, 0])
    return build(transition, rng.normal(size=transition.shape), 0.9, start, np.arange(states) == states - 1)


def within_five_sigma(counts, probabilities):
    total = counts.sum()
    expected, sigma = total * probabilities, np.sqrt(total * probabilities * (1 - probabilities))
    assert (np.abs(counts - expected) <= 5 * sigma + 1e-3 * (probabilities > 1 - 1e-6)).all(), (counts, expected)


def test_transitions_rewards_and_starts_follow_the_tables():
    mdp = random_mdp()
    state, action, seen = play(environment("random", mdp), jax.random.key(0), 64, 1000)
    for s in range(6):
        for a in range(3):
            visits = (state == s) & (action == a)
            assert visits.sum() > 200
            within_five_sigma(np.bincount(seen.successor[visits], minlength=7), np.float64(mdp.transition[s, a]))
    np.testing.assert_array_equal(seen.reward, mdp.reward[state, action, seen.successor])
    np.testing.assert_array_equal(seen.terminated, seen.successor == 6)
    within_five_sigma(np.bincount(seen.observation[seen.terminated], minlength=7), np.float64(mdp.start))
    assert not seen.truncated.any() and (state != 6).all()


def test_the_next_episode_begins_in_the_step_that_ends_one():
    state, _, seen = play(environment("walk", gridworlds.random_walk(), max_steps=6), jax.random.key(1), 16, 200)
    over = seen.terminated | seen.truncated
    np.testing.assert_array_equal(state[1:], seen.observation[:-1])
    np.testing.assert_array_equal(seen.observation[over], 3)
    np.testing.assert_array_equal(seen.observation[~over], seen.successor[~over])
    assert (seen.successor[seen.terminated] % 6 == 0).all() and (seen.successor[~seen.terminated] % 6 != 0).all()
    np.testing.assert_array_equal(np.abs(seen.successor - state), 1)
    assert not (seen.terminated & seen.truncated).any() and seen.terminated.any() and seen.truncated.any()
    time = np.zeros(16, int)
    for row in range(200):
        time += 1
        np.testing.assert_array_equal(seen.truncated[row], (time >= 6) & ~seen.terminated[row])
        time[over[row]] = 0


def test_an_episode_that_terminates_at_the_limit_is_not_truncated():
    env = environment("walk", gridworlds.random_walk(), max_steps=3)
    state, _ = env.reset(jax.random.key(0))
    for _ in range(3):
        state, timestep = jax.jit(env.step)(jax.random.key(0), state, jnp.int32(1))
    assert timestep.terminated and not timestep.truncated and timestep.reward == 1 and timestep.successor == 6


def test_a_process_without_chance_draws_no_bits():
    def primitives(mdp):
        env = environment("x", mdp)
        state, _ = env.reset(jax.random.key(0))
        text = jax.jit(env.step).lower(jax.random.key(0), state, jnp.int32(0)).compile().as_text()
        return "xor" in text  # every counter-based generator mixes bits

    assert not primitives(gridworlds.cliff()) and primitives(gridworlds.cliff(slippery=True))
    assert primitives(gridworlds.gridworld4x4())  # starts anywhere


def test_what_it_says_of_itself():
    env = environment("cliff", gridworlds.cliff(), max_steps=9)
    assert (env.name, env.num_states, env.num_actions, env.max_steps) == ("cliff", 48, 4, 9)
    assert env.observation.shape == () and env.observation.dtype == jnp.int32
    state, observation = env.reset(jax.random.key(0))
    state, timestep = env.step(jax.random.key(0), state, jnp.int32(0))
    types = jax.tree.map(lambda x: x.dtype, (observation, timestep))
    assert types == (jnp.int32, Timestep(jnp.int32, jnp.int32, jnp.float32, jnp.bool_, jnp.bool_))
    picture = env.render(jax.tree.map(np.asarray, state))
    assert picture.dtype == np.uint8 and picture.ndim == 3


def test_it_compiles_once_and_is_the_same_one_by_one_as_together():
    env = environment("slippery", gridworlds.cliff(slippery=True))
    step = jax.jit(env.step)
    keys = jax.random.split(jax.random.key(3), 8)
    states, _ = jax.vmap(env.reset)(keys)
    together = jax.vmap(env.step)(keys, states, jnp.arange(8) % 4)[1]
    for i in range(8):
        alone = step(keys[i], jax.tree.map(lambda x, i=i: x[i], states), jnp.int32(i % 4))[1]
        jax.tree.map(lambda many, one, i=i: np.testing.assert_array_equal(many[i], one), together, alone)
    assert step._cache_size() == 1


def test_tables_that_are_no_process_are_refused():
    mdp = gridworlds.cliff()
    with pytest.raises(UserError, match="after state 0 and action 0 sum to 2, not 1"):
        environment("cliff", mdp._replace(transition=mdp.transition * 2))
