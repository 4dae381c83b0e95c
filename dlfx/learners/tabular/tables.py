"""Reading and writing single entries of a table, and reductions over the few actions of a state.

Under `vmap` over thousands of members these are what a step costs. Indices are promised to be in bounds, and sums and
maxima over actions are written out, as XLA on a CPU would otherwise call a routine for rows of four numbers.
"""

import functools

import jax
import jax.numpy as jnp

from dlfx.types import Array


def look_up(table: Array, *index: Array) -> Array:
    """`table[index]`, for indices in bounds: an entry, or a row if there are fewer indices than axes."""
    return table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def put(table: Array, value: Array, *index: Array) -> Array:
    """The table with `value` at `index`, which is in bounds."""
    return table.at[index].set(value, mode="promise_in_bounds", wrap_negative_indices=False)


def add(table: Array, value: Array, *index: Array) -> Array:
    """The table with `value` added at `index`, which is in bounds."""
    return table.at[index].add(value, mode="promise_in_bounds", wrap_negative_indices=False)


def entries(row: Array) -> list[Array]:
    """The entries of a row `[A]`, each []."""
    return [row[i] for i in range(row.shape[0])]


def greatest(row: Array) -> Array:
    """`max_a row(a)`, [], of a row `[A]`."""
    return functools.reduce(jnp.maximum, entries(row))


def total(row: Array) -> Array:
    """`sum_a row(a)`, [], of a row `[A]`, from the first entry to the last."""
    return functools.reduce(jnp.add, entries(row))


def first_best(row: Array) -> Array:
    """`argmax_a row(a)`, [] int32; the first of several."""
    return jnp.argmax(row).astype(jnp.int32)


def sample(probabilities: Array, u: Array) -> Array:
    """An action drawn by inverting the cumulative probabilities: the first a with `u sum_b p(b) < sum_{b <= a} p(b)`.

    Args:
      probabilities: `[A]`, not negative; they need not sum to 1 to the last bit.
      u: [] uniform in [0, 1).

    Returns:
      [] int32. An action of probability 0 is never drawn.
    """
    *cumulative, whole = list(_accumulate(entries(probabilities)))
    passed = [(u * whole >= c).astype(jnp.int32) for c in cumulative]
    return functools.reduce(jnp.add, passed, jnp.int32(0))


def pick(u: Array, count: Array | int) -> Array:
    """One of 0 ... count - 1 with equal chances, [] int32, from u uniform in [0, 1)."""
    return jnp.floor(u * jnp.asarray(count, jnp.float32)).astype(jnp.int32)


def _accumulate(values: list[Array]) -> list[Array]:
    sums = values[:1]
    for value in values[1:]:
        sums.append(sums[-1] + value)
    return sums


def uniforms(key: jax.Array, *shape: int) -> Array:
    """Numbers uniform in [0, 1), float32 whatever the default."""
    return jax.random.uniform(key, shape, jnp.float32)
