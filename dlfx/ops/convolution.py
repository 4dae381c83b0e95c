"""Convolution, lowered to what the platform is fast at."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

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

    kernel_size, strides = rhs.shape[:2], (window_strides[0], window_strides[1])
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], kernel_size, strides, padding)
    padded = lax.pad(lhs, jnp.zeros((), lhs.dtype), ((0, 0, 0), *((lo, hi, 0) for lo, hi in padding), (0, 0, 0)))
    padded, rhs, strides = _without_strides(padded, rhs, strides)
    if strides == (1, 1) and precision is None and preferred_element_type is None:
        return _unit_stride(padded, rhs, (0, 0))
    patches = im2col(padded, rhs.shape[:2], strides)
    kernels = rhs.reshape(-1, rhs.shape[-1])
    contract_last_with_first = (((3,), (0,)), ((), ()))
    return lax.dot_general(patches, kernels, contract_last_with_first, precision, preferred_element_type)


def _unit_stride(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
    """The convolution of stride 1, zeros around x, `[B, H, W, C]` and `[kh, kw, C, O]` to `[B, H', W', O]`."""
    return _unit_stride_p.bind(x, kernel, padding=padding)


def _unit_stride_rule(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
    """Two ways to one result: the patches of the input times the kernels, or the input times every tap of the kernels,
    and then the sum of the shifted products. What is copied has kh kw C channels in the first, kh kw O in the second.
    """
    return _gather(x, kernel, padding) if kernel.shape[2] <= kernel.shape[3] else _scatter(x, kernel, padding)


def _gather(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
    kernel_size, features = kernel.shape[:2], kernel.shape[-1]
    return im2col(_surround(x, padding), kernel_size, (1, 1)) @ kernel.reshape(-1, features)


def _scatter(x: Array, kernel: Array, padding: tuple[int, int]) -> Array:
    kh, kw, channels, features = kernel.shape
    products = _surround(x @ jnp.moveaxis(kernel, 2, 0).reshape(channels, -1), padding)
    height, width = products.shape[1] - kh + 1, products.shape[2] - kw + 1

    def tap(u: int, v: int) -> Array:
        first = (u * kw + v) * features
        return products[:, u : u + height, v : v + width, first : first + features]

    return functools.reduce(jnp.add, [tap(u, v) for u in range(kh) for v in range(kw)])


def _surround(x: Array, padding: tuple[int, int]) -> Array:
    return jnp.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0))) if any(padding) else x


def _images_gradient(dy: Array, x: Any, kernel: Array, padding: tuple[int, int]) -> Array:
    kh, kw = kernel.shape[:2]
    return _unit_stride(dy, kernel[::-1, ::-1].swapaxes(2, 3), (kh - 1 - padding[0], kw - 1 - padding[1]))


def _kernel_gradient(dy: Array, x: Array, kernel: Any, padding: tuple[int, int]) -> Array:
    kh, kw = (x.shape[i] + 2 * padding[i - 1] - dy.shape[i] + 1 for i in (1, 2))
    channels, features = x.shape[-1], dy.shape[-1]
    if channels <= features:
        patches = im2col(_surround(x, padding), (kh, kw), (1, 1))
        return _product_of_transpose(patches, dy).reshape(kh, kw, channels, features)
    patches = im2col(_surround(dy, (kh - 1 - padding[0], kw - 1 - padding[1])), (kh, kw), (1, 1))
    products = _product_of_transpose(x, patches).reshape(channels, kh, kw, features)
    return jnp.moveaxis(products, 0, 2)[::-1, ::-1]


def _batched(args: Any, axes: Any, padding: tuple[int, int]) -> tuple[Array, int]:
    return jax.vmap(functools.partial(_unit_stride_rule, padding=padding), axes)(*args), 0


# A primitive of its own, for gradients of its own that work in forward mode, twice, and under vmap as well.
_unit_stride_p = Primitive("unit_stride_convolution")
_unit_stride_p.def_impl(jax.jit(_unit_stride_rule, static_argnames="padding"))
_unit_stride_p.def_abstract_eval(
    lambda x, kernel, padding: jax.core.ShapedArray(
        (
            x.shape[0],
            *(x.shape[i] + 2 * padding[i - 1] - kernel.shape[i - 1] + 1 for i in (1, 2)),
            kernel.shape[3],
        ),
        x.dtype,
    )
)
mlir.register_lowering(_unit_stride_p, mlir.lower_fun(_unit_stride_rule, multiple_results=False))
ad.defbilinear(_unit_stride_p, _images_gradient, _kernel_gradient)
batching.primitive_batchers[_unit_stride_p] = _batched


def _product_of_transpose(a: Array, b: Array) -> Array:
    """`a^T b` over all axes but the last, `[..., m]` and `[..., n]` to `[m, n]`.

    XLA's products on CPU run at a third of their speed where the long axis is the first one of both. The transpose of
    the narrower one, laid out for real, costs little beside that.
    """
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    if min(a.shape[1], b.shape[1]) < 32:
        return a.T @ b
    if a.shape[1] <= b.shape[1]:
        return lax.optimization_barrier(a.T) @ b
    return lax.optimization_barrier(lax.optimization_barrier(b.T) @ a).T


def _without_strides(x: Array, kernel: Array, strides: tuple[int, int]) -> tuple[Array, Array, tuple[int, int]]:
    """The same convolution on blocks of pixels laid out along the channels, with stride 1, where strides divide sizes.

    Blocks are moved whole, where strided slices pick pixels one by one, and so do their gradients.
    """
    (sh, sw), (kh, kw, channels, features) = strides, kernel.shape
    if strides == (1, 1) or kh % sh or kw % sw:
        return x, kernel, strides
    batch, height, width, _ = x.shape
    x = x[:, : height // sh * sh, : width // sw * sw]
    x = x.reshape(batch, height // sh, sh, width // sw, sw, channels).swapaxes(2, 3)
    kernel = kernel.reshape(kh // sh, sh, kw // sw, sw, channels, features).swapaxes(1, 2)
    blocks = sh * sw * channels
    x = x.reshape(*x.shape[:3], blocks)
    return x, kernel.reshape(kh // sh, kw // sw, blocks, features), (1, 1)


def conv_transpose(x: Array, kernel: Array, strides: tuple[int, int], padding: int = 0) -> Array:
    """The transpose of a strided convolution, by which images grow: PyTorch's, with a kernel that is not flipped.

    `y[b, i s + u - p, j s + v - p, o] += x[b, i, j, c] w[u, v, c, o]`

    On CPU every block of s x s outputs is the product of the inputs that reach it with all their weights: patches of
    `ceil(k / s)` x `ceil(k / s)` inputs and one matrix product, then the blocks are laid side by side. Elsewhere it
    is `lax.conv_general_dilated` over the dilated input.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[kh, kw, C, O]`, each side at least as large as the stride.
      strides: (sh, sw).
      padding: p, rows and columns cut off at every edge of the output.

    Returns:
      `[B, sh (H - 1) + kh - 2 p, sw (W - 1) + kw - 2 p, O]`.

    Source: Dumoulin and Visin 2016 (arXiv:1603.07285), section 4; Shi et al. 2016 (arXiv:1609.07009) for the blocks.
    """
    batch, height, width, channels = x.shape
    kh, kw, _, features = kernel.shape
    sh, sw = strides
    sides = sh * (height - 1) + kh, sw * (width - 1) + kw
    if jax.default_backend() != "cpu":
        pads = [(kh - 1 - padding,) * 2, (kw - 1 - padding,) * 2]
        return lax.conv_general_dilated(
            x, kernel[::-1, ::-1], (1, 1), pads, lhs_dilation=strides, dimension_numbers=NHWC
        )
    mh, mw = -(-kh // sh), -(-kw // sw)
    kernel = jnp.pad(kernel, ((0, mh * sh - kh), (0, mw * sw - kw), (0, 0), (0, 0)))
    # Input i meets taps a s + r at output block i + a: in the window of block n, input n - a stands at place m - 1 - a.
    kernel = kernel.reshape(mh, sh, mw, sw, channels, features)[::-1, :, ::-1]
    kernel = kernel.transpose(0, 2, 4, 1, 3, 5).reshape(mh, mw, channels, sh * sw * features)
    blocks = _unit_stride(x, kernel, (mh - 1, mw - 1))
    rows, columns = height + mh - 1, width + mw - 1
    y = blocks.reshape(batch, rows, columns, sh, sw, features).swapaxes(2, 3)
    y = y.reshape(batch, rows * sh, columns * sw, features)
    return y[:, padding : sides[0] - padding, padding : sides[1] - padding]


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
