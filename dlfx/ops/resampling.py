"""Images at other sizes and between their pixels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import Array, UserError

Size = tuple[int, int]


def resize_bilinear(x: Array, size: Size, align_corners: bool = False) -> Array:
    """Interpolation between the four nearest pixels, without a filter against aliasing.

    Output i of n lies at `(i + 1/2) h / n - 1/2` of h inputs, where pixels are areas, and at the nearest input beyond
    the edge; with `align_corners` at `i (h - 1) / (n - 1)`, where pixels are points.

    Args:
      x: `[..., H, W, C]`, floating point.
      size: (height, width) of the result.
      align_corners: whether the corners stay where they are.

    Returns:
      `[..., height, width, C]`.

    Raises:
      UserError: for a size below 1, or an image without pixels.

    Source: PyTorch's `interpolate(mode="bilinear")`.
    """
    _require_pixels(x, size)
    shape = (*x.shape[:-3], *size, x.shape[-1])
    if not align_corners:
        return jax.image.resize(x, shape, "linear", antialias=False)
    sides = list(zip(x.shape[-3:-1], size, strict=True))
    # One pixel is scaled as if corners were not aligned; to one pixel, the first is taken.
    scale = [1.0 if new == 1 else float(new) if old == 1 else (new - 1) / (old - 1) for old, new in sides]
    shift = [(1 - factor) / 2 if old > 1 else 0.0 for (old, _), factor in zip(sides, scale, strict=True)]
    axes = (x.ndim - 3, x.ndim - 2)
    return jax.image.scale_and_translate(
        x, shape, axes, jnp.array(scale), jnp.array(shift), method="linear", antialias=False
    )


def resize_nearest(x: Array, size: Size) -> Array:
    """Copies of pixels: output i of n is input `floor(i h / n)` of h.

    `jax.image.resize` takes `floor((i + 1/2) h / n)`, which is the same where n is a multiple of h.

    Args:
      x: `[..., H, W, C]`.
      size: (height, width) of the result.

    Returns:
      `[..., height, width, C]`.

    Raises:
      UserError: for a size below 1, or an image without pixels.

    Source: PyTorch's `interpolate(mode="nearest")`.
    """
    _require_pixels(x, size)
    for axis, new in zip((-3, -2), size, strict=True):
        old = x.shape[axis]
        x = jnp.repeat(x, new // old, axis) if new % old == 0 else jnp.take(x, np.arange(new) * old // new, axis)
    return x


def bilinear_sample(x: Array, points: Array) -> Array:
    """The values at any points, between pixels by bilinear interpolation, with zeros around the image.

    `y = sum_{u, v} max(0, 1 - |r - u|) max(0, 1 - |s - v|) x[u, v]` at the point (r, s).

    Args:
      x: `[B, H, W, C]`.
      points: `[B, ..., 2]`, (row, column) in pixels from the centre of the first one.

    Returns:
      `[B, ..., C]` of x's type. By the point it is differentiable between pixels; on one the derivative is that towards
      the next row and column. An image of a plane `a r + b s + c` is reproduced.

    Source: Jaderberg et al. 2015, Spatial Transformer Networks (arXiv:1506.02025), equations 5 to 7.
    """
    sides = jnp.array(x.shape[1:3])

    def sample(image: Array, points: Array) -> Array:
        first = jnp.floor(points)
        fraction = points - first
        total = jnp.zeros((), x.dtype)
        for corner in itertools.product((0, 1), repeat=2):
            place = first.astype(jnp.int32) + jnp.array(corner)
            weight = jnp.where(jnp.array(corner) == 1, fraction, 1 - fraction).prod(-1)
            inside = ((place >= 0) & (place < sides)).all(-1)
            row, column = jnp.moveaxis(jnp.clip(place, 0, sides - 1), -1, 0)
            total += jnp.where(inside, weight, 0).astype(x.dtype)[..., None] * image[row, column]
        return total

    return jax.vmap(sample)(x, points)


def pixel_shuffle(x: Array, factor: int) -> Array:
    """Channels become pixels: `y[i r + u, j r + v, c] = x[i, j, c r^2 + u r + v]`.

    Args:
      x: `[..., H, W, C r^2]`.
      factor: r.

    Returns:
      `[..., H r, W r, C]`.

    Raises:
      UserError: for channels that r^2 does not divide.

    Source: Shi et al. 2016 (arXiv:1609.05158), equation 4, in PyTorch's order of channels.
    """
    *batch, height, width, channels = x.shape
    if factor < 1 or channels % factor**2:
        raise UserError(f"{channels} channels cannot become blocks of {factor} x {factor} pixels")
    x = x.reshape(*batch, height, width, channels // factor**2, factor, factor)
    x = jnp.moveaxis(x, (-2, -1), (-4, -2))  # [..., H, u, W, v, C]
    return x.reshape(*batch, height * factor, width * factor, channels // factor**2)


def pixel_unshuffle(x: Array, factor: int) -> Array:
    """The inverse of `pixel_shuffle`, `[..., H r, W r, C]` to `[..., H, W, C r^2]`.

    Raises:
      UserError: for sides that r does not divide.
    """
    *batch, height, width, channels = x.shape
    if factor < 1 or height % factor or width % factor:
        raise UserError(f"an image of {height} x {width} has no blocks of {factor} x {factor} pixels")
    x = x.reshape(*batch, height // factor, factor, width // factor, factor, channels)
    x = jnp.moveaxis(x, (-4, -2), (-2, -1))
    return x.reshape(*batch, height // factor, width // factor, channels * factor**2)


def _require_pixels(x: Array, size: Size) -> None:
    if min(*x.shape[-3:-1], *size) < 1:
        raise UserError(f"an image of {x.shape[-3]} x {x.shape[-2]} cannot be resized to {size[0]} x {size[1]}")
