"""Winograd's convolution of 3x3 kernels: a quarter of the multiplications, as 36 matrix products."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.types import Array

TILE = 4  # outputs on a side of a tile
SIDE = TILE + 2  # inputs on a side of a tile
# Where polynomials are multiplied, besides infinity. With 0, +-1 and +-2, as in the paper, the error is four times as
# large: 7e-6 of the largest output against 2e-6, where summing directly has 5e-7 (float32, 128 channels).
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)


def cook_toom(points: Sequence[float], outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The matrices of `y = A^T [(G g) * (B^T d)]`, the correlation of d with g.

    Args:
      points: `outputs + taps - 2` different numbers; infinity is added to them.
      outputs: the length of y.
      taps: the length of g.

    Returns:
      `A^T [outputs, n]`, `G [n, taps]`, `B^T [n, n]`, with n the length of d, `outputs + taps - 1`.

    Source: Winograd 1980, Arithmetic Complexity of Computations; Blahut 2010, Fast Algorithms for Signal Processing,
      section 5.2.
    """
    size, finite = outputs + taps - 1, np.asarray(points, float)
    others = [np.delete(finite, i) for i in range(len(finite))]
    a = np.array([[*finite**i, float(i == outputs - 1)] for i in range(outputs)])
    g = np.array([[p**j / np.prod(p - q) for j in range(taps)] for p, q in zip(finite, others, strict=True)])
    infinity = np.eye(taps)[-1:]
    lines = [np.poly(q)[::-1] for q in (*others, finite)]
    return a, np.concatenate([g, infinity]), np.array([np.pad(line, (0, size - len(line))) for line in lines])


A_T, G, B_T = cook_toom(POINTS, TILE, 3)


def winograd(x: Array, kernel: Array, padding: tuple[int, int], turned: bool = False) -> Array:
    """The 3x3 convolution of stride 1 by F(4x4, 3x3): `y = A^T [(G g G^T) * (B^T d B)] A` for every tile d of x.

    Every tile of 4x4 outputs takes 36 multiplications a pair of channels instead of 144. The sums over channels are
    products of matrices `[tiles, C]` and `[C, O]`, one for each of the 36 places.

    Args:
      x: `[B, H, W, C]`, floating point of at least 32 bits.
      kernel: `[3, 3, C, O]`, or, turned, `[3, 3, O, C]`.
      padding: rows and columns of zeros around x.
      turned: take the kernel rotated by half a turn and with its channels swapped, as gradients need it.

    Returns:
      `[B, H + 2 padding - 2, W + 2 padding - 2, O]`.

    Source: Lavin and Gray 2015, Fast Algorithms for Convolutional Neural Networks (arXiv:1509.09308), section 4.1.
    """
    return isolated(functools.partial(_winograd, padding=padding, turned=turned), x, kernel)


def winograd_kernel_gradient(x: Array, dy: Array, padding: tuple[int, int]) -> Array:
    """The gradient of `winograd` in its kernel: `G^T [sum over tiles (B^T d B)^T (A e A^T)] G`, e the tiles of dy.

    Args:
      x: `[B, H, W, C]`.
      dy: `[B, H', W', O]`.
      padding: rows and columns of zeros around x.

    Returns:
      `[3, 3, C, O]`.
    """
    return isolated(functools.partial(_kernel_gradient, padding=padding), x, dy)


def tiles(height: int, width: int) -> tuple[int, int]:
    """How many tiles cover so many outputs, down and across."""
    return -(-height // TILE), -(-width // TILE)


def isolated(f: Callable[..., Array], *operands: Array) -> Array:
    """`f(*operands)`, kept apart from what comes before and after it in the program.

    XLA on CPU fuses the additions at the end of f into each of their consumers, and computes them again in all of
    them. What stands in a branch is fused with nothing outside, and that the condition holds is hidden from XLA.
    """
    out = jax.eval_shape(f, *operands)
    always = lax.optimization_barrier(jnp.array(True))
    return lax.cond(always, f, lambda *_: jnp.zeros(out.shape, out.dtype), *operands)


def _winograd(x: Array, kernel: Array, padding: tuple[int, int], turned: bool) -> Array:
    batch, height, width, _ = x.shape
    height, width = height + 2 * padding[0] - 2, width + 2 * padding[1] - 2
    down, across = tiles(height, width)
    taps = kernel[::-1, ::-1] if turned else kernel
    contracted = (((1,), (1 if turned else 0,)), ((), ()))
    products = [
        lax.dot_general(data, weights, contracted)
        for data, weights in zip(_data_tiles(x, padding, down, across), _both_ways(G, _grid(taps)), strict=True)
    ]
    squares = _both_ways(A_T, [products[SIDE * i : SIDE * (i + 1)] for i in range(SIDE)])
    pixels = [pixel.reshape(batch, down, across, -1) for pixel in squares]
    lines = [
        jnp.stack(pixels[TILE * i : TILE * (i + 1)], 3).reshape(batch, down, TILE * across, -1) for i in range(TILE)
    ]
    y = jnp.stack(lines, 2).reshape(batch, TILE * down, TILE * across, -1)
    return y[:, :height, :width]


def _kernel_gradient(x: Array, dy: Array, padding: tuple[int, int]) -> Array:
    height, width = dy.shape[1:3]
    down, across = tiles(height, width)
    dy = jnp.pad(dy, ((0, 0), (0, TILE * down - height), (0, TILE * across - width), (0, 0)))
    products = [
        data.T @ error
        for data, error in zip(_data_tiles(x, padding, down, across), _tiles(dy, A_T.T, down, across), strict=True)
    ]
    taps = _both_ways(G.T, [products[SIDE * i : SIDE * (i + 1)] for i in range(SIDE)])
    return jnp.stack(taps).reshape(3, 3, *taps[0].shape)


def _data_tiles(x: Array, padding: tuple[int, int], down: int, across: int) -> list[Array]:
    """B^T d B of all tiles: 36 of `[tiles, C]`."""
    _, height, width, _ = x.shape
    below, right = TILE * down + 2 - height - padding[0], TILE * across + 2 - width - padding[1]
    x = jnp.pad(x, ((0, 0), (padding[0], below), (padding[1], right), (0, 0)))
    return _tiles(x, B_T, down, across)


def _tiles(x: Array, matrix: np.ndarray, down: int, across: int) -> list[Array]:
    """M d M^T of the tiles d that begin at every fourth pixel: for each element of the result `[tiles, C]`."""
    side = matrix.shape[1]
    ends = TILE * (down - 1) + 1, TILE * (across - 1) + 1
    rows = [x[:, i : i + ends[0] : TILE] for i in range(side)]
    return [
        _combine(across_tile, [row[:, :, j : j + ends[1] : TILE] for j in range(side)]).reshape(-1, x.shape[-1])
        for row in (_combine(down_tile, rows) for down_tile in matrix)
        for across_tile in matrix
    ]


def _grid(kernel: Array) -> list[list[Array]]:
    return [[kernel[i, j] for j in range(kernel.shape[1])] for i in range(kernel.shape[0])]


def _both_ways(matrix: np.ndarray, grid: Sequence[Sequence[Array]]) -> list[Array]:
    """M g M^T of a grid of arrays, its elements row by row."""
    columns = [[_combine(line, column) for column in zip(*grid, strict=True)] for line in matrix]
    return [_combine(line, row) for row in columns for line in matrix]


def _combine(factors: np.ndarray, arrays: Sequence[Array]) -> Any:
    """The sum of factors times arrays, leaving out zeros."""
    terms = [
        array if factor == 1 else float(factor) * array for factor, array in zip(factors, arrays, strict=True) if factor
    ]
    return functools.reduce(jnp.add, terms)
