"""Convolution, lowered to what the platform is fast at."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dlfx.ops.depthwise import depthwise
from dlfx.ops.winograd import isolated, tiles, winograd, winograd_kernel_gradient
from dlfx.types import Array, UserError

NHWC = ("NHWC", "HWIO", "NHWC")
LARGE = 1 << 20  # elements of a matrix that no cache holds


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
    """`lax.conv_general_dilated` that on CPU is what wins for the shape; given to Linen in `dlfx.nn.convolution`.

    - 1x1: a product of matrices.
    - 3x3 of stride 1 with many channels: Winograd's, see `dlfx.ops.winograd`.
    - Depthwise: sums of shifted products, see `dlfx.ops.depthwise`. Other groups: batches of convolutions.
    - A stride that divides the kernel: blocks of pixels laid out along the channels, then stride 1.
    - Few channels, small images, and populations on several devices (`vmap` over kernels, of which XLA makes grouped
      convolutions): im2col, the product of the patches `[b, i, j, (u v c)]` with the kernels `[(u v c), o]`, or the
      products with every tap and their shifted sum.
    - The rest: XLA's own.

    Args:
      lhs: images; lowered when `[B, H, W, C]`.
      rhs: kernels; lowered when `[kh, kw, C, O]`.
      window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count, batch_group_count,
        precision, preferred_element_type: as of `lax.conv_general_dilated`. Dilated, other than two-dimensional
        convolutions, other layouts and types, and a `precision`, go to it, and so does everything off the CPU.

    Returns:
      What `lax.conv_general_dilated` returns, `[B, H', W', O]`, up to rounding.

    Raises:
      UserError: for a stride below 1, groups that do not divide the channels, and kernels larger than the images.

    Source: Chellapilla, Puri and Simard 2006, High Performance Convolutional Neural Networks for Document Processing,
      section 3, for im2col.
    """
    strides = tuple(window_strides)
    layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    groups = feature_group_count
    _check(lhs.shape[layout.lhs_spec[1]], rhs.shape[layout.rhs_spec[1]], rhs.shape[layout.rhs_spec[0]], strides, groups)
    sides = [lhs.shape[axis] for axis in layout.lhs_spec[2:]]
    kernel_size = [rhs.shape[axis] for axis in layout.rhs_spec[2:]]
    dilation = [(rate or [1] * len(sides)) for rate in (lhs_dilation, rhs_dilation)]
    reach = [rate * (size - 1) + 1 for rate, size in zip(dilation[1], kernel_size, strict=True)]
    spread = [rate * (side - 1) + 1 for rate, side in zip(dilation[0], sides, strict=True)]
    pads = lax.padtype_to_pads(spread, reach, strides, padding) if isinstance(padding, str) else padding
    pads = [(int(low), int(high)) for low, high in pads]
    padded = [side + sum(edges) for side, edges in zip(spread, pads, strict=True)]
    if any(size > side for size, side in zip(reach, padded, strict=True)):
        raise UserError(f"a kernel of {reach} does not fit into images of {padded}, padding included")
    lowered = (
        jax.default_backend() == "cpu"
        and lhs.ndim == 4
        and lhs.dtype == rhs.dtype
        and lhs.dtype in (jnp.float32, jnp.float64)
        and layout == lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
        and all(rate == 1 for rates in dilation for rate in rates)
        and batch_group_count == 1
        and precision is None
        and preferred_element_type in (None, lhs.dtype)
    )
    if not lowered:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            strides,
            pads,
            lhs_dilation,
            rhs_dilation,
            dimension_numbers,
            feature_group_count,
            batch_group_count,
            precision,
            preferred_element_type,
        )
    if groups == 1:
        return _convolve(lhs, rhs, strides, pads)
    batch, height, width, channels = lhs.shape
    if groups == channels:
        images, multiplier = _pad(lhs, pads), rhs.shape[3] // channels
        return depthwise(
            jnp.repeat(images, multiplier, 3) if multiplier > 1 else images, rhs[:, :, 0], (strides[0], strides[1])
        )
    parts = lhs.reshape(batch, height, width, groups, channels // groups)
    kernels = rhs.reshape(*rhs.shape[:3], groups, rhs.shape[3] // groups)
    y = jax.vmap(lambda x, kernel: _convolve(x, kernel, strides, pads), (3, 3), 3)(parts, kernels)
    return y.reshape(*y.shape[:3], -1)


def dense(
    lhs: Array, rhs: Array, dimension_numbers: Any, precision: Any = None, preferred_element_type: Any = None
) -> Array:
    """`lax.dot_general` of a dense layer, `[..., I]` and `[I, O]`, to be given to Linen; see `dlfx.nn.dense`.

    On CPU a large one is a 1x1 convolution, for the sake of that one's gradients, and a small one a product of two
    matrices: the gradient over more axes is a transposition that XLA fuses with what comes before it, twice as slow in
    all for the two layers of a Transformer. All else goes to lax.
    """
    layer = (((lhs.ndim - 1,), (0,)), ((), ()))
    plain = precision is None and preferred_element_type in (None, lhs.dtype) and lhs.dtype == rhs.dtype
    numbers = tuple((tuple(first), tuple(second)) for first, second in dimension_numbers)
    if jax.default_backend() != "cpu" or not plain or numbers != layer:
        return lax.dot_general(lhs, rhs, dimension_numbers, precision, preferred_element_type)
    if rhs.size < LARGE:
        y = lhs.reshape(-1, lhs.shape[-1]) @ rhs
    else:
        y = _unit_stride(lhs.reshape(-1, 1, 1, lhs.shape[-1]), rhs[None, None], (0, 0))
    return y.reshape(*lhs.shape[:-1], rhs.shape[1])


def _check(channels: int, read: int, features: int, strides: Sequence[int], groups: int) -> None:
    if any(step < 1 for step in strides):
        raise UserError(f"strides of {list(strides)}: a convolution moves by at least 1")
    if groups < 1 or channels % groups or features % groups:
        raise UserError(f"{groups} groups do not divide {channels} channels into {features} features")
    if read * groups != channels:
        raise UserError(
            f"kernels that read {read} channels in {groups} groups do not fit images of {channels} channels"
        )


def _pad(x: Array, pads: Sequence[tuple[int, int]]) -> Array:
    if not any(map(any, pads)):
        return x
    return lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((low, high, 0) for low, high in pads), (0, 0, 0)))


def _convolve(x: Array, kernel: Array, strides: tuple[int, ...], pads: Sequence[tuple[int, int]]) -> Array:
    """The convolution of one group, `[B, H, W, C]` and `[kh, kw, C, O]` to `[B, H', W', O]`."""
    (sh, sw), (kh, kw) = strides, kernel.shape[:2]
    if (kh, kw) == (1, 1):
        return _unit_stride(_pad(x, pads)[:, ::sh, ::sw], kernel, (0, 0))
    if strides == (1, 1) and all(low == high for low, high in pads):
        return _unit_stride(x, kernel, (pads[0][0], pads[1][0]))
    if kh % sh or kw % sw:
        padded = _pad(x, pads)
        out = (padded.shape[1] - kh) // sh + 1, (padded.shape[2] - kw) // sw + 1
        if _is_for_xla(kernel.shape[2:], out) or min(out) >= 64:
            return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=NHWC)
        return im2col(padded, (kh, kw), (sh, sw)) @ kernel.reshape(-1, kernel.shape[3])
    return _unit_stride(*_without_strides(_pad(x, pads), kernel, (sh, sw)), (0, 0))


def _unit_stride(x: Array, kernel: Array, padding: tuple[int, int], turned: bool = False) -> Array:
    """The convolution of stride 1, zeros around x, `[B, H, W, C]` and `[kh, kw, C, O]` to `[B, H', W', O]`.

    Turned, the kernel is `[kh, kw, O, C]`, and rotated by half a turn: the gradient in the images.
    """
    return _unit_stride_p.bind(x, kernel, padding=padding, turned=turned)


def _unit_stride_rule(
    x: Array, kernel: Array, padding: tuple[int, int], turned: bool = False, own: bool = True
) -> Array:
    """What wins for the shape; without `own`, under vmap over kernels, nothing that XLA has a convolution for.

    Of im2col, patches of the input times the kernels, and the input times every tap and then the sum of the shifted
    products, the one that copies less: kh kw C channels in the first, kh kw O in the second.
    """
    kh, kw, *channels = kernel.shape
    if (kh, kw) == (1, 1) and not any(padding):
        return _product_with_transpose(x, kernel[0, 0]) if turned else x @ kernel[0, 0]
    out = x.shape[1] + 2 * padding[0] - kh + 1, x.shape[2] + 2 * padding[1] - kw + 1
    if own and _is_for_winograd(x.shape[0], kernel.shape, out):
        return winograd(x, kernel, padding, turned)
    if turned:
        kernel = kernel[::-1, ::-1].swapaxes(2, 3)
    if own and kh >= 3 and _is_for_xla(channels, out):
        pads = [(rows, rows) for rows in padding]
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC)
    copies = _gather if kernel.shape[2] <= kernel.shape[3] else _scatter
    return isolated(functools.partial(copies, padding=padding), x, kernel)


def _is_for_winograd(batch: int, kernel: Sequence[int], out: Sequence[int]) -> bool:
    """Where Winograd's convolution beats XLA's: with channels enough, and tiles enough for each of the 36 products to
    be worth a transformed kernel."""
    many = math.prod(tiles(*out)) * batch >= 32
    return tuple(kernel[:2]) == (3, 3) and min(kernel[2:]) >= 64 and kernel[2] * kernel[3] <= 256 * 256 and many


def _is_for_xla(channels: Sequence[int], out: Sequence[int]) -> bool:
    """Where XLA's convolution beats im2col: with many channels, and not from images of 2x2 down.

    With fewer they are equals, but in a loop such as `lax.scan` XLA's takes a hundred times as long. Callers keep small
    kernels, those of blocks of pixels, to patches.
    """
    return min(out) >= 4 and min(channels) >= 64


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


def _images_gradient(dy: Array, x: Any, kernel: Array, padding: tuple[int, int], turned: bool) -> Array:
    kh, kw = kernel.shape[:2]
    return _unit_stride(dy, kernel, (kh - 1 - padding[0], kw - 1 - padding[1]), not turned)


def _kernel_gradient(dy: Array, x: Array, kernel: Any, padding: tuple[int, int], turned: bool) -> Array:
    gradient = _kernel_gradient_p.bind(x, dy, padding=padding)
    return gradient[::-1, ::-1].swapaxes(2, 3) if turned else gradient


def _kernel_gradient_rule(x: Array, dy: Array, padding: tuple[int, int], own: bool = True) -> Array:
    """What wins for the shape, as in `_unit_stride_rule`."""
    kh, kw, channels, features = shape = _kernel_shape(x.shape, dy.shape, padding)
    if (kh, kw) == (1, 1):
        return _product_of_transpose(x, dy).reshape(shape)
    if own and _is_for_winograd(x.shape[0], shape, dy.shape[1:3]):
        return winograd_kernel_gradient(x, dy, padding)
    if own and kh >= 3 and _is_for_xla((channels, features), dy.shape[1:3]):
        pads = [(rows, rows) for rows in padding]

        def convolve(kernel: Array) -> Array:
            return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=NHWC)

        return jax.linear_transpose(convolve, jax.ShapeDtypeStruct(shape, x.dtype))(dy)[0]
    return isolated(functools.partial(_by_patches, padding=padding), x, dy)


def _by_patches(x: Array, dy: Array, padding: tuple[int, int]) -> Array:
    kh, kw, channels, features = shape = _kernel_shape(x.shape, dy.shape, padding)
    if channels <= features:
        patches = im2col(_surround(x, padding), (kh, kw), (1, 1))
        return _product_of_transpose(patches, dy).reshape(shape)
    patches = im2col(_surround(dy, (kh - 1 - padding[0], kw - 1 - padding[1])), (kh, kw), (1, 1))
    products = _product_of_transpose(x, patches).reshape(channels, kh, kw, features)
    return jnp.moveaxis(products, 0, 2)[::-1, ::-1]


def _kernel_shape(x: Sequence[int], dy: Sequence[int], padding: tuple[int, int]) -> tuple[int, int, int, int]:
    return x[1] + 2 * padding[0] - dy[1] + 1, x[2] + 2 * padding[1] - dy[2] + 1, x[3], dy[3]


def _batched(args: Any, axes: Any, padding: tuple[int, int], turned: bool) -> tuple[Array, int]:
    x, kernel = args
    if axes[1] is None:  # more images: one convolution
        x = jnp.moveaxis(x, axes[0], 0)
        y = _unit_stride(x.reshape(-1, *x.shape[2:]), kernel, padding, turned)
        return y.reshape(*x.shape[:2], *y.shape[1:]), 0
    return _members(functools.partial(_unit_stride_rule, padding=padding, turned=turned), args, axes)


def _members(rule: Any, args: Sequence[Array], axes: Sequence[int | None]) -> tuple[Array, int]:
    """A rule for each member of a population.

    One member after another, each on all cores, is four times as fast as XLA's batched products of small matrices. On
    several devices members may lie on different ones, and only a batched product leaves them there.
    """
    if jax.local_device_count() > 1:
        return jax.vmap(functools.partial(rule, own=False), axes)(*args), 0
    count = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    rows = [
        jnp.broadcast_to(x, (count, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args, axes, strict=True)
    ]
    return lax.map(lambda member: rule(*member), tuple(rows)), 0


# A primitive of its own, for gradients of its own that work in forward mode, twice, and under vmap as well.
_unit_stride_p = Primitive("unit_stride_convolution")
_unit_stride_p.def_impl(jax.jit(_unit_stride_rule, static_argnames=("padding", "turned")))
_unit_stride_p.def_abstract_eval(
    lambda x, kernel, padding, turned: jax.core.ShapedArray(
        (
            x.shape[0],
            *(x.shape[i] + 2 * padding[i - 1] - kernel.shape[i - 1] + 1 for i in (1, 2)),
            kernel.shape[2 if turned else 3],
        ),
        x.dtype,
    )
)
mlir.register_lowering(_unit_stride_p, mlir.lower_fun(_unit_stride_rule, multiple_results=False))
ad.defbilinear(_unit_stride_p, _images_gradient, _kernel_gradient)
batching.primitive_batchers[_unit_stride_p] = _batched

# The same of the gradient in the kernel. It is bilinear too: <gradient(x, dy), k> = <convolution(x, k), dy>.
_kernel_gradient_p = Primitive("unit_stride_convolution_kernel_gradient")
_kernel_gradient_p.def_impl(jax.jit(_kernel_gradient_rule, static_argnames="padding"))
_kernel_gradient_p.def_abstract_eval(
    lambda x, dy, padding: jax.core.ShapedArray(_kernel_shape(x.shape, dy.shape, padding), x.dtype)
)
mlir.register_lowering(_kernel_gradient_p, mlir.lower_fun(_kernel_gradient_rule, multiple_results=False))
ad.defbilinear(
    _kernel_gradient_p,
    lambda kernel, x, dy, padding: _images_gradient(dy, x, kernel, padding, False),
    lambda kernel, x, dy, padding: _unit_stride(x, kernel, padding),
)
batching.primitive_batchers[_kernel_gradient_p] = lambda args, axes, padding: _members(
    functools.partial(_kernel_gradient_rule, padding=padding), args, axes
)


def _product_with_transpose(a: Array, b: Array) -> Array:
    """`a b^T`, `[..., n]` and `[m, n]` to `[..., m]`.

    Of few rows and a large matrix XLA's product on CPU takes five times as long as to read the matrix, but not where
    it is a batch of several.
    """
    rows, parts = a.size // a.shape[-1], 8
    if b.size < LARGE or rows > 256 or b.shape[0] % parts:
        return a @ b.T
    blocks = jnp.einsum("rn,pmn->prm", a.reshape(rows, -1), b.reshape(parts, -1, b.shape[1]))
    return blocks.swapaxes(0, 1).reshape(*a.shape[:-1], b.shape[0])


def _product_of_transpose(a: Array, b: Array) -> Array:
    """`a^T b` over all axes but the last, `[..., m]` and `[..., n]` to `[m, n]`.

    XLA's products on CPU run at a third of their speed where the long axis is the first one of both. The transpose of
    the narrower one, laid out for real, costs little beside that.
    """
    a, b = a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])
    if min(a.shape[1], b.shape[1]) < 32 or len(a) < max(a.shape[1], b.shape[1]):
        return a.T @ b  # the long axis is not the first
    if a.shape[1] <= b.shape[1]:
        return lax.optimization_barrier(a.T) @ b
    return lax.optimization_barrier(lax.optimization_barrier(b.T) @ a).T


def _without_strides(x: Array, kernel: Array, strides: tuple[int, int]) -> tuple[Array, Array]:
    """The same convolution on blocks of pixels laid out along the channels, with stride 1.

    The strides divide the kernel's sides. Blocks are moved whole, where strided slices pick pixels one by one, and so
    do their gradients.
    """
    (sh, sw), (kh, kw, channels, features) = strides, kernel.shape
    batch, height, width, _ = x.shape
    x = x[:, : height // sh * sh, : width // sw * sw]
    x = x.reshape(batch, height // sh, sh, width // sw, sw, channels).swapaxes(2, 3)
    kernel = kernel.reshape(kh // sh, sh, kw // sw, sw, channels, features).swapaxes(1, 2)
    blocks = sh * sw * channels
    x = x.reshape(*x.shape[:3], blocks)
    return x, kernel.reshape(kh // sh, kw // sw, blocks, features)


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
