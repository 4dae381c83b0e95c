"""The last n steps, waiting for their n-step returns: what n-step TD and n-step SARSA share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.interaction import Transition
from dlfx.learners.tabular.tables import add, look_up, put
from dlfx.types import Array, UserError


class Waiting(NamedTuple):
    """A flat table of values, and the steps that are not updated yet, in a ring of n places.

    Attributes:
      values: `[K]`.
      place: `[n]` int32, which value is to be updated.
      step_size: `[n]`, alpha at the time of the visit.
      gathered: `[n]`, the discounted rewards since.
      weight: `[n]`, the discount of what comes next, gamma to the power of the steps since; 0 once terminated.
      age: [] int32, steps of the episode so far.
    """

    values: Array
    place: Array
    step_size: Array
    gathered: Array
    weight: Array
    age: Array


def waiting(values: Array, n: int) -> Waiting:
    """Nothing waits yet.

    Raises:
      UserError: if n is below 1.
    """
    if n < 1:
        raise UserError(f"n={n} steps are no return; n must be at least 1")
    zeros = jnp.zeros(n, jnp.float32)
    return Waiting(values, jnp.zeros(n, jnp.int32), zeros, zeros, zeros, jnp.int32(0))


def update(memory: Waiting, transition: Transition, place: Array, following: Array) -> tuple[Waiting, Array]:
    """Takes in a step; updates the value of n steps ago, and at the end of an episode those of all that still wait.

    `V(S_t) += alpha (R_t+1 + gamma R_t+2 + ... + gamma^n V(S_t+n) - V(S_t))`, with fewer rewards near the end, and no
    value where the episode terminated.

    Args:
      memory: see `Waiting`.
      transition: the experience.
      place: [] int32, the entry of the table that this step is about.
      following: [] int32, the entry whose value stands for everything after this step.

    Returns:
      (memory, the first error of this step [], 0 if nothing was updated).
    """
    n = len(memory.place)
    slot = memory.age % n
    gathered = put(memory.gathered, jnp.float32(0), slot)
    weight = put(memory.weight, jnp.float32(1), slot)
    gathered = gathered + weight * transition.reward
    weight = weight * transition.discount
    places, step_sizes = put(memory.place, place, slot), put(memory.step_size, transition.step_size, slot)
    age = memory.age + 1
    present = jnp.minimum(age, n)

    def settle(i: Array | int, values: Array) -> tuple[Array, Array]:
        which = (age - present + i) % n  # the oldest first
        value = look_up(gathered, which) + look_up(weight, which) * look_up(values, following)
        error = value - look_up(values, look_up(places, which))
        return add(values, look_up(step_sizes, which) * error, look_up(places, which)), error

    due = jnp.where(transition.over, present, (age >= n).astype(jnp.int32))
    _, error = settle(0, memory.values)
    values = jax.lax.fori_loop(0, due, lambda i, values: settle(i, values)[0], memory.values)
    age = jnp.where(transition.over, 0, age)
    return Waiting(values, places, step_sizes, gathered, weight, age), jnp.where(due > 0, error, 0.0)
