"""Dynamic programming as a learner: one step is one sweep, or one improvement of a policy, on known tables."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dlfx.types import Array, Batch, Key, Learner, Metrics


class Memory(NamedTuple):
    """What planning has come to.

    Attributes:
      values: `[S]`.
      policy: `[S]` int32.
    """

    values: Array
    policy: Array


class State(NamedTuple):
    """Everything that planning changes, and the key, which it does not use."""

    memory: Memory
    step: Array  # [] int32
    key: Key  # []


def sweeps(sweep: Callable[[Memory], Memory], num_states: int) -> Learner:
    """The learner that repeats a sweep from values and actions of 0.

    Args:
      sweep: memory to memory; it knows the model.
      num_states: S.

    Returns:
      A learner without batches, with the metric `change`, the largest change of a value.
    """

    def init(key: Key, _: Batch) -> State:
        return State(Memory(jnp.zeros(num_states), jnp.zeros(num_states, jnp.int32)), jnp.int32(0), key)

    def step(state: State, _: Batch) -> tuple[State, Metrics]:
        memory = sweep(state.memory)
        change = jnp.abs(memory.values - state.memory.values).max()
        return State(memory, state.step + 1, state.key), {"change": change}

    return Learner(init, step)
