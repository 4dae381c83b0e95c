"""How a step size or the chance of exploring changes: with time, or with the visits of a state and action."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dlfx.types import Array


class Schedule(NamedTuple):
    """A number that changes.

    Attributes:
      value: (time [] int32, the environment steps so far; visits [] float32) to [] float32.
      counts: whether visits are looked at; where nothing does, they are not counted.
    """

    value: Callable[[Array, Array], Array]
    counts: bool = False


def constant(value: float | Array) -> Schedule:
    """Always the same."""
    return Schedule(lambda time, visits: jnp.asarray(value, jnp.float32))


def linear(first: float, last: float, steps: int) -> Schedule:
    """`first + (last - first) min(t / steps, 1)`."""
    return Schedule(lambda time, visits: jnp.float32(first) + (last - first) * jnp.minimum(time / steps, 1.0))


def exponential(first: float, last: float, steps: int) -> Schedule:
    """`first (last / first)^min(t / steps, 1)`: the same factor in every step; both are above 0."""
    return Schedule(lambda time, visits: jnp.float32(first) * (last / first) ** jnp.minimum(time / steps, 1.0))


def by_visits(power: float = 1.0) -> Schedule:
    """`1 / N^power`, N the visits with the present one; with power 1 a step size that gives the sample mean.

    As a step size it converges for 1/2 < power <= 1 (Sutton and Barto 2018, equation 2.7).
    """
    return Schedule(lambda time, visits: jnp.maximum(visits, 1.0) ** -power, counts=True)
