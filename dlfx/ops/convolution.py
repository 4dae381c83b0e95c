"""Convolution, lowered to what the platform is fast at."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array

NHWC = ("NHWC", "HWIO", "NHWC")


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Array:
    """`lax.conv_general_dilated` that on CPU becomes patches and one matrix product where it can.

    `y[b, i, j, o] = sum_{u, v, c} x[b, i s + u, j s + v, c] w[u, v, c, o]` is the product of the patches
    `[b, i, j, (u v c)]` with the kernels `[(u v c), o]`: im2col, by strided slices joined along the channels. Inside
    `lax.scan` and under `vmap` over kernels XLA's CPU convolutions fall back to loops many times slower; a matrix
    product stays one. The patches take `kh kw / (sh sw)` times the memory of the input. To be given to Linen,
    `nn.Conv(..., conv_general_dilated=conv_general_dilated)`, by networks whose images are small.

    Args:
      lhs: images; lowered when `[B, H, W, C]`.
      rhs: kernels; lowered when `[kh, kw, C, O]`.
      window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, batch_group_count,
        precision, preferred_element_type: as of `lax.conv_general_dilated`. Dilated, grouped, other than
        two-dimensional convolutions, and other layouts, go to it, and so does everything off the CPU.

    Returns:
      What `lax.conv_general_dilated` returns, `[B, H', W', O]`, up to the order of summation.

    Source: Chellapilla, Puri and Simard 2006, High Performance Convolutional Neural Networks for Document Processing,
      section 3.
    """
    dilation = [*(lhs_dilation or ()), *(rhs_dilation or ())]
    groups = (feature_group_count, batch_group_count)
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    lowered = (
        jax.default_backend() == "cpu"
        and lhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and layout == lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
        and all(rate == 1 for rate in dilation)
        and groups == (1, 1)
    )
    if not lowered:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )

    kernel_size, strides = rhs.shape[:2], tuple(window_strides)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], kernel_size, strides, padding)
    padded = lax.pad(lhs, jnp.zeros((), lhs.dtype), ((0, 0, 0), *((lo, hi, 0) for lo, hi in padding), (0, 0, 0)))
    patches = im2col(padded, kernel_size, strides)
    kernels = rhs.reshape(-1, rhs.shape[-1])
    contract_last_with_first = (((3,), (0,)), ((), ()))
    return lax.dot_general(patches, kernels, contract_last_with_first, precision, preferred_element_type)


def im2col(images: Array, kernel_size: Sequence[int], strides: Sequence[int]) -> Array:
    """The windows of images, laid out along the channels.

    `patches[b, i, j, (u v c)] = images[b, i s + u, j s + v, c]`

    Args:
      images: `[B, H, W, C]`, padded already, at least one window large.
      kernel_size: (kh, kw).
      strides: (sh, sw).

    Returns:
      The patches `[B, (H - kh) // sh + 1, (W - kw) // sw + 1, kh kw C]`.
    """
    # Columns first, then rows: kh + kw slices instead of kh * kw, and whole rows are copied.
    for axis, size, step in ((2, kernel_size[1], strides[1]), (1, kernel_size[0], strides[0])):
        end = images.shape[axis] - size + 1
        shifts = [lax.slice_in_dim(images, k, end + k, step, axis=axis) for k in range(size)]
        images = jnp.concatenate(shifts, axis=-1)
    return images
