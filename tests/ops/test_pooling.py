"""Pooling against loops written out, in values and in where the gradient goes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.pooling import avg_pool, max_pool

NONE = ((0, 0), (0, 0))
CASES = [
    # shape, window, stride, padding
    ((2, 4, 6, 3), 2, None, NONE),  # tiles
    ((1, 6, 6, 2), (3, 2), None, NONE),  # oblong tiles
    ((4, 4, 1), 2, 2, NONE),  # no batch axis
    ((2, 2, 4, 4, 1), 2, None, NONE),  # two of them
    ((2, 5, 7, 2), 2, None, NONE),  # a row and a column left over
    ((1, 6, 6, 2), 3, 1, NONE),  # overlapping
    ((1, 7, 8, 2), (3, 2), (2, 1), NONE),
    ((2, 8, 8, 2), 3, 2, ((1, 1), (1, 1))),  # the stem of ResNet
    ((1, 5, 4, 1), 2, 2, ((0, 1), (2, 1))),
    ((1, 6, 6, 1), 1, 2, NONE),  # subsampling
    ((1, 3, 3, 1), 3, None, NONE),  # global
]


def loop(x: np.ndarray, window: Any, stride: Any, padding: Any, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The pooled x, and the gradient of `sum(y * weights(y))` with respect to x."""
    height, width = (window, window) if isinstance(window, int) else window
    down, right = (height, width) if stride is None else (stride, stride) if isinstance(stride, int) else stride
    (above, below), (left, right_pad) = padding
    fill = -np.inf if kind == "max" else 0.0
    flat = x.reshape(-1, *x.shape[-3:])
    padded = np.pad(flat, ((0, 0), (above, below), (left, right_pad), (0, 0)), constant_values=fill)
    batch, rows, columns, channels = padded.shape
    y = np.empty((batch, (rows - height) // down + 1, (columns - width) // right + 1, channels))
    gradient, weight = np.zeros_like(padded), weights(y.shape)
    for b, i, j, c in np.ndindex(*y.shape):
        top, start = i * down, j * right
        values = padded[b, top : top + height, start : start + width, c]
        if kind == "max":
            u, v = divmod(int(values.argmax()), width)  # the first in row-major order
            y[b, i, j, c] = values[u, v]
            gradient[b, top + u, start + v, c] += weight[b, i, j, c]
        else:
            y[b, i, j, c] = values.mean()
            gradient[b, top : top + height, start : start + width, c] += weight[b, i, j, c] / values.size
    gradient = gradient[:, above : rows - below, left : columns - right_pad]
    return y.reshape(*x.shape[:-3], *y.shape[1:]), gradient.reshape(x.shape)


def weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1.0, 1 + np.prod(shape)).reshape(shape)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("shape, window, stride, padding", CASES)
@pytest.mark.parametrize("ties", [False, True])
def test_equals_the_loop(shape: Any, window: Any, stride: Any, padding: Any, kind: str, ties: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, shape).astype(np.float64) if ties else rng.normal(size=shape)
    pool = {"max": max_pool, "avg": avg_pool}[kind]
    expected, expected_gradient = loop(x, window, stride, padding, kind)

    @jax.jit
    def run(x: jax.Array) -> Any:
        y, vjp = jax.vjp(lambda x: pool(x, window, stride, padding), x)
        flat = (-1, *y.shape[-3:])
        return y, vjp(jnp.asarray(weights(y.reshape(flat).shape), y.dtype).reshape(y.shape))[0]

    with jax.enable_x64(True):
        y, gradient = run(x)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-12, atol=1e-15)
        assert y.dtype == gradient.dtype == jnp.float64


@pytest.mark.parametrize("window, stride", [(2, None), (2, 1), (3, None)])
def test_of_equal_values_the_first_gets_the_whole_gradient(window: int, stride: int | None) -> None:
    x = np.ones((6, 6, 1), np.float32)
    gradient = jax.jit(jax.grad(lambda x: max_pool(x, window, stride).sum()))(x)
    step = stride or window
    expected = np.zeros((6, 6, 1))
    expected[: 6 - window + 1 : step, : 6 - window + 1 : step] = 1
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize(
    "window, stride, padding",
    [
        (3, 1, ((1, 1), (1, 1))),
        ((2, 3), (1, 2), ((0, 1), (2, 0))),
        (2, 2, ((3, 0), (0, 3))),  # windows that hold nothing
        (3, 1, NONE),
        (3, 2, ((0, 0), (1, 1))),
    ],
)
def test_an_average_may_leave_out_the_padding(window: Any, stride: Any, padding: Any) -> None:
    """Sum of the elements in the window over how many they are: two averages with the padding, of x and of ones."""
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 3))
    total, _ = loop(x, window, stride, padding, "avg")
    share, _ = loop(np.ones_like(x), window, stride, padding, "avg")
    with jax.enable_x64(True):
        y = jax.jit(lambda x: avg_pool(x, window, stride, padding, count_padding=False))(x)
    np.testing.assert_allclose(y, np.divide(total, share, out=np.zeros_like(total), where=share > 0), rtol=1e-12)
    flat = avg_pool(jnp.full((1, 6, 7, 3), 2.5, jnp.bfloat16), window, stride, padding, count_padding=False)
    assert flat.dtype == jnp.bfloat16
    np.testing.assert_array_equal(flat[0], np.where(share[0] > 0, 2.5, 0))  # a constant stays what it is


def test_an_average_gives_a_quarter_to_each() -> None:
    gradient = jax.grad(lambda x: avg_pool(x, 2).sum())(np.zeros((4, 4, 1), np.float32))
    np.testing.assert_array_equal(gradient, np.full((4, 4, 1), 0.25))


@pytest.mark.parametrize("window, stride", [(2, None), (3, 2)])
def test_the_average_is_linear_and_the_maximum_is_not(window: int, stride: int | None) -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 6, 6, 3))
    for pool, linear in ((avg_pool, True), (max_pool, False)):
        f = jax.jit(partial(pool, window=window, stride=stride))
        assert np.allclose(f(x - 2 * y), f(x) - 2 * f(y), atol=1e-6) == linear


def test_the_maximum_is_invariant_to_shifts_only_within_its_window() -> None:
    spot = np.zeros((3, 8, 8, 1), np.float32)
    spot[0, 2, 2] = spot[1, 2, 3] = spot[2, 2, 4] = 1
    pooled, within, across = jax.jit(lambda x: max_pool(x, 2))(spot)
    np.testing.assert_array_equal(within, pooled)
    assert not np.array_equal(across, pooled)


@pytest.mark.parametrize("stride", [2, 1])
def test_special_values(stride: int) -> None:
    pool = jax.jit(max_pool, static_argnums=(1, 2, 3))
    x = np.zeros((2, 4, 1), np.float32)
    x[1, 1], x[:, 2:] = np.nan, -np.inf
    y = pool(x, 2, stride)[0, :, 0].tolist()
    assert np.isnan(y[0]) and y[-1] == -np.inf
    integers = np.array([[[3], [-8]], [[-5], [1]]], np.int8)
    pooled = pool(integers, 2, stride)
    assert pooled.dtype == jnp.int8 and pooled.item() == 3
    padded = pool(-np.abs(integers), 2, 2, ((1, 1), (1, 1)))
    np.testing.assert_array_equal(padded[..., 0], [[-3, -8], [-5, -1]])
    assert jax.eval_shape(lambda x: max_pool(x, 2, stride), jnp.ones((2, 2, 1), jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("pool", [max_pool, avg_pool])
@pytest.mark.parametrize("window, stride", [(2, None), (3, 1)])
def test_vmap_and_forward_mode_agree_with_reverse_mode(pool: Any, window: int, stride: int | None) -> None:
    x, tangent = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 2)).astype(np.float32)

    @jax.jit
    def run(x: jax.Array, tangent: jax.Array) -> Any:
        f = partial(pool, window=window, stride=stride)
        y, dy = jax.jvp(f, (x,), (tangent,))
        (gradient,) = jax.vjp(f, x)[1](y)
        return jax.vmap(f)(x), y, dy, gradient

    mapped, y, dy, gradient = run(x, tangent)
    np.testing.assert_array_equal(mapped, y)
    np.testing.assert_allclose(np.vdot(y, dy), np.vdot(gradient, tangent), rtol=1e-4)
