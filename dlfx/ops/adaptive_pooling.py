"""Pooling to a size that is told: any image becomes a grid, or a vector, that a dense layer can take."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dlfx.types import Array, UserError

Size = int | tuple[int | None, int | None]


def adaptive_avg_pool(x: Array, size: Size) -> Array:
    """The means of a grid of bins that cover the image.

    Bin i of n along a side of h: from `floor(i h / n)` to `ceil((i + 1) h / n)`, that excluded. Where n does not
    divide h neighbours overlap by one; where n is larger than h they repeat.

    Args:
      x: `[..., H, W, C]`, floating point.
      size: (rows, columns) of the grid, or one number for both; None keeps that side.

    Returns:
      `[..., rows, columns, C]`.

    Raises:
      UserError: for a size below 1, or an image without pixels.

    Source: PyTorch's `AdaptiveAvgPool2d`.
    """
    return _pool(x, size, lambda bin, axis: bin.mean(axis))


def adaptive_max_pool(x: Array, size: Size) -> Array:
    """The maxima of a grid of bins that cover the image; arguments and bins as of `adaptive_avg_pool`.

    The gradient of an output goes to the first maximum of its bin in row-major order.

    Source: PyTorch's `AdaptiveMaxPool2d`.
    """
    return _pool(x, size, _first_maximum)


def global_avg_pool(x: Array) -> Array:
    """The mean of every channel, `[..., H, W, C]` to `[..., C]`.

    Source: Lin, Chen and Yan 2013, Network In Network (arXiv:1312.4400), section 3.2.
    """
    return x.mean((-3, -2))


def global_max_pool(x: Array) -> Array:
    """The maximum of every channel, `[..., H, W, C]` to `[..., C]`.

    Source: Oquab et al. 2015, Is Object Localization for Free?, section 3.
    """
    return adaptive_max_pool(x, 1)[..., 0, 0, :]


def spatial_pyramid_pool(
    x: Array, levels: Sequence[int] = (6, 3, 2, 1), pool: Callable[[Array, Size], Array] = adaptive_max_pool
) -> Array:
    """An image of any size as a vector of one length: the bins of a grid of n x n for every level n.

    Args:
      x: `[..., H, W, C]`.
      levels: the n of each grid.
      pool: `adaptive_max_pool` or `adaptive_avg_pool`.

    Returns:
      `[..., (n_1^2 + n_2^2 + ...) C]`, level after level, each in row-major order, channels last.

    Raises:
      UserError: for no level, or one below 1.

    Source: He et al. 2014, Spatial Pyramid Pooling in Deep Convolutional Networks (arXiv:1406.4729), section 2.2, with
      the bins of its appendix A, which cover images of any size.
    """
    if not levels:
        raise UserError("spatial pyramid pooling needs at least one level")
    return jnp.concatenate([pool(x, n).reshape(*x.shape[:-3], n * n * x.shape[-1]) for n in levels], -1)


def _pool(x: Array, size: Size, reduce: Callable[[Array, int], Array]) -> Array:
    rows, columns = (size, size) if isinstance(size, int) else size
    # A bin is a rectangle, so columns and rows can be reduced in turn: rows + columns slices, not rows * columns.
    for axis, bins in ((x.ndim - 2, columns), (x.ndim - 3, rows)):
        side = x.shape[axis]
        if bins is None:
            continue
        if bins < 1 or side < 1:
            raise UserError(f"a side of {side} pixels cannot be pooled to {bins} bins; both must be at least 1")
        if side % bins == 0:
            tiles = x.reshape(*x.shape[:axis], bins, side // bins, *x.shape[axis + 1 :])
            x = reduce(tiles, axis + 1)
        else:
            edges = [(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]
            x = jnp.stack([reduce(jax.lax.slice_in_dim(x, *edge, axis=axis), axis) for edge in edges], axis)
    return x


def _first_maximum(x: Array, axis: int) -> Array:
    # x.max would split the gradient of a tie.
    chosen = jax.nn.one_hot(x.argmax(axis), x.shape[axis], axis=axis, dtype=jnp.bool_)
    return jnp.where(chosen, x, 0).sum(axis, dtype=x.dtype)
