"""Depthwise convolution on CPU: as sums of shifted products, where XLA has a loop ten to fifty times slower."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from dlfx.ops.winograd import isolated
from dlfx.types import Array


def depthwise(x: Array, kernel: Array, strides: tuple[int, int]) -> Array:
    """Every channel convolved with its own kernel: `y[b, i, j, c] = sum_{u, v} x[b, i s + u, j s + v, c] w[u, v, c]`.

    A primitive of its own, so that its gradients are what is fast too, and can themselves be differentiated.

    Args:
      x: `[B, H, W, C]`, padded already.
      kernel: `[kh, kw, C]`.
      strides: (down, right).

    Returns:
      `[B, (H - kh) // down + 1, (W - kw) // right + 1, C]`.

    Source: Howard et al. 2017, MobileNets (arXiv:1704.04861), equation 3.
    """
    return _depthwise_p.bind(x, kernel, strides=strides)


def _rule(x: Array, kernel: Array, strides: tuple[int, int]) -> Array:
    def taps(x: Array, kernel: Array) -> Array:
        kh, kw, _ = kernel.shape
        size = _size(x.shape, kernel.shape, strides)
        shifted = [_window(x, (u, v), size, strides) * kernel[u, v] for u in range(kh) for v in range(kw)]
        return functools.reduce(jnp.add, shifted)

    return isolated(taps, x, kernel)


def _size(image: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, int]) -> tuple[int, int]:
    return (image[1] - kernel[0]) // strides[0] + 1, (image[2] - kernel[1]) // strides[1] + 1


def _window(x: Array, first: tuple[int, int], size: tuple[int, int], strides: tuple[int, int]) -> Array:
    """Every strides-th pixel from `first` on, so many of them."""
    (u, v), (sh, sw) = first, strides
    return x[:, u : u + sh * (size[0] - 1) + 1 : sh, v : v + sw * (size[1] - 1) + 1 : sw]


def _images_gradient(dy: Array, x: Any, kernel: Array, strides: tuple[int, int]) -> Array:
    kh, kw, _ = kernel.shape
    edges = [(0, 0, 0)]
    for side, size, taps, step in zip(x.aval.shape[1:3], dy.shape[1:3], (kh, kw), strides, strict=True):
        edges.append((taps - 1, side - (step * (size - 1) + 1), step - 1))
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), [*edges, (0, 0, 0)])
    return depthwise(spread, kernel[::-1, ::-1], (1, 1))


def _kernel_gradient(dy: Array, x: Array, kernel: Any, strides: tuple[int, int]) -> Array:
    kh, kw, channels = kernel.aval.shape
    # The sum as a product with ones: a reduction would be fused with the products and lose its vector instructions.
    ones = jnp.ones((1, dy.size // channels), dy.dtype)

    size = dy.shape[1], dy.shape[2]

    def tap(u: int, v: int) -> Array:
        return (ones @ (_window(x, (u, v), size, strides) * dy).reshape(-1, channels))[0]

    return jnp.stack([tap(u, v) for u in range(kh) for v in range(kw)]).reshape(kh, kw, channels)


def _batched(args: Any, axes: Any, strides: tuple[int, int]) -> tuple[Array, int]:
    return jax.vmap(functools.partial(_rule, strides=strides), axes)(*args), 0


_depthwise_p = Primitive("depthwise_convolution")
_depthwise_p.def_impl(jax.jit(_rule, static_argnames="strides"))
_depthwise_p.def_abstract_eval(
    lambda x, kernel, strides: jax.core.ShapedArray(
        (x.shape[0], *_size(x.shape, kernel.shape, strides), x.shape[3]), x.dtype
    )
)
mlir.register_lowering(_depthwise_p, mlir.lower_fun(_rule, multiple_results=False))
ad.defbilinear(_depthwise_p, _images_gradient, _kernel_gradient)
batching.primitive_batchers[_depthwise_p] = _batched
