"""The cells of recurrences: one step, its gradient, and the gradients of the weights from all steps at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import Array


class Cell(NamedTuple):
    """One step, its gradient, and the gradients of the weights from all steps.

    Attributes:
      forward: (weights, a `[B, G H]`, h to multiply by w, state) to (state, what the gradient needs); a is what the
        inputs give.
      backward: (weights with w transposed, what it needs, h that was multiplied, h before, gradient of the new state)
        to gradients of (a, h to multiply, old state).
      weights: (weights, h multiplied, what was needed, gradient of a), of all steps, `[T, B, features]`, to gradients.
    """

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Array, Array, Any]]
    weights: Callable[..., tuple[Array, ...]]


def _rnn_cell(function: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Cell:
    """`derivative` is of the function's value."""

    def forward(weights: Any, a: Array, read: Array, h: Array) -> tuple[Array, Any]:
        h = function(a + read @ weights[0])
        return h, h

    def backward(weights: Any, h: Array, read: Array, before: Array, d_h: Array) -> tuple[Array, Array, Array]:
        d_a = d_h * derivative(h)
        return d_a, d_a @ weights[0], jnp.zeros_like(d_h)

    return Cell(forward, backward, lambda weights, read, saved, d_a: (_product(read, d_a),))


def _lstm_forward(weights: Any, a: Array, read: Array, state: Any) -> tuple[Any, Any]:
    _, c = state
    a = a + read @ weights[0]
    if len(weights) == 1:
        # sigmoid(x) = (tanh(x / 2) + 1) / 2 makes one function of all gates, and one loop.
        scale = np.repeat([0.5, 0.5, 1, 0.5], c.shape[1]).astype(a.dtype)
        shift = np.repeat([0.5, 0.5, 0, 0.5], c.shape[1]).astype(a.dtype)
        gates = jnp.tanh(a * scale) * scale + shift
        i, f, g, o = jnp.split(gates, 4, 1)
        new = f * c + i * g
    else:
        i, f, g, o = jnp.split(a, 4, 1)
        to_i, to_f, to_o = weights[1]
        i, f, g = jax.nn.sigmoid(i + to_i * c), jax.nn.sigmoid(f + to_f * c), jnp.tanh(g)
        new = f * c + i * g
        o = jax.nn.sigmoid(o + to_o * new)
        gates = jnp.concatenate([i, f, g, o], 1)
    return (o * jnp.tanh(new), new), (gates, c)


def _lstm_backward(weights: Any, saved: Any, read: Array, before: Array, d_state: Any) -> tuple[Array, Array, Any]:
    gates, c = saved
    i, f, g, o = jnp.split(gates, 4, 1)
    d_h, d_c = d_state
    squashed = jnp.tanh(f * c + i * g)
    d_o = d_h * squashed * o * (1 - o)
    d_c = d_c + d_h * o * (1 - squashed * squashed)
    if len(weights) == 2:
        d_c = d_c + d_o * weights[1][2]
    d_i, d_f, d_g = d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g * g)
    d_c = d_c * f
    if len(weights) == 2:
        d_c = d_c + d_i * weights[1][0] + d_f * weights[1][1]
    d_a = jnp.concatenate([d_i, d_f, d_g, d_o], 1)
    return d_a, d_a @ weights[0], (jnp.zeros_like(d_h), d_c)


def _lstm_weights(weights: Any, read: Array, saved: Any, d_a: Array) -> tuple[Array, ...]:
    d_w = _product(read, d_a)
    if len(weights) == 1:
        return (d_w,)
    gates, c = saved
    i, f, g, _ = jnp.split(gates, 4, 2)
    d_i, d_f, _, d_o = jnp.split(d_a, 4, 2)
    return d_w, jnp.stack([(d * seen).sum((0, 1)) for d, seen in ((d_i, c), (d_f, c), (d_o, f * c + i * g))])


def _gru_forward(weights: Any, a: Array, read: Array, h: Array) -> tuple[Array, Any]:
    w, bias = weights
    units = h.shape[1]
    product = read @ w
    r, z = jnp.split(jax.nn.sigmoid(a[:, : 2 * units] + product[:, : 2 * units]), 2, 1)
    inner = product[:, 2 * units :] + bias
    n = jnp.tanh(a[:, 2 * units :] + r * inner)
    return n + z * (h - n), (r, z, n, inner)


def _gru_backward(weights: Any, saved: Any, read: Array, before: Array, d_h: Array) -> tuple[Array, Array, Array]:
    r, z, n, inner = saved
    d_n = d_h * (1 - z) * (1 - n * n)
    d_z = d_h * (before - n) * z * (1 - z)
    d_r = d_n * inner * r * (1 - r)
    return jnp.concatenate([d_r, d_z, d_n], 1), jnp.concatenate([d_r, d_z, d_n * r], 1) @ weights[0], d_h * z


def _gru_weights(weights: Any, read: Array, saved: Any, d_a: Array) -> tuple[Array, ...]:
    units = read.shape[2]
    d_inner = d_a[..., 2 * units :] * saved[0]
    return _product(read, jnp.concatenate([d_a[..., : 2 * units], d_inner], 2)), d_inner.sum((0, 1))


def _gru_original_forward(weights: Any, a: Array, read: Array, h: Array) -> tuple[Array, Any]:
    (w,) = weights
    units = h.shape[1]
    r, z = jnp.split(jax.nn.sigmoid(a[:, : 2 * units] + read @ w[:, : 2 * units]), 2, 1)
    n = jnp.tanh(a[:, 2 * units :] + (r * read) @ w[:, 2 * units :])
    return n + z * (h - n), (r, z, n)


def _gru_original_backward(
    weights: Any, saved: Any, read: Array, before: Array, d_h: Array
) -> tuple[Array, Array, Array]:
    r, z, n = saved
    (w,) = weights
    units = d_h.shape[1]
    d_n = d_h * (1 - z) * (1 - n * n)
    d_z = d_h * (before - n) * z * (1 - z)
    d_kept = d_n @ w[2 * units :]
    d_r = d_kept * read * r * (1 - r)
    d_gates = jnp.concatenate([d_r, d_z], 1)
    return jnp.concatenate([d_gates, d_n], 1), d_gates @ w[: 2 * units] + d_kept * r, d_h * z


def _gru_original_weights(weights: Any, read: Array, saved: Any, d_a: Array) -> tuple[Array, ...]:
    units = read.shape[2]
    parts = _product(read, d_a[..., : 2 * units]), _product(saved[0] * read, d_a[..., 2 * units :])
    return (jnp.concatenate(parts, 1),)


def rows_of(steps: Array) -> Array:
    """`[T, B, features]` as `[T B, features]`."""
    return steps.reshape(-1, steps.shape[2])


def _product(read: Array, d_a: Array) -> Array:
    """The gradient of w, `[H, G H]`, as one product over steps and sequences."""
    return rows_of(read).T @ rows_of(d_a)


RNN_CELLS = {
    "tanh": _rnn_cell(jnp.tanh, lambda y: 1 - y * y),
    "relu": _rnn_cell(jax.nn.relu, lambda y: (y > 0).astype(y.dtype)),
}
LSTM = Cell(_lstm_forward, _lstm_backward, _lstm_weights)
GRU = Cell(_gru_forward, _gru_backward, _gru_weights)
GRU_ORIGINAL = Cell(_gru_original_forward, _gru_original_backward, _gru_original_weights)
