"""Eligibility traces: how much each entry of a table has to do with the error of this moment."""

from typing import NamedTuple

import jax.numpy as jnp

from dlfx.learners.tabular.tables import add, look_up, put
from dlfx.types import Array, UserError

KINDS = ("accumulating", "replacing")


class Traced(NamedTuple):
    """A table and the trace of each of its entries, of the same shape."""

    values: Array
    traces: Array


def traced(values: Array) -> Traced:
    """The table, with all traces 0."""
    return Traced(values, jnp.zeros_like(values))


def update(memory: Traced, place: tuple[Array, ...], error: Array, step_size: Array, decay: Array, kind: str) -> Traced:
    """`e(place) += 1` (accumulating) or `= 1` (replacing), then `V += alpha delta e`, then `e *= decay`.

    Args:
      memory: the table and its traces.
      place: the index of the entry just visited.
      error: delta, [].
      step_size: alpha, [].
      decay: gamma lambda, [], or 0 where nothing before may be credited any more.
      kind: one of `KINDS`.

    Source: Sutton and Barto 2018, equations 12.5 to 12.7; replacing traces as in Singh and Sutton 1996.
    """
    one = jnp.float32(1)
    eligible = put(memory.traces, one, *place) if kind == "replacing" else add(memory.traces, one, *place)
    return Traced(memory.values + step_size * error * eligible, eligible * decay)


def decay_of(discount: Array, trace_decay: float | Array, over: Array) -> Array:
    """`gamma lambda`, and 0 at the end of an episode, so that the next one begins without traces."""
    return jnp.where(over, 0.0, discount * trace_decay)


def check(trace_decay: float | Array, kind: str) -> None:
    """Raises a UserError unless lambda is in [0, 1] and the kind is known."""
    if isinstance(trace_decay, int | float) and not 0 <= trace_decay <= 1:
        raise UserError(f"trace_decay={trace_decay:g} is no lambda; it must be between 0 and 1")
    if kind not in KINDS:
        raise UserError(f"traces are {' or '.join(KINDS)}, not {kind!r}")


def action_values(memory: Traced, state: Array) -> Array:
    """The row `[A]` of a table `[S, A]` with traces."""
    return look_up(memory.values, state)
