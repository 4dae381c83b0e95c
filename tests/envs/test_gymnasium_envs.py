"""Gymnasium's environments as pure functions: what its own loop gives, and the same bits with no instance alive."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from dlfx.envs.gymnasium_envs import KEPT, Played, gymnasium_environment
from dlfx.types import UserError

IDS = ("CartPole-v1", "FrozenLake-v1", "MountainCar-v0", "CliffWalking-v1")


class Walk(gymnasium.Env):
    """Counts steps, in float64 and away from zero; terminated at `end`, cut at `cut`."""

    metadata = {"render_modes": []}

    def __init__(self, seen=None, acts=None, end=5, cut=1000):
        self.observation_space = seen or Box(-9.0, 9.0, (2,), np.float64)
        self.action_space = acts or Discrete(3, start=-1)
        self.end, self.cut = end, cut

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time, self.noise = 0, self.np_random.random()
        return self._seen(0), {}

    def step(self, action):
        assert action in self.action_space
        self.time += 1
        return self._seen(action), float(action), self.time == self.end, self.time == self.cut, {}

    def _seen(self, action):
        if isinstance(self.observation_space, Discrete):
            return self.observation_space.start + self.time
        return np.array([action, self.noise]).astype(self.observation_space.dtype)


@pytest.fixture
def register():
    def add(name, *, max_episode_steps=None, entry_point=Walk, **options):
        gymnasium.register(name, entry_point, max_episode_steps=max_episode_steps, kwargs=options)
        return name

    before = dict(gymnasium.registry)
    yield add
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def rollout(env, key, actions):
    """One episode after another, under scan: the final state, and (state before, timestep) of each step."""
    reset_key, key = jax.random.split(key)

    def body(state, inputs):
        action, step_key = inputs
        following, timestep = env.step(step_key, state, action)
        return following, (state, timestep)

    begun, first = env.reset(reset_key)
    final, steps = jax.lax.scan(body, begun, (actions, jax.random.split(key, len(actions))))
    return final, first, steps


play = jax.jit(rollout, static_argnums=0)


def loop(id, seeds, actions, **options):
    """The same in gymnasium; the seeds are those that the episodes began with."""
    instance = gymnasium.make(id, **options)
    seeds = iter(seeds)
    observation, _ = instance.reset(seed=next(seeds))
    first, steps = observation, []
    for action in actions:
        successor, reward, terminated, truncated, _ = instance.step(int(action))
        over = terminated or truncated
        observation = instance.reset(seed=next(seeds))[0] if over else successor
        steps.append((observation, successor, reward, terminated, truncated and not terminated))
    instance.close()
    return first, steps


def seeds_of(final, steps):
    """The seeds of the episodes, in order: each is in the state when its time is 0."""
    seeds, times = (np.append(a, b) for a, b in ((steps[0].seed, final.seed), (steps[0].time, final.time)))
    return seeds[times == 0].tolist()


def same(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("id", IDS)
def test_a_trajectory_is_that_of_gymnasiums_own_loop(id):
    env = gymnasium_environment(id)
    actions = np.random.default_rng(0).integers(0, env.num_actions, 450)
    final, first, steps = play(env, jax.random.key(3), jnp.int32(actions))
    seeds = seeds_of(final, steps)
    expected_first, expected = loop(id, seeds, actions)
    np.testing.assert_array_equal(first, expected_first)
    for got, wanted in zip(steps[1], zip(*expected, strict=True), strict=True):
        np.testing.assert_array_equal(got, np.array(wanted, got.dtype))
    if id != "CliffWalking-v1":
        assert len(seeds) > 2 and len(set(seeds)) == len(seeds)


def balance(observation):
    return jnp.int32(3 * observation[2] + observation[3] > 0)


def test_cartpole_is_truncated_at_500_and_goes_on_with_a_new_episode():
    env = gymnasium_environment("CartPole-v1")
    assert (env.max_steps, env.num_actions, env.num_states) == (500, 2, 0)

    def body(carry, key):
        state, observation = carry
        action = balance(observation)
        state, timestep = env.step(key, state, action)
        return (state, timestep.observation), (timestep, action, state.time)

    keys = jax.random.split(jax.random.key(1), 501)
    state, observation = env.reset(keys[0])
    _, (timestep, actions, time) = jax.lax.scan(body, (state, observation), keys)
    assert timestep.truncated.nonzero()[0].tolist() == [499] and not timestep.terminated.any()
    assert time[498:].tolist() == [499, 0, 1]
    _, expected = loop("CartPole-v1", [int(state.seed), 0], actions[:500])
    np.testing.assert_array_equal(timestep.successor[499], expected[499][1])
    assert abs(timestep.observation[499]).max() <= 0.05 < abs(timestep.successor[499]).max()


def test_mountain_car_is_truncated_at_200():
    env = gymnasium_environment("MountainCar-v0")
    *_, steps = play(env, jax.random.key(0), jnp.ones(401, jnp.int32))
    assert steps[1].truncated.nonzero()[0].tolist() == [199, 399] and not steps[1].terminated.any()


def test_an_end_at_the_limit_is_terminated_alone(register):
    env = gymnasium_environment(register("Walk-v0", max_episode_steps=5))
    *_, steps = play(env, jax.random.key(0), jnp.ones(5, jnp.int32))
    assert steps[1].terminated.tolist() == [False] * 4 + [True] and not steps[1].truncated.any()


def test_what_the_environment_cuts_itself_is_truncated(register):
    env = gymnasium_environment(register("Walk-v0", cut=3))
    *_, steps = play(env, jax.random.key(0), jnp.ones(4, jnp.int32))
    assert steps[1].truncated.tolist() == [False, False, True, False] and env.max_steps == 10_000


def test_states_and_actions_count_from_0_and_64_bits_become_32(register):
    env = gymnasium_environment(register("Walk-v0"))
    assert env.observation == jax.ShapeDtypeStruct((2,), jnp.float32) and env.num_actions == 3
    final, first, steps = play(env, jax.random.key(0), jnp.array([0, 1, 2]))
    noise = np.random.Generator(np.random.PCG64(int(final.seed))).random()
    np.testing.assert_array_equal(steps[1].successor, np.float32([[-1, noise], [0, noise], [1, noise]]))
    assert steps[1].reward.tolist() == [-1, 0, 1] and steps[1].reward.dtype == jnp.float32
    env = gymnasium_environment(register("Count-v0", seen=Discrete(6, start=7)))
    assert (env.num_states, env.observation) == (6, jax.ShapeDtypeStruct((), jnp.int32))
    assert play(env, jax.random.key(0), jnp.array([0, 1, 2]))[2][1].successor.tolist() == [1, 2, 3]


def test_pictures_stay_bytes(register):
    env = gymnasium_environment(register("Walk-v0", seen=Box(0, 255, (2,), np.uint8)))
    assert env.reset(jax.random.key(0))[1].dtype == env.observation.dtype == jnp.uint8


@pytest.mark.parametrize("id", ["CartPole-v1", "FrozenLake-v1"])
def test_members_under_vmap_are_each_alone_and_a_step_is_one_call(id):
    env = gymnasium_environment(id)
    keys = jax.random.split(jax.random.key(5), 3)
    actions = jax.random.randint(jax.random.key(6), (3, 60), 0, env.num_actions)
    together = jax.jit(jax.vmap(rollout, (None, 0, 0)), static_argnums=0)(env, keys, actions)
    for i in range(3):
        same(jax.tree.map(lambda x, i=i: x[i], together), play(env, keys[i], actions[i]))
    assert len(set(np.ravel(together[2][0].seed).tolist())) > 3  # with new episodes on the way
    state = jax.tree.map(lambda x: x[:, 50], together[2][0])
    program = jax.make_jaxpr(jax.vmap(env.step))(keys, state, actions[:, 0])
    assert str(program).count("pure_callback[") == 1 and "scan[" not in str(program)
    again = gymnasium_environment(id)
    nested = jax.vmap(jax.vmap(again.step))(*jax.tree.map(lambda x: x[None], (keys, state, actions[:, 50])))[1]
    same(nested.successor[0], together[2][1].successor[:, 50])


@pytest.mark.parametrize("id", IDS)
def test_a_state_goes_on_to_the_same_bits_where_no_instance_is_alive(id):
    env = gymnasium_environment(id)
    states, timesteps = play(env, jax.random.key(2), jnp.arange(150) % env.num_actions)[2]
    keys = jax.random.split(jax.random.split(jax.random.key(2))[1], 150)
    chosen = np.array([0, 1, 7, 60, 148])
    saved = jax.tree.map(lambda x: np.asarray(x[chosen]), states)
    other = gymnasium_environment(id)  # as in another process: nothing is alive there
    following, timestep = jax.vmap(other.step)(keys[chosen], saved, jnp.int32(chosen % env.num_actions))
    same(timestep, jax.tree.map(lambda x: x[chosen], timesteps))
    same(following, jax.tree.map(lambda x: x[chosen + 1], states))


def test_one_state_can_be_left_twice_by_two_actions():
    env = gymnasium_environment("CartPole-v1")
    state = play(env, jax.random.key(0), jnp.array([0, 1, 0]))[0]
    branches = [env.step(jax.random.key(9), state, jnp.int32(action))[0] for action in (0, 1)]
    for action in (0, 1):
        _, timestep = env.step(jax.random.key(9), branches[action], jnp.int32(0))
        _, expected = loop("CartPole-v1", [int(state.seed)], [0, 1, 0, action, 0])
        np.testing.assert_array_equal(timestep.successor, expected[-1][1])


def test_instances_are_few_and_closed_when_dropped(register):
    alive = []

    class Counted(Walk):
        def __init__(self):
            super().__init__()
            alive.append(self)

        def close(self):
            alive.remove(self)

    env = gymnasium_environment(register("Walk-v0", entry_point=Counted))
    assert not alive
    reset = jax.jit(env.reset)
    states = [reset(jax.random.key(i))[0] for i in range(KEPT + 20)]
    assert len(alive) == KEPT
    for state in (states[0], states[-1]):  # the first was dropped
        following, timestep = env.step(jax.random.key(0), state, jnp.int32(2))
        noise = np.random.Generator(np.random.PCG64(int(state.seed))).random()
        np.testing.assert_array_equal(timestep.successor, np.float32([1, noise]))
    assert len(alive) == KEPT
    newest = alive[-1]
    for _ in range(30):  # episodes of five steps
        following, _ = env.step(jax.random.key(1), following, jnp.int32(2))
    assert len(alive) == KEPT and alive[-1] is newest  # it was reset, none was made
    for i in range(3):
        jax.vmap(env.reset)(jax.random.split(jax.random.key(i), KEPT))
    assert len(alive) == 2 * KEPT


def test_the_log_of_the_episode_is_in_the_state():
    env = gymnasium_environment("MountainCar-v0")
    actions = jnp.arange(203) % 3
    final, *_ = play(env, jax.random.key(0), actions)
    assert isinstance(final, Played) and final.time == 3 and final.actions.shape == (200,)
    assert final.actions[:3].tolist() == actions[200:].tolist()


def test_lunar_lander_goes_on_to_the_same_bits():
    pytest.importorskip("Box2D")
    env = gymnasium_environment("LunarLander-v3")
    actions = np.random.default_rng(1).integers(0, 4, 200)
    final, _, (states, timesteps) = play(env, jax.random.key(0), jnp.int32(actions))
    seeds = seeds_of(final, (states, timesteps))
    assert len(seeds) > 1
    np.testing.assert_array_equal(timesteps.successor, [step[1] for step in loop("LunarLander-v3", seeds, actions)[1]])
    saved = jax.tree.map(lambda x: np.asarray(x[180]), states)
    _, timestep = gymnasium_environment("LunarLander-v3").step(jax.random.key(0), saved, jnp.int32(actions[180]))
    np.testing.assert_array_equal(timestep.successor, timesteps.successor[180])


def test_render_draws_the_state_it_is_given():
    pytest.importorskip("pygame")
    env = gymnasium_environment("CartPole-v1")
    final, *_ = play(env, jax.random.key(0), jnp.array([1, 1, 1]))
    instance = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    instance.reset(seed=int(final.seed))
    for _ in range(3):
        instance.step(1)
    np.testing.assert_array_equal(env.render(jax.tree.map(np.asarray, final)), instance.render())
    instance.close()


def test_render_writes_the_observation_where_nothing_can_draw_it(register, monkeypatch):
    plain = gymnasium_environment(register("Walk-v0"))
    pictures = [plain.render(play(plain, jax.random.key(0), jnp.array(a))[0]) for a in ([0, 0], [0, 2], [0, 0])]
    assert pictures[0].shape[2] == 3 and pictures[0].dtype == np.uint8
    assert (pictures[0] == pictures[2]).all() and (pictures[0] != pictures[1]).any()
    monkeypatch.setitem(__import__("sys").modules, "pygame", None)
    env = gymnasium_environment("CartPole-v1")
    assert env.render(env.reset(jax.random.key(0))[0]).shape == pictures[0].shape


@pytest.mark.parametrize(
    ("id", "named"),
    [
        ("LunarLander-v2", "LunarLander-v3"),
        ("CartPol-v1", "CartPole-v1"),
        ("Nothing/Such-v0", "the closest are"),
        ("bad id", "'bad id'"),
        ("no_such_package:Game-v0", "no_such_package"),
        ("Pendulum-v1", "discrete actions"),
        ("Blackjack-v1", "Tuple(Discrete(32)"),
        ("phys2d/CartPole-v1", "written in JAX"),
    ],
)
def test_a_bad_id_is_named_with_what_is_allowed(id, named):
    with pytest.raises(UserError) as error:
        gymnasium_environment(id)
    assert id in str(error.value) and named in str(error.value) and "\n" not in str(error.value)


def test_spaces_that_are_not_handled_are_named(register):
    with pytest.raises(UserError, match="MultiDiscrete"):
        gymnasium_environment(register("Walk-v0", acts=MultiDiscrete([2, 2])))
    with pytest.raises(UserError, match="allowed are a Box and Discrete"):
        gymnasium_environment(register("Walk-v1", seen=Dict({"a": Discrete(2)})))


def test_what_is_not_installed_is_named(register):
    def missing():
        raise gymnasium.error.DependencyNotInstalled("Walking is not installed, run `pip install walking`")

    with pytest.raises(UserError, match="pip install walking"):
        gymnasium_environment(register("Walk-v0", entry_point=missing))
