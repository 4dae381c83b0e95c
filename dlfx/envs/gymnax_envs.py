"""Classic control and MinAtar, their dynamics from gymnax (Lange 2022, github.com/RobertTLange/gymnax)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.envs import rendering
from dlfx.envs.episodes import episodic
from dlfx.types import Array, Environment, Key, State, UserError, unknown

Begin = Callable[[Key], tuple[State, Array]]
Dynamics = Callable[[Key, State, Array], tuple[State, Array, Array, Array]]

# Name to the steps after which an episode is truncated: those of gymnasium, and of MinAtar, where only Freeway has one.
GYMNAX = {
    "CartPole-v1": 500,
    "MountainCar-v0": 200,
    "Acrobot-v1": 500,
    "MinAtar/Asterix": 0,
    "MinAtar/Breakout": 0,
    "MinAtar/Freeway": 2500,
    "MinAtar/Seaquest": 0,
    "MinAtar/SpaceInvaders": 0,
}
CONTINUOUS = ("Pendulum-v1", "MountainCarContinuous-v0", "PointRobot-misc", "Reacher-misc", "Swimmer-misc")

# What the channels of a MinAtar observation show.
CHANNELS = {
    "MinAtar/Asterix": ("player", "enemy", "trail", "gold"),
    "MinAtar/Breakout": ("paddle", "ball", "trail", "brick"),
    "MinAtar/Freeway": ("chicken", "car", "speed 1", "speed 2", "speed 3", "speed 4", "speed 5"),
    "MinAtar/Seaquest": (
        "bow",
        "stern",
        "bullet",
        "trail",
        "enemy bullet",
        "fish",
        "enemy",
        "oxygen",
        "aboard",
        "diver",
    ),
    "MinAtar/SpaceInvaders": ("cannon", "alien", "moving left", "moving right", "bullet", "enemy bullet"),
}
PICTURES: dict[str, Callable[[Any], Any]] = {
    "CartPole-v1": lambda s: rendering.cartpole((s.x, s.x_dot, s.theta, s.theta_dot)),
    "MountainCar-v0": lambda s: rendering.mountain_car((s.position, s.velocity)),
    "Acrobot-v1": lambda s: rendering.acrobot((s.joint_angle1, s.joint_angle2, s.velocity_1, s.velocity_2)),
}
STICKINESS = 0.1  # Machado et al. 2018 have 0.25 for Atari, Young and Tian 2019 this for MinAtar


class Sticky(NamedTuple):
    """The state of a task whose actions stick: that of the task, and the action it took last."""

    task: Any
    action: Array  # [] int32


def gymnax_environment(name: str) -> Environment:
    """An environment of gymnax, under our own time limit and beginning of episodes.

    CartPole-v1, MountainCar-v0 and Acrobot-v1 are gymnasium's. Observations are float32.

    MinAtar is the original's, with these differences. An episode begins with action 0 as the last one, where the
    original keeps that of the episode before. Freeway is truncated after 2500 steps, where the original terminates
    after 2501. There are only the actions that a game knows. Actions stick with probability 0.1, which gymnax leaves
    out, and nothing vanishes in Asterix when all rows are taken, as it does in gymnax. Observations are bool
    `[10, 10, C]`, see CHANNELS. Difficulty ramps.

    Args:
      name: one of GYMNAX.

    Raises:
      UserError: the name is unknown, its actions are continuous, or gymnax is not installed.

    Source: Barto, Sutton and Anderson 1983 (the cart and pole); Sutton and Barto, 2nd ed., example 10.1 (the mountain
    car); Sutton 1996, Generalization in Reinforcement Learning (the acrobot); Young and Tian 2019, MinAtar.
    """
    if name in CONTINUOUS:
        raise UserError(f"the actions of {name!r} are continuous; those with discrete actions are {', '.join(GYMNAX)}")
    if name not in GYMNAX:
        raise unknown("environment", name, GYMNAX)
    try:
        import gymnax
    except ImportError as error:
        raise UserError(f"environment {name!r} needs gymnax: pip install gymnax") from error
    game, params = gymnax.make(f"{name.removeprefix('MinAtar/')}-MinAtar" if name in CHANNELS else name)
    begin, dynamics = _plain(game, params, jnp.bool_ if name in CHANNELS else jnp.float32)
    render = PICTURES.get(name) or (lambda s: rendering.minatar(game.get_obs(s.task, params), CHANNELS[name]))
    if name == "MinAtar/Asterix":
        dynamics = _with_own_spawning(dynamics)
    if name in CHANNELS:
        begin, dynamics = sticky(begin, dynamics, STICKINESS)
    return episodic(name, begin, dynamics, num_actions=game.num_actions, render=render, max_steps=GYMNAX[name])


def sticky(begin: Begin, dynamics: Dynamics, probability: float) -> tuple[Begin, Dynamics]:
    """A task that with some probability takes its last action again instead of the one it is given.

    Args:
      begin: key to (state, observation) of a new episode.
      dynamics: (key, state, action) to (state, observation, reward, terminated).
      probability: of taking the last action again.

    Returns:
      (begin, dynamics) of the same task, with a `Sticky` as state. The first action of an episode is preceded by 0.

    Source: Machado et al. 2018, Revisiting the Arcade Learning Environment, section 5.2.
    """

    def begin_sticky(key: Key) -> tuple[Sticky, Array]:
        state, observation = begin(key)
        return Sticky(state, jnp.int32(0)), observation

    def dynamics_sticky(key: Key, state: Sticky, action: Array) -> tuple[Sticky, Array, Array, Array]:
        stick_key, move_key = jax.random.split(key)
        action = jnp.where(jax.random.bernoulli(stick_key, probability), state.action, action).astype(jnp.int32)
        task, observation, reward, terminated = dynamics(move_key, state.task, action)
        return Sticky(task, action), observation, reward, terminated

    return begin_sticky, dynamics_sticky


def _plain(game: Any, params: Any, dtype: Any) -> tuple[Begin, Dynamics]:
    """gymnax's functions in our order, without its time limit. Observations are of that type."""
    kinds = jax.eval_shape(lambda key: game.reset_env(key, params)[1], jax.random.key(0))

    def settled(state: State) -> State:
        # A state begins with Python numbers and its flags come back as integers: a scan can carry neither.
        return jax.tree.map(lambda x, kind: jnp.asarray(x, kind.dtype), state, kinds)

    def begin(key: Key) -> tuple[State, Array]:
        observation, state = game.reset_env(key, params)
        return settled(state), observation.astype(dtype)

    def dynamics(key: Key, state: State, action: Array) -> tuple[State, Array, Array, Array]:
        observation, state, reward, terminated, _ = game.step_env(key, state, action, params)
        return settled(state), observation.astype(dtype), reward, jnp.asarray(terminated, jnp.bool_)

    return begin, dynamics


def _with_own_spawning(dynamics: Dynamics) -> Dynamics:
    """Asterix, where gymnax's spawning overwrites a row that is taken if it finds none free."""

    def spawn(key: Key, state: Any) -> Any:
        row_key, side_key, gold_key = jax.random.split(key, 3)
        free = state.entities[:, 4] == 0
        row = jnp.where(free, jax.random.uniform(row_key, (8,)), -1).argmax()
        rightward, gold = jax.random.bernoulli(side_key), jax.random.bernoulli(gold_key, 1 / 3)
        entity = jnp.stack([jnp.where(rightward, 0, 9), row + 1, rightward, gold, True])
        due = state.spawn_timer == 0
        entities = jnp.where(due & free.any(), state.entities.at[row].set(entity), state.entities)
        return state.replace(entities=entities, spawn_timer=jnp.where(due, state.spawn_speed, state.spawn_timer))

    def dynamics_with_spawning(key: Key, state: State, action: Array) -> tuple[State, Array, Array, Array]:
        spawn_key, move_key = jax.random.split(key)
        return dynamics(move_key, spawn(spawn_key, state), action)  # where the timer is at 0 no more

    return dynamics_with_spawning
