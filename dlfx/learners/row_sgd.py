"""Stochastic gradient descent on the few rows of large tables that a batch reads."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.types import Array, Batch, Key, Learner, Metrics

Rows = Mapping[str, tuple[Array, Array]]  # table to (numbers of rows [...], how many losses read each [...])


class State(NamedTuple):
    """The tables, and what a step draws on."""

    params: dict[str, Array]  # name to [rows, D]
    step: Array  # [] int32
    key: Key  # []


def row_sgd(
    init: Callable[[Key, Batch], dict[str, Array]],
    rows: Callable[[Batch], Rows],
    objective: Callable[[dict[str, Array], Batch], dict[str, Array]],
    rate: Callable[[Array], Array],
    *,
    most: float,
    axis_name: str | None = None,
) -> Learner:
    """The learner that takes, for every loss of a batch, the step that plain SGD on that loss alone would take.

    `row -= rate * min(1, most / n) * sum of its n gradients`

    A step costs as much as the batch reads, whatever the size of the tables. A batch takes its steps from one point, so
    a row that very many losses read would go too far: such a row moves by at most `most` times its mean gradient.

    Args:
      init: (key, batch) to the tables.
      rows: batch to the rows that it reads of every table.
      objective: (the rows read, `[..., D]` in the shape of their numbers, batch) to sums over the batch: `loss`, which
        is differentiated, and `count` among them.
      rate: step to the learning rate.
      most: see above; infinity for plain sums.
      axis_name: the `pmap` axis over which a batch is spread; None under `jit`.

    Returns:
      A learner with the sums as metrics, each divided by the count.
    """

    def begin(key: Key, batch: Batch) -> State:
        return State(init(key, batch), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        read = rows(batch)
        values = {name: state.params[name][index] for name, (index, _) in read.items()}

        def loss(values: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
            sums = objective(values, batch)
            return sums["loss"], sums

        (_, sums), gradient = jax.value_and_grad(loss, has_aux=True)(values)
        if axis_name is not None:
            sums = jax.lax.psum(sums, axis_name)
            read, gradient = jax.lax.all_gather((read, gradient), axis_name, tiled=True)
        params: dict[str, Any] = dict(state.params)
        for name, (index, losses) in read.items():
            table = params[name]
            times = jnp.zeros(len(table), jnp.float32).at[index].add(losses)
            scale = rate(state.step) * jnp.minimum(1, most / jnp.maximum(times, 1))
            params[name] = table.at[index].add((-scale[index][..., None] * gradient[name]).astype(table.dtype))
        metrics = {name: value / jnp.maximum(sums["count"], 1) for name, value in sums.items() if name != "count"}
        return State(params, state.step + 1, state.key), metrics

    return Learner(begin, step)
