"""Transposed convolution with everything that PyTorch's has."""

from jax import lax

from dlfx.ops.convolution import conv_transpose
from dlfx.ops.pooling import Pair
from dlfx.types import Array, UserError


def transposed_conv(
    x: Array,
    kernel: Array,
    strides: Pair = 1,
    padding: Pair = 0,
    output_padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Array:
    """The transpose of a convolution as a linear map: what pulls gradients back through it.

    `y[b, i s + u d - p, j s + v d - p, o] += x[b, i, j, c] w[u, v, c, o]`

    It restores the size of what was convolved, not its values. Zeros between the pixels, the kernel turned by 180
    degrees, a convolution of stride 1: `lax.conv_transpose` does not turn it unless told.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C, O / G]`; channels of a group go to the outputs of that group alone.
      strides: s, (down, right), or one number for both.
      padding: p, rows and columns cut off at every edge of the output.
      output_padding: rows below and columns to the right that are kept again, fewer than the stride or the dilation:
        which of the sizes that a strided convolution makes alike is meant.
      dilation: d, the steps between taps.
      groups: G.

    Returns:
      `[B, s (H - 1) + d (k - 1) + 1 - 2 p + output_padding, .., O]`.

    Raises:
      UserError: for a stride or dilation below 1, an output padding that is too large, or groups that do not divide
        the channels.

    Source: PyTorch's `ConvTranspose2d`; Dumoulin and Visin 2016 (arXiv:1603.07285), relationships 13 and 14.
    """
    kh, kw, channels, features = kernel.shape
    steps, cut, extra, rates = (
        (pair, pair) if isinstance(pair, int) else pair for pair in (strides, padding, output_padding, dilation)
    )
    if min(*steps, *rates) < 1 or min(*cut, *extra) < 0:
        raise UserError(
            f"strides {steps} and dilation {rates} must be at least 1, paddings {cut} and {extra} at least 0"
        )
    if any(rows >= max(pair) for rows, pair in zip(extra, zip(steps, rates, strict=True), strict=True)):
        raise UserError(f"an output padding of {extra} must be smaller than the stride {steps} or the dilation {rates}")
    if groups < 1 or channels % groups or x.shape[-1] != channels:
        raise UserError(f"{groups} groups of {x.shape[-1]} channels do not fit a kernel for {channels}")
    if (extra, rates, groups) == ((0, 0), (1, 1), 1) and cut[0] == cut[1] and kh >= steps[0] and kw >= steps[1]:
        return conv_transpose(x, kernel, steps, cut[0])
    pads = [
        (rate * (size - 1) - rows, rate * (size - 1) - rows + more)
        for rate, size, rows, more in zip(rates, (kh, kw), cut, extra, strict=True)
    ]
    kernel = kernel[::-1, ::-1].reshape(kh, kw, groups, channels // groups, features)
    kernel = kernel.transpose(0, 1, 3, 2, 4).reshape(kh, kw, channels // groups, groups * features)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), pads, steps, rates, ("NHWC", "HWIO", "NHWC"), feature_group_count=groups
    )
