"""From the dynamics of a task to an environment: time limits, and the start of a new episode where one ends."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.types import Array, Environment, Key, State, Timestep


class Clocked(NamedTuple):
    """The state of a task and the number of steps of its episode so far."""

    task: Any
    time: Array  # [] int32


def episodic(
    name: str,
    begin: Callable[[Key], tuple[State, Array]],
    dynamics: Callable[[Key, State, Array], tuple[State, Array, Array, Array]],
    *,
    num_actions: int,
    render: Callable[[State], Any],
    num_states: int = 0,
    max_steps: int = 0,
) -> Environment:
    """An environment that begins a new episode in the very step that ends one.

    Args:
      name: what `--env` calls it.
      begin: key to (state, observation) of a new episode.
      dynamics: (key, state, action) to (state, observation, reward, terminated), without any limit of time.
      num_actions: how many actions there are.
      render: a state of the task, as NumPy arrays, to a picture `[H, W, 3]` uint8.
      num_states: the number of states where observations are state numbers.
      max_steps: after so many steps an episode is truncated, unless it terminates in that very step; 0: never.
    """
    _, observed = jax.eval_shape(begin, jax.random.key(0))

    def reset(key: Key) -> tuple[Clocked, Array]:
        state, observation = begin(key)
        return Clocked(state, jnp.int32(0)), observation

    def step(key: Key, state: Clocked, action: Array) -> tuple[Clocked, Timestep]:
        move_key, begin_key = jax.random.split(key)
        task, successor, reward, terminated = dynamics(move_key, state.task, action)
        time = state.time + 1
        truncated = ~terminated & (time >= max_steps) if max_steps else jnp.zeros_like(terminated)
        over = terminated | truncated
        fresh, first = reset(begin_key)
        following, observation = jax.tree.map(
            lambda new, old: jnp.where(over, new, old), (fresh, first), (Clocked(task, time), successor)
        )
        return following, Timestep(observation, successor, jnp.float32(reward), terminated, truncated)

    return Environment(
        name,
        reset,
        step,
        jax.ShapeDtypeStruct(observed.shape, observed.dtype),
        num_actions,
        num_states,
        max_steps,
        lambda state: render(state.task),
    )
