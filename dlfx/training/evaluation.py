"""A whole split, exactly: sums over its batches on the devices, fetched once."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from dlfx.training.mesh import AXIS, Program
from dlfx.types import Batch, State, Stream

Sums = dict[str, np.ndarray]


def evaluator(
    program: Program, sums: Callable[[State, Batch], dict[str, jax.Array]], stream: Stream, batches: int
) -> Callable[[State], Sums]:
    """Compiles the evaluation of a split.

    Args:
      program: of the learner that is evaluated.
      sums: (state of one member, batch) to named sums over the batch, `count` among them.
      stream: the split, whose filling is masked.
      batches: how many batches it has.

    Returns:
      `view(state)` to the sums over the split, with a leading axis of members for a population.
    """
    replicated, rows = NamedSharding(program.mesh, P()), NamedSharding(program.mesh, P(AXIS))

    def place(sharding: NamedSharding, x: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    def one(state: State, arrays: Any, batch: Batch) -> Any:
        batch = stream.fetch(arrays, batch)
        return jax.vmap(sums, (0, None))(state, batch) if program.population else sums(state, batch)

    def add(total: Any, state: State, arrays: Any, batch: Batch) -> Any:
        return jax.tree.map(jax.numpy.add, total, one(state, arrays, batch))

    arrays = jax.tree.map(lambda x: place(replicated, x), stream.arrays)
    accumulate = jax.jit(add, donate_argnums=0, out_shardings=replicated)
    shapes: list[Any] = []

    def evaluate(state: State) -> Sums:
        total = None
        for batch in stream.prefetch(lambda i: stream.host(0, i), range(batches)):
            batch = jax.tree.map(lambda x: place(rows, x), batch)
            if total is None:
                shapes[:] = shapes or [jax.eval_shape(one, state, arrays, batch)]
                total = jax.tree.map(lambda x: place(replicated, np.zeros(x.shape, x.dtype)), shapes[0])
            total = accumulate(total, state, arrays, batch)
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), total)

    return evaluate


def means(sums: Sums, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named sums divided by `count`."""
    return {name: sums[name] / sums["count"] for name in names}
