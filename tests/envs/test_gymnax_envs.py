"""Classic control is gymnasium's step by step, and MinAtar keeps the rules of Young and Tian 2019."""

import functools
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dlfx.envs.episodes import Clocked
from dlfx.envs.gymnax_envs import CHANNELS, GYMNAX, Sticky, gymnax_environment, sticky
from dlfx.types import UserError

COUNT = 256  # as many everywhere, so that a game is compiled once
FIELDS = {
    "CartPole-v1": ("x", "x_dot", "theta", "theta_dot"),
    "MountainCar-v0": ("position", "velocity"),
    "Acrobot-v1": ("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
}
LIMITS = {  # of the states a test begins in: all that an episode can be in before it ends
    "CartPole-v1": [(-2.4, 2.4), (-4, 4), (-0.2094, 0.2094), (-4, 4)],
    "MountainCar-v0": [(-1.2, 0.55), (-0.07, 0.07)],
    "Acrobot-v1": [(-np.pi, np.pi), (-np.pi, np.pi), (-4 * np.pi, 4 * np.pi), (-9 * np.pi, 9 * np.pi)],
}


@functools.cache
def made(name):
    return gymnax_environment(name)


@functools.cache
def stepper(name):
    """A compiled step of many at once. To compile is what takes the time here: so not for speed."""
    return jax.jit(jax.vmap(made(name).step), compiler_options={"xla_backend_optimization_level": 0})


def start(name, **changes):
    """A state of that environment with these fields of its task."""
    state, _ = made(name).reset(jax.random.key(0))
    inner = state.task.task if name in CHANNELS else state.task
    inner = inner.replace(**{k: jnp.asarray(v, getattr(inner, k).dtype) for k, v in changes.items()})
    return state._replace(task=state.task._replace(task=inner) if name in CHANNELS else inner)


def many(tree, count):
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), tree)


def keys(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def take(name, state, action):
    """One step of COUNT copies of a state, each with its own key."""
    state, then = stepper(name)(keys(COUNT), many(state, COUNT), jnp.full(COUNT, action, jnp.int32))
    return jax.device_get(state.task.task if name in CHANNELS else state.task), jax.device_get(then)


# float32 after a fourth-order step with up to 28 radians a second; in float64 they agree to 1e-11.
TOLERANCE = {"CartPole-v1": 1e-6, "MountainCar-v0": 1e-6, "Acrobot-v1": 2e-3}


def random_states(name, count):
    low, high = np.array(LIMITS[name]).T
    states = np.random.default_rng(0).uniform(low, high, (count, len(low)))
    edge = count // 5  # some where a limit is about to be crossed
    if name == "MountainCar-v0":
        states[:edge, 0] = -1.2 + 0.02 * np.linspace(0, 1, edge)
        states[edge : 2 * edge, 0] = 0.45 + 0.1 * np.linspace(0, 1, edge)
    if name == "CartPole-v1":
        states[:edge, 2] = np.linspace(-0.2094, 0.2094, edge)
        states[edge : 2 * edge, 0] = np.sign(states[edge : 2 * edge, 0]) * 2.39
    return states.astype(np.float32)


@pytest.mark.parametrize("name", FIELDS)
def test_a_step_is_that_of_gymnasium_from_any_state(name):
    states, env, theirs = random_states(name, COUNT), made(name), gymnasium.make(name).unwrapped
    actions = np.random.default_rng(1).integers(0, env.num_actions, len(states))
    batch = many(env.reset(jax.random.key(0))[0], len(states))
    batch = batch._replace(task=batch.task.replace(**dict(zip(FIELDS[name], jnp.array(states.T), strict=True))))
    _, then = jax.device_get(stepper(name)(keys(len(states)), batch, jnp.array(actions)))
    theirs.reset(seed=0)
    ended = 0
    for i, (state, action) in enumerate(zip(states, actions, strict=True)):
        theirs.state, theirs.steps_beyond_terminated = state.astype(np.float64), None
        observation, reward, terminated, _, _ = theirs.step(int(action))
        np.testing.assert_allclose(then.successor[i], observation, rtol=1e-6, atol=TOLERANCE[name])
        assert (then.reward[i], then.terminated[i]) == (reward, terminated), (state, action)
        ended += terminated
    assert 10 < ended < COUNT - 10 and not then.truncated.any()


@pytest.mark.parametrize(
    ("name", "policy", "end"),
    [
        ("CartPole-v1", lambda o: int(o[2] + o[3] > 0), "truncated"),
        ("CartPole-v1", lambda o: int(o[2] + o[3] < 0), "terminated"),
        ("MountainCar-v0", lambda o: 1, "truncated"),
        ("MountainCar-v0", lambda o: 2 * int(o[1] >= 0), "terminated"),
    ],
)
def test_an_episode_ends_when_that_of_gymnasium_does(name, policy, end):
    beginning, theirs = [0.01, -0.02, 0.03, 0.04] if name == "CartPole-v1" else [-0.5, 0], gymnasium.make(name)
    theirs.reset(seed=0)
    theirs.unwrapped.state = np.array(beginning)
    observation, over, step = np.float32(beginning), False, jax.jit(made(name).step)
    state = start(name)
    while not over:
        # From their state, as small differences grow in a task that is not stable. The time is our own.
        state = state._replace(task=state.task.replace(**dict(zip(FIELDS[name], observation, strict=True))))
        action = policy(observation)
        state, then = jax.device_get(step(jax.random.key(state.time), state, action))
        observation, reward, terminated, truncated, _ = theirs.step(action)
        over = terminated or truncated
        np.testing.assert_allclose(then.successor, observation, rtol=1e-5, atol=1e-5)
        assert (then.reward, then.terminated, then.truncated) == (reward, terminated, truncated)
    assert getattr(then, end) and state.time == 0
    assert (then.observation != then.successor).any()  # of the episode that began


@pytest.mark.parametrize("name", FIELDS)
def test_episodes_begin_as_those_of_gymnasium(name):
    ours = np.asarray(jax.vmap(lambda key: made(name).reset(key)[1])(keys(1000)))
    theirs = gymnasium.make(name).unwrapped
    drawn = np.array([theirs.reset(seed=seed)[0] for seed in range(1000)])
    for column in range(ours.shape[1]):
        assert stats.ks_2samp(ours[:, column], drawn[:, column]).pvalue > 1e-3


@pytest.mark.parametrize("name", CHANNELS)
def test_a_game_shows_what_its_rules_allow(name):
    env, steps = made(name), []
    state, observation = jax.vmap(env.reset)(keys(COUNT))
    length = 10 if name == "MinAtar/Seaquest" else 30  # it takes as long as all others together
    for step in range(length):
        before = observation
        actions = jax.random.randint(jax.random.key(step), (COUNT,), 0, env.num_actions)
        state, then = stepper(name)(keys(COUNT, step), state, actions)
        observation = then.observation
        steps.append((before, then))
    before, then = jax.device_get(jax.tree.map(lambda *x: jnp.stack(x), *steps))
    assert then.observation.shape == (length, COUNT, 10, 10, len(CHANNELS[name])) and then.observation.dtype == bool
    assert env.observation.shape == then.observation.shape[2:] and env.observation.dtype == bool
    assert len(np.unique(then.observation.reshape(-1, env.observation.size), axis=0)) > 100
    cells = then.successor.sum((2, 3))  # of each channel
    over = then.terminated | then.truncated
    assert (cells[..., 0] == 1)[~over].all()  # the player is in one place
    np.testing.assert_array_equal(then.observation[~over], then.successor[~over])
    assert (then.reward >= 0).all() and not then.truncated.any()
    if name == "MinAtar/Freeway":
        assert not over.any() and then.observation[..., 4, 0].sum() == 30 * COUNT
        assert (cells[..., 1] == 8).all() and (cells[..., 2:].sum(-1) == 8).all()
        return
    assert over.any() and (then.reward.any() or name == "MinAtar/Seaquest")
    if name == "MinAtar/Breakout":
        np.testing.assert_array_equal(before.sum((2, 3))[..., 3] - cells[..., 3], then.reward)
        assert set(np.unique(then.reward)) == {0, 1}
    if name == "MinAtar/SpaceInvaders":
        np.testing.assert_array_equal(before.sum((2, 3))[..., 1] - cells[..., 1], then.reward)
        np.testing.assert_array_equal(cells[..., 2] + cells[..., 3], cells[..., 1])


def test_the_ball_of_breakout_goes_its_way():
    """Down the diagonal onto the paddle, back by the same way, and into the lowest row of bricks."""
    state = many(start("MinAtar/Breakout", ball_x=0, last_x=0, ball_dir=2, pos=6), COUNT)
    seen = []
    for step in range(11):
        state, then = jax.device_get(stepper("MinAtar/Breakout")(keys(COUNT, step), state, jnp.zeros(COUNT, jnp.int32)))
        seen.append((*np.argwhere(then.observation[0, :, :, 1])[0], then.reward[0]))
    down = [(4, 1, 0), (5, 2, 0), (6, 3, 0), (7, 4, 0), (8, 5, 0)]
    assert seen == down + [(8, 6, 0), (7, 5, 0), (6, 4, 0), (5, 3, 0), (4, 2, 0), (4, 1, 1)]
    assert not then.observation[0, 3, 1, 3] and then.observation[0, :, :, 3].sum() == 29


def test_the_ball_of_breakout_is_lost_beside_the_paddle():
    state = start("MinAtar/Breakout", ball_y=8, ball_x=5, ball_dir=2, pos=8)
    assert take("MinAtar/Breakout", state, 0)[1].terminated.any()


@pytest.mark.parametrize(
    ("name", "changes", "action", "reward", "after"),
    [
        ("Asterix", {"entities": [[4, 5, 1, 1, 1]] + [[0] * 5] * 7}, 1, 1, {}),  # onto gold
        ("Asterix", {"ramp_timer": -1}, 0, 0, {"spawn_speed": 9, "move_speed": 5}),
        ("Asterix", {"ramp_timer": -1, "ramp_index": 1}, 0, 0, {"spawn_speed": 9, "move_speed": 4}),
        ("Freeway", {"pos": 1, "move_timer": 0}, 1, 1, {"pos": 9, "move_timer": 2}),
        ("Freeway", {"pos": 1, "move_timer": 1}, 1, 0, {"pos": 1, "move_timer": 0}),  # moves every third step alone
        ("Seaquest", {"sub_y": 1, "diver_count": 6, "surface": False}, 2, 10, {"e_spawn_speed": 19}),
        ("Seaquest", {"sub_y": 1, "diver_count": 6, "surface": False, "oxygen": 59}, 2, 2, {"oxygen": 200}),
        ("Seaquest", {"sub_y": 1, "diver_count": 3, "surface": False}, 2, 0, {"diver_count": 2, "oxygen": 200}),
        (
            "SpaceInvaders",  # the last of a wave is shot: the next one is faster
            {"alien_map": np.eye(10)[[5]].T * np.eye(10)[5], "f_bullet_map": np.eye(10)[[6]].T * np.eye(10)[5]},
            0,
            1,
            {"enemy_move_interval": 11, "ramp_index": 1},
        ),
    ],
)
def test_rewards_and_ramping_are_those_of_the_rules(name, changes, action, reward, after):
    name = f"MinAtar/{name}"
    state = start(name, **changes)
    state = state._replace(task=state.task._replace(action=jnp.int32(action)))  # so that it cannot stick to another
    task, then = take(name, state, action)
    assert (then.reward == reward).all() and not then.terminated.any()
    for field, value in after.items():
        assert (getattr(task, field) == value).all(), field


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("Asterix", {"entities": [[5, 5, 1, 0, 1]] + [[0] * 5] * 7}),
        ("Seaquest", {"sub_y": 0, "surface": False}),
        ("Seaquest", {"sub_y": 3, "oxygen": 0}),
        ("SpaceInvaders", {"e_bullet_map": np.eye(10)[[8]].T * np.eye(10)[5]}),
    ],
)
def test_what_ends_a_game_terminates_it(name, changes):
    _, then = take(f"MinAtar/{name}", start(f"MinAtar/{name}", **changes), 0)
    assert then.terminated.all() and not then.truncated.any()


def test_actions_stick_with_their_probability_to_the_last_one():
    def begin(key):
        return jnp.float32(0), jnp.int32(0)

    begin, dynamics = sticky(begin, lambda key, state, action: (state, action, jnp.float32(0), False), 0.3)
    state, _ = begin(jax.random.key(0))
    after, taken, _, _ = jax.vmap(dynamics, (0, None, None))(keys(4000), state._replace(action=jnp.int32(2)), 5)
    np.testing.assert_array_equal(after.action, taken)
    assert set(np.unique(taken)) == {2, 5} and state.action == 0
    assert stats.binomtest(int((taken == 2).sum()), 4000, 0.3).pvalue > 1e-3


@pytest.mark.parametrize(("name", "field", "moved"), [("Breakout", "pos", 5), ("SpaceInvaders", "pos", 6)])
def test_a_tenth_of_the_actions_of_a_game_stick(name, field, moved):
    task, _ = take(f"MinAtar/{name}", start(f"MinAtar/{name}"), 2)
    assert stats.binomtest(int((getattr(task, field) == moved).sum()), COUNT, 0.9).pvalue > 1e-3


def test_asterix_spawns_as_its_rules_say():
    task, _ = take("MinAtar/Asterix", start("MinAtar/Asterix", spawn_timer=0, player_y=1, player_x=5), 0)
    assert (task.entities[..., 4].sum(1) == 1).all() and (task.spawn_timer == 9).all()
    x, y, rightward, gold, _ = task.entities.sum(1).T
    np.testing.assert_array_equal(x, np.where(rightward, 0, 9))
    assert stats.chisquare(np.bincount(y, minlength=9)[1:]).pvalue > 1e-3
    assert stats.binomtest(int(rightward.sum()), COUNT, 1 / 2).pvalue > 1e-3
    assert stats.binomtest(int(gold.sum()), COUNT, 1 / 3).pvalue > 1e-3


@pytest.mark.parametrize("taken", [7, 8])
def test_spawning_in_asterix_takes_a_free_row_or_none(taken):
    entities = np.array([[3, row + 1, 1, 0, row < taken] for row in range(8)]) * (np.arange(8) < taken)[:, None]
    task, _ = take("MinAtar/Asterix", start("MinAtar/Asterix", spawn_timer=0, entities=entities, player_x=9), 0)
    np.testing.assert_array_equal(task.entities[:, :taken], np.broadcast_to(entities[:taken], (COUNT, taken, 5)))
    assert task.entities[..., 4].all()


@pytest.mark.parametrize("name", GYMNAX)
def test_only_our_limit_of_time_cuts_an_episode(name):
    limit = {"CartPole-v1": 500, "MountainCar-v0": 200, "Acrobot-v1": 500, "MinAtar/Freeway": 2500}.get(name, 0)
    assert made(name).max_steps == limit
    for time in (limit - 2, limit - 1) if limit else (10_000,):
        state = start(name, time=time)._replace(time=jnp.int32(time))
        _, then = take(name, state, 0)
        assert not then.terminated.any() and (then.truncated == (time == limit - 1)).all()


@pytest.mark.parametrize("name", GYMNAX)
def test_a_step_keeps_the_types_of_a_state_and_is_drawn(name):
    env = made(name)
    state, observation = env.reset(jax.random.key(0))
    assert isinstance(state, Clocked) and isinstance(state.task, Sticky) == (name in CHANNELS)
    following, then = jax.eval_shape(env.step, jax.random.key(0), state, jnp.int32(0))
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (state, observation))
    assert kinds == jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), (following, then.observation))
    assert (then.reward.dtype, then.terminated.dtype, then.truncated.dtype) == (jnp.float32, bool, bool)
    picture = env.render(jax.device_get(state))
    assert picture.dtype == np.uint8 and picture.shape[-1] == 3 and len(np.unique(picture)) > 2


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("CartPole-v2", "did you mean CartPole-v1"),
        ("MinAtar/Brekout", "did you mean MinAtar/Breakout"),
        ("Pendulum-v1", "the actions of 'Pendulum-v1' are continuous"),
        ("MountainCarContinuous-v0", "the actions of 'MountainCarContinuous-v0' are continuous"),
    ],
)
def test_a_name_that_will_not_do_is_named(name, named):
    with pytest.raises(UserError, match=named):
        gymnax_environment(name)


def test_without_gymnax_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnax", None)
    with pytest.raises(UserError, match="'CartPole-v1' needs gymnax: pip install gymnax"):
        gymnax_environment("CartPole-v1")
