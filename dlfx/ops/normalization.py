"""Normalisation without parameters."""

import functools
import operator

import jax.numpy as jnp
from jax import lax

from dlfx.types import Array, UserError


def local_response_norm(x: Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> Array:
    """Each channel divided by what it and its neighbours hold at the same position.

    `y_c = x_c / (k + alpha sum_{|i - c| <= size / 2} x_i^2)^beta`

    In PyTorch and Caffe alpha stands before the mean of the squares, not before their sum: theirs is `size` times this.

    Args:
      x: `[..., C]`, floating point.
      size: how many channels are summed over, c in their middle; of an even number one more is before c than after.
      alpha, beta, k: as in the formula.

    Returns:
      The shape of x.

    Raises:
      UserError: for a size below 1.

    Source: Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks,
      section 3.3, and its constants.
    """
    if size < 1:
        raise UserError(f"local response normalisation is over at least 1 channel; got {size}")
    before, channels = size // 2, x.shape[-1]
    squares = jnp.pad(x * x, [(0, 0)] * (x.ndim - 1) + [(before, size - 1 - before)])
    neighbours = (lax.slice_in_dim(squares, i, i + channels, axis=-1) for i in range(size))
    return x / (k + alpha * functools.reduce(operator.add, neighbours)) ** beta
