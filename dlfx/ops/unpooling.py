"""Max-pooling that remembers where the maxima were, and its partial inverse."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.ops.pooling import NO_PADDING, Padding, Pair
from dlfx.types import Array, UserError


def max_pool_with_argmax(
    x: Array, window: Pair, stride: Pair | None = None, padding: Padding = NO_PADDING
) -> tuple[Array, Array]:
    """The maximum of every window and where it is.

    The gradient of an output goes to the element that its index names: of equal ones the first in row-major order.

    Args:
      x: `[..., H, W, C]`.
      window: the window's (height, width), or one number for both.
      stride: the steps (down, right) between windows; the window itself if None.
      padding: rows (above, below) and columns (left, right) around x that are never the maximum; fewer than the window
        has.

    Returns:
      The maxima `[..., H', W', C]`, those of `ops.pooling.max_pool`, and their indices, int32 of the same shape:
      `row * W + column` in x without its padding.

    Raises:
      UserError: for a padding as large as the window, whose windows could be empty.

    Source: Zeiler and Fergus 2014 (arXiv:1311.2901), section 2.1, their switches; PyTorch's `return_indices`.
    """
    sizes = (window, window) if isinstance(window, int) else window
    strides = sizes if stride is None else (stride, stride) if isinstance(stride, int) else stride
    if any(pad >= size for size, pads in zip(sizes, padding, strict=True) for pad in pads):
        raise UserError(f"a padding of {padding} leaves windows of {sizes} empty; it must be smaller than the window")
    height, width = x.shape[-3:-1]
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    places = jnp.arange(height * width, dtype=jnp.int32).reshape(height, width, 1)
    places = _pad(places, padding, -1)
    best = _pad(x, padding, lowest), jnp.broadcast_to(places, (*x.shape[:-3], *places.shape[:2], x.shape[-1]))
    # Along the rows first, then down the columns, so that among equal maxima the first in row-major order wins.
    for axis, size, step in ((x.ndim - 2, sizes[1], strides[1]), (x.ndim - 3, sizes[0], strides[0])):
        end = best[0].shape[axis] - size + 1
        first, *others = (
            (lax.slice_in_dim(best[0], k, end + k, step, axis), lax.slice_in_dim(best[1], k, end + k, step, axis))
            for k in range(size)
        )
        for second in others:
            (a, i), (b, j) = first, second
            # NaN wins. Padding, whose index is -1, loses even against another lowest value.
            keep = (a > b) | ((a == b) & ((i >= 0) | (j < 0))) | (a != a)
            first = jnp.where(keep, a, b), jnp.where(keep, i, j)
        best = first
    return best


def max_unpool(y: Array, indices: Array, size: tuple[int, int]) -> Array:
    """Every value where its maximum was, zeros elsewhere.

    `x[.., index // W, index % W, c] = y[.., i, j, c]` for all i and j. After `max_pool_with_argmax` exactly the maxima
    of its windows are left.

    Args:
      y: `[..., H', W', C]`.
      indices: of the same shape, integers from 0 to H W - 1. Of several values with one index one is taken, all the
        same where windows overlap. Outside a compiled function an index out of range is an error; inside, where
        nothing can be raised, its value is dropped.
      size: (H, W) of the image to make, which the pooled one does not tell.

    Returns:
      `[..., H, W, C]`. The gradient of y is that of x where y was put.

    Raises:
      UserError: for indices of another shape or type, or out of range.

    Source: Zeiler and Fergus 2014 (arXiv:1311.2901), section 2.1; PyTorch's `MaxUnpool2d`.
    """
    pixels = size[0] * size[1]
    if indices.shape != y.shape or not jnp.issubdtype(indices.dtype, jnp.integer):
        raise UserError(
            f"unpooling takes one integer index for each value: values of {list(y.shape)} and indices of "
            f"{list(indices.shape)} {indices.dtype} do not belong together"
        )
    if not isinstance(indices, jax.core.Tracer) and indices.size:
        concrete = np.asarray(indices)  # with jnp the comparison would be traced, where y is
        least, largest = concrete.min(), concrete.max()
        if least < 0 or largest >= pixels:
            raise UserError(
                f"index {least if least < 0 else largest} lies outside of an image of {size[0]} x {size[1]}, whose "
                f"last is {pixels - 1}: these indices are of another pooling"
            )

    def scatter(values: Array, places: Array) -> Array:
        outside = (places < 0) | (places >= pixels)  # a negative one would count from the end
        empty = jnp.zeros((pixels, y.shape[-1]), y.dtype)
        return empty.at[jnp.where(outside, pixels, places), jnp.arange(y.shape[-1])].set(values, mode="drop")

    flat = (-1, y.shape[-3] * y.shape[-2], y.shape[-1])
    return jax.vmap(scatter)(y.reshape(flat), indices.reshape(flat)).reshape(*y.shape[:-3], *size, y.shape[-1])


def _pad(x: Array, padding: Padding, fill: float) -> Array:
    pads = [(0, 0, 0)] * (x.ndim - 3) + [(lo, hi, 0) for lo, hi in padding] + [(0, 0, 0)]
    return lax.pad(x, jnp.array(fill, x.dtype), pads)
