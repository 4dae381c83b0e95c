"""Every tabular world by its name: consistent with itself, steppable, and drawable."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs.worlds import TABULAR, world
from dlfx.types import UserError


@pytest.mark.parametrize("name", TABULAR)
def test_a_world_is_consistent_steps_and_draws(name):
    made = world(name)
    env, states = made.environment, len(made.mdp.start)
    assert made.name == env.name == name and env.num_states == states
    assert len(made.actions) == env.num_actions == made.mdp.transition.shape[1]
    if made.layout is not None:
        assert made.layout.size == states and made.arrows.shape == (env.num_actions, 2)
        kinds = made.layout.reshape(-1)
        np.testing.assert_array_equal(made.mdp.terminal, np.isin(kinds, ["G", "H", "C", "#"]))
        entered = made.mdp.transition[~made.mdp.terminal].sum((0, 1)) > 0
        assert not entered[np.isin(kinds, ["C", "#"])].any() and entered[kinds == "G"].all()
    state, first = env.reset(jax.random.key(0))
    assert made.mdp.start[first] > 0
    state, timestep = jax.jit(env.step)(jax.random.key(1), state, jnp.int32(1))
    assert made.mdp.transition[first, 1, timestep.successor] > 0
    picture = env.render(jax.tree.map(np.asarray, state))
    assert picture.dtype == np.uint8 and picture.shape[2] == 3 and 200 <= max(picture.shape[:2]) <= 400


@pytest.mark.parametrize("name", [name for name in TABULAR if name not in ("taxi", "car_rental")])
def test_every_state_has_a_picture_of_its_own(name):
    made = world(name)
    state, _ = made.environment.reset(jax.random.key(0))
    pictures = {made.environment.render(state._replace(task=np.int32(s))).tobytes() for s in range(len(made.mdp.start))}
    assert len(pictures) == len(made.mdp.start)


def test_the_arrows_point_where_the_actions_lead():
    for name in ("cliff", "dyna_maze", "frozenlake4x4_deterministic", "random_walk"):
        made = world(name)
        columns = made.layout.shape[1]
        for state in np.flatnonzero(~made.mdp.terminal):
            for action, (right, down) in enumerate(made.arrows):
                successor = made.mdp.transition[state, action].argmax()
                moved = (successor % columns - state % columns, successor // columns - state // columns)
                assert moved in ((right, down), (0, 0)) or made.mdp.reward[state, action, successor] == -100


def test_the_time_limits_are_those_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    same = {"frozenlake4x4": "FrozenLake-v1", "frozenlake8x8": "FrozenLake8x8-v1", "taxi": "Taxi-v4"}
    for name, other in (same | {"cliff": "CliffWalking-v1", "blackjack": "Blackjack-v1"}).items():
        assert world(name).environment.max_steps == (gymnasium.spec(other).max_episode_steps or 0)


def test_an_unknown_world_is_refused_with_the_closest():
    with pytest.raises(UserError, match="unknown world 'taxy'; did you mean taxi"):
        world("taxy")
