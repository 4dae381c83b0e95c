"""Convolution whose taps move to where offsets tell them, between pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.ops.pooling import NO_PADDING, Padding, Pair
from dlfx.ops.resampling import bilinear_sample
from dlfx.types import Array, UserError


def deformable_conv(
    x: Array,
    kernel: Array,
    offsets: Array,
    modulation: Array | None = None,
    strides: Pair = 1,
    padding: Padding = NO_PADDING,
    dilation: Pair = 1,
) -> Array:
    """Deformable convolution; with a modulation its second version.

    `y[b, i, j, o] = sum_{u, v, c} w[u, v, c, o] m_{uv}[b, i, j] x[b, i s - p + u d + o_{uv}[b, i, j], c]`, both
    coordinates alike, x by bilinear interpolation and 0 outside. Offsets of 0 give the convolution with that kernel.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C, O]`.
      offsets: `[B, H', W', G 2 kh kw]`, in pixels: for each of G groups of C / G channels, and each tap in row-major
        order, (down, right).
      modulation: `[B, H', W', G kh kw]`, a factor for each tap; all 1 if None.
      strides: the steps (down, right) of the kernel, or one number for both.
      padding: rows (above, below) and columns (left, right) of zeros around x.
      dilation: the steps (down, right) between taps.

    Returns:
      `[B, H', W', O]` with `H' = (H + above + below - d (kh - 1) - 1) // s + 1`.

    Raises:
      UserError: for a stride or dilation of 0, an image smaller than the kernel, or channels or sides of the offsets
        that do not fit.

    Source: Dai et al. 2017 (arXiv:1703.06211), equations 2 to 4; Zhu et al. 2018, Deformable ConvNets v2
      (arXiv:1811.11168), equation 1. The order of the offsets is torchvision's.
    """
    kh, kw, channels, features = kernel.shape
    steps, rates = ((pair, pair) if isinstance(pair, int) else pair for pair in (strides, dilation))
    if min(*steps, *rates) < 1 or x.shape[-1] != channels:
        raise UserError(
            f"strides {steps} and dilation {rates} must be at least 1, and the kernel's {channels} channels those of "
            f"the image, {x.shape[-1]}"
        )
    sides = [
        (side + sum(pads) - rate * (size - 1) - 1) // step + 1
        for side, pads, rate, size, step in zip(x.shape[1:3], padding, rates, (kh, kw), steps, strict=True)
    ]
    taps = kh * kw
    groups, rest = divmod(offsets.shape[-1], 2 * taps)
    if min(sides) < 1 or offsets.shape[:3] != (len(x), *sides) or groups < 1 or rest or channels % groups:
        raise UserError(
            f"offsets {list(offsets.shape)} do not fit: {taps} taps and {channels} channels need "
            f"[{len(x)}, {sides[0]}, {sides[1]}, {2 * taps} G], with G that divides the channels"
        )
    if modulation is not None and modulation.shape != (*offsets.shape[:3], groups * taps):
        raise UserError(
            f"the modulation {list(modulation.shape)} does not fit: {groups} groups of {taps} taps need "
            f"{[*offsets.shape[:3], groups * taps]}"
        )
    down, right = (  # [sides, taps of one axis], where each tap stands without offsets
        step * np.arange(side)[:, None] - pads[0] + rate * np.arange(size)
        for side, pads, rate, size, step in zip(sides, padding, rates, (kh, kw), steps, strict=True)
    )
    grid = np.stack(np.broadcast_arrays(down[:, None, :, None], right[None, :, None, :]), -1)  # [H', W', kh, kw, 2]
    exact = jnp.promote_types(offsets.dtype, jnp.float32)  # bfloat16 could not tell pixel 257 from 256
    moves = offsets.reshape(*offsets.shape[:3], groups, taps, 2).astype(exact)
    points = jnp.asarray(grid.reshape(*sides, 1, taps, 2), exact) + moves
    parts = x.reshape(*x.shape[:3], groups, channels // groups)
    values = jax.vmap(bilinear_sample, (3, 3), 3)(parts, points)  # [B, H', W', G, taps, C / G]
    if modulation is not None:
        values *= modulation.reshape(*points.shape[:-1], 1)
    weights = kernel.reshape(taps, groups, channels // groups, features)
    return jnp.einsum("bijgkc,kgco->bijo", values, weights)
