"""Random rows of a batch that do not depend on how many devices share it."""

from collections.abc import Callable

import jax

from dlfx.types import Array


def rows(draw: Callable[[int], Array], size: int, axis_name: str | None) -> Array:
    """The rows of a global draw that belong to the batch at hand.

    Args:
      draw: n to an array `[n, ...]`; the same on every device.
      size: rows of the batch at hand: under `jit` of the whole batch, under `pmap` of this device's part.
      axis_name: the `pmap` axis; None under `jit`.

    Returns:
      `[size, ...]`: under `pmap` a slice of the array that one device would have drawn for the whole batch.
    """
    if axis_name is None:
        return draw(size)
    everything = draw(size * jax.lax.axis_size(axis_name))
    return jax.lax.dynamic_slice_in_dim(everything, jax.lax.axis_index(axis_name) * size, size)
