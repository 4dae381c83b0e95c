"""Pooling whose gradient costs little more than its value."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.types import Array

Pair = int | tuple[int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]
NO_PADDING: Padding = ((0, 0), (0, 0))


def max_pool(x: Array, window: Pair, stride: Pair | None = None, padding: Padding = NO_PADDING) -> Array:
    """The maximum of every window.

    `y[i, j, c] = max_{u, v} x[i s + u, j s + v, c]`

    The gradient of an output goes to exactly one input, the first maximum of its window in row-major order; there is
    nothing to train. XLA's own gradient searches every window again with a scatter, ten times slower on CPU.

    Args:
      x: `[..., H, W, C]`.
      window: the window's (height, width), or one number for both.
      stride: the steps (down, right) between windows; the window itself if None.
      padding: rows (above, below) and columns (left, right) of the smallest value to put around x.

    Returns:
      `[..., H', W', C]` with `H' = (H + above + below - height) // down + 1`; windows that do not fit are left out.
      A window that holds a NaN gives NaN.

    Source: Boureau, Ponce and LeCun 2010, A Theoretical Analysis of Feature Pooling in Visual Recognition, section 2.
    """
    sizes, strides = _sizes_and_strides(window, stride)
    if _tiles(x, sizes, strides, padding):
        windows = jnp.moveaxis(_split(x, sizes), (-4, -2), (-2, -1))
        windows = windows.reshape(*windows.shape[:-2], -1)  # [..., H', W', C, height * width]
        # A reduction, as XLA fuses elementwise producers into each of their consumers and computes them again there:
        # a chain of comparisons before a convolution as patches would run once for every row of the kernel.
        chosen = jax.nn.one_hot(windows.argmax(-1), windows.shape[-1], dtype=jnp.bool_)
        return jnp.where(chosen, windows, 0).sum(-1, dtype=x.dtype)
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return _reduce_shifts(_first_maximum, _pad(x, padding, lowest), sizes, strides)


def avg_pool(
    x: Array, window: Pair, stride: Pair | None = None, padding: Padding = NO_PADDING, count_padding: bool = True
) -> Array:
    """The mean of every window.

    `y[i, j, c] = (1 / n) sum_{u, v} x[i s + u, j s + v, c]`, with n the size of the window

    Linear, so every input of a window gets 1/n of its gradient.

    Args:
      x: `[..., H, W, C]`, floating point.
      window: the window's (height, width), or one number for both.
      stride: the steps (down, right) between windows; the window itself if None.
      padding: rows (above, below) and columns (left, right) of zeros to put around x. They count in n.
      count_padding: if False, they do not: n is how many elements of x the window holds, and the mean of none is 0.

    Returns:
      `[..., H', W', C]` with `H' = (H + above + below - height) // down + 1`; windows that do not fit are left out.

    Source: Boureau, Ponce and LeCun 2010, A Theoretical Analysis of Feature Pooling in Visual Recognition, section 2.
    """
    sizes, strides = _sizes_and_strides(window, stride)
    if _tiles(x, sizes, strides, padding):
        return _split(x, sizes).mean((-4, -2))
    sums = _reduce_shifts(jnp.add, _pad(x, padding, 0), sizes, strides)
    if count_padding or padding == NO_PADDING:
        return sums / (sizes[0] * sizes[1])
    rows, columns = (_elements(x.shape[i - 3], sizes[i], strides[i], padding[i]) for i in (0, 1))
    return sums / np.maximum(np.outer(rows, columns), 1)[..., None].astype(x.dtype)


def _elements(side: int, size: int, stride: int, padding: tuple[int, int]) -> np.ndarray:
    """How many of the elements along one side, without the padding, each window holds."""
    start = np.arange(0, side + sum(padding) - size + 1, stride) - padding[0]
    return np.clip(start + size, 0, side) - np.clip(start, 0, side)


def _sizes_and_strides(window: Pair, stride: Pair | None) -> tuple[tuple[int, int], tuple[int, int]]:
    sizes = (window, window) if isinstance(window, int) else window
    if stride is None:
        return sizes, sizes
    return sizes, (stride, stride) if isinstance(stride, int) else stride


def _tiles(x: Array, sizes: tuple[int, int], strides: tuple[int, int], padding: Padding) -> bool:
    """Whether the windows cover x once and completely."""
    height, width = x.shape[-3:-1]
    return sizes == strides and padding == NO_PADDING and height % sizes[0] == 0 and width % sizes[1] == 0


def _split(x: Array, sizes: tuple[int, int]) -> Array:
    """The tiles of x, `[..., H', height, W', width, C]`."""
    *batch, height, width, channels = x.shape
    return x.reshape(*batch, height // sizes[0], sizes[0], width // sizes[1], sizes[1], channels)


def _pad(x: Array, padding: Padding, fill: float) -> Array:
    if padding == NO_PADDING:
        return x
    pads = [(0, 0, 0)] * (x.ndim - 3) + [(lo, hi, 0) for lo, hi in padding] + [(0, 0, 0)]
    return lax.pad(x, jnp.array(fill, x.dtype), pads)


def _first_maximum(first: Array, second: Array) -> Array:
    # jnp.maximum would split the gradient of a tie. `first != first` lets NaN through, as jnp.maximum does.
    return jnp.where((first >= second) | (first != first), first, second)


def _reduce_shifts(
    combine: Callable[[Array, Array], Array], x: Array, sizes: tuple[int, int], strides: tuple[int, int]
) -> Array:
    # Along the rows first, then down the columns: height + width slices instead of height * width, and among equal
    # maxima the upper row and in it the left one wins, which is row-major order.
    for axis, size, stride in ((x.ndim - 2, sizes[1], strides[1]), (x.ndim - 3, sizes[0], strides[0])):
        end = x.shape[axis] - size + 1
        x = functools.reduce(combine, [lax.slice_in_dim(x, k, end + k, stride, axis) for k in range(size)])
    return x
