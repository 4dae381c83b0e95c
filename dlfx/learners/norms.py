"""The norm of a gradient, at the speed of memory."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from dlfx.types import Array

PARTS = 32


def global_norm(tree: Any) -> Array:
    """The square root of the sum of the squares of all elements of a pytree of arrays, [] of their type.

    XLA on CPU reduces an array to one number on one core, a tenth as fast as it reads memory. So the elements of a
    large one are first added up in 32 parts, one beside the other: that is elementwise, and done by all cores.
    """
    return jnp.sqrt(sum(_square_sum(leaf) for leaf in jax.tree.leaves(tree)))


def _square_sum(x: Array) -> Array:
    if x.size % PARTS or x.size < PARTS * 2048:
        return jnp.sum(x * x)
    parts = x.reshape(PARTS, -1)
    return functools.reduce(jnp.add, [part * part for part in parts]).sum()
