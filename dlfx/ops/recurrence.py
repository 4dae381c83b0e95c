"""Recurrences over time: only what depends on the state is within the loop.

The products with the inputs are the caller's, one for all time steps. The gradient of the recurrent weights is one
product for all time steps too, after the loop backward. Within the loops the batch is the last axis, `[features, B]`:
gates are then contiguous, and a product with so few columns is twice as fast on CPU as one with so few rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array, UserError

LSTMState = tuple[Array, Array]


def rnn(
    x: Array,
    w: Array,
    h: Array,
    *,
    activation: str = "tanh",
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The simple recurrent network.

    `h_t = f(x_t + h_{t-1} w)`

    Args:
      x: `[B, T, H]`, the inputs times their weights, with the bias.
      w: `[H, H]`.
      h: `[B, H]`, the state before the first step.
      activation: f, `tanh` or `relu`.
      lengths: `[B]`, how many steps of each sequence count. Beyond them the state stays and the outputs are 0.
      reverse: from the last step of each sequence to its first.
      mask: `[B, H]`, which multiplies the state on its way into the product at every step; no gradient reaches it.

    Returns:
      The states of all steps `[B, T, H]`, and the last one `[B, H]`.

    Raises:
      UserError: for another activation or shapes that do not fit.

    Source: Elman 1990, Finding Structure in Time. The mask: Gal and Ghahramani 2016 (arXiv:1512.05287), equation 7.
    """
    if activation not in RNN_CELLS:
        raise UserError(f"a simple recurrent network has activation {' or '.join(RNN_CELLS)}; got {activation!r}")
    return _over_time(RNN_CELLS[activation], 1, x, (w,), h, lengths, reverse, mask)


def lstm(
    x: Array,
    w: Array,
    state: LSTMState,
    *,
    peepholes: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, LSTMState]:
    """Long short-term memory.

    `i, f, g, o = split(x_t + h_{t-1} w)`
    `c_t = sigmoid(f + p_f c_{t-1}) c_{t-1} + sigmoid(i + p_i c_{t-1}) tanh(g)`
    `h_t = sigmoid(o + p_o c_t) tanh(c_t)`

    Args:
      x: `[B, T, 4 H]`, the inputs times their weights, with the bias, in the order i, f, g, o.
      w: `[H, 4 H]`.
      state: h and c before the first step, `[B, H]` each.
      peepholes: `[3, H]`, p_i, p_f and p_o; none if None.
      lengths, reverse, mask: as of `rnn`.

    Returns:
      h of all steps `[B, T, H]`, and the last h and c.

    Raises:
      UserError: for shapes that do not fit.

    Source: Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000 for the forget gate; Gers, Schraudolph
      and Schmidhuber 2002 for the peepholes; as in Graves 2013 (arXiv:1308.0850), equations 7 to 11.
    """
    if peepholes is not None and peepholes.shape != (3, w.shape[0]):
        raise UserError(f"peepholes of {w.shape[0]} units are [3, {w.shape[0]}]; got {list(peepholes.shape)}")
    weights = (w,) if peepholes is None else (w, peepholes[..., None])
    return _over_time(LSTM, 4, x, weights, state, lengths, reverse, mask)


def gru(
    x: Array,
    w: Array,
    h: Array,
    *,
    bias: Array,
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The gated recurrent unit whose reset gate comes after the recurrent product: PyTorch's and cuDNN's.

    `r = sigmoid(x_r + h_{t-1} w_r)`, `z = sigmoid(x_z + h_{t-1} w_z)`
    `n = tanh(x_n + r (h_{t-1} w_n + bias))`
    `h_t = (1 - z) n + z h_{t-1}`

    Args:
      x: `[B, T, 3 H]`, the inputs times their weights, with their bias, in the order r, z, n.
      w: `[H, 3 H]`.
      h: `[B, H]`, the state before the first step.
      bias: `[H]`. That of r and z is part of x's.
      lengths, reverse, mask: as of `rnn`.

    Returns:
      h of all steps `[B, T, H]`, and the last one `[B, H]`.

    Raises:
      UserError: for shapes that do not fit.

    Source: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, version 1 (arXiv:1406.1078v1).
    """
    if bias.shape != (w.shape[0],):
        raise UserError(f"the recurrent bias of {w.shape[0]} units is [{w.shape[0]}]; got {list(bias.shape)}")
    return _over_time(GRU, 3, x, (w, bias[:, None]), h, lengths, reverse, mask)


def gru_original(
    x: Array,
    w: Array,
    h: Array,
    *,
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The gated recurrent unit as published: the reset gate comes before the recurrent product.

    As `gru`, but with `n = tanh(x_n + (r h_{t-1}) w_n)`.

    Args:
      x, w, h, lengths, reverse, mask: as of `gru`.

    Returns:
      h of all steps `[B, T, H]`, and the last one `[B, H]`.

    Raises:
      UserError: for shapes that do not fit.

    Source: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder (arXiv:1406.1078), equations 5
      to 8.
    """
    return _over_time(GRU_ORIGINAL, 3, x, (w,), h, lengths, reverse, mask)


class Cell(NamedTuple):
    """One step, its gradient, and the gradients of the weights from all steps.

    Attributes:
      forward: (weights with w transposed, x, h to multiply by w, state) to (state, what the gradient needs).
      backward: (weights, what it needs, gradient of the new state) to gradients of (x, h to multiply, old state).
      weights: (weights, h multiplied, what was needed, gradient of x), of all steps, `[T, features, B]`, to gradients.
    """

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Array, Array, Any]]
    weights: Callable[..., tuple[Array, ...]]


def _rnn_cell(function: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Cell:
    """`derivative` is of the function's value."""

    def forward(weights: Any, x: Array, read: Array, h: Array) -> tuple[Array, Any]:
        h = function(x + weights[0] @ read)
        return h, h

    def backward(weights: Any, h: Array, d_h: Array) -> tuple[Array, Array, Array]:
        d_x = d_h * derivative(h)
        return d_x, weights[0] @ d_x, jnp.zeros_like(d_h)

    return Cell(forward, backward, lambda weights, read, saved, d_x: (_product(read, d_x),))


def _lstm_forward(weights: Any, x: Array, read: Array, state: Any) -> tuple[Any, Any]:
    _, c = state
    i, f, g, o = jnp.split(x + weights[0] @ read, 4)
    if len(weights) == 2:
        i, f = i + weights[1][0] * c, f + weights[1][1] * c
    i, f, g = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g)
    new = f * c + i * g
    if len(weights) == 2:
        o = o + weights[1][2] * new
    o, squashed = jax.nn.sigmoid(o), jnp.tanh(new)
    return (o * squashed, new), (i, f, g, o, c, squashed)


def _lstm_backward(weights: Any, saved: Any, d_state: Any) -> tuple[Array, Array, Any]:
    i, f, g, o, c, squashed = saved
    d_h, d_c = d_state
    d_o = d_h * squashed * o * (1 - o)
    d_c = d_c + d_h * o * (1 - squashed * squashed)
    if len(weights) == 2:
        d_c = d_c + d_o * weights[1][2]
    d_i, d_f, d_g = d_c * g * i * (1 - i), d_c * c * f * (1 - f), d_c * i * (1 - g * g)
    d_c = d_c * f
    if len(weights) == 2:
        d_c = d_c + d_i * weights[1][0] + d_f * weights[1][1]
    d_x = jnp.concatenate([d_i, d_f, d_g, d_o])
    return d_x, weights[0] @ d_x, (jnp.zeros_like(d_h), d_c)


def _lstm_weights(weights: Any, read: Array, saved: Any, d_x: Array) -> tuple[Array, ...]:
    d_w = _product(read, d_x)
    if len(weights) == 1:
        return (d_w,)
    i, f, g, _, c, _ = saved
    d_i, d_f, _, d_o = jnp.split(d_x, 4, 1)
    sums = [(d * seen).sum((0, 2)) for d, seen in ((d_i, c), (d_f, c), (d_o, f * c + i * g))]
    return d_w, jnp.stack(sums)[..., None]


def _gru_forward(weights: Any, x: Array, read: Array, h: Array) -> tuple[Array, Any]:
    w, bias = weights
    units = len(h)
    product = w @ read
    r, z = jnp.split(jax.nn.sigmoid(x[: 2 * units] + product[: 2 * units]), 2)
    inner = product[2 * units :] + bias
    n = jnp.tanh(x[2 * units :] + r * inner)
    return n + z * (h - n), (r, z, n, inner, h)


def _gru_backward(weights: Any, saved: Any, d_h: Array) -> tuple[Array, Array, Array]:
    r, z, n, inner, h = saved
    d_n = d_h * (1 - z) * (1 - n * n)
    d_z = d_h * (h - n) * z * (1 - z)
    d_r = d_n * inner * r * (1 - r)
    return jnp.concatenate([d_r, d_z, d_n]), weights[0] @ jnp.concatenate([d_r, d_z, d_n * r]), d_h * z


def _gru_weights(weights: Any, read: Array, saved: Any, d_x: Array) -> tuple[Array, ...]:
    units = weights[0].shape[0]
    d_inner = d_x[:, 2 * units :] * saved[0]
    product = _product(read, jnp.concatenate([d_x[:, : 2 * units], d_inner], 1))
    return product, d_inner.sum((0, 2))[:, None]


def _gru_original_forward(weights: Any, x: Array, read: Array, h: Array) -> tuple[Array, Any]:
    (w,) = weights
    units = len(h)
    r, z = jnp.split(jax.nn.sigmoid(x[: 2 * units] + w[: 2 * units] @ read), 2)
    n = jnp.tanh(x[2 * units :] + w[2 * units :] @ (r * read))
    return n + z * (h - n), (r, z, n, read, h)


def _gru_original_backward(weights: Any, saved: Any, d_h: Array) -> tuple[Array, Array, Array]:
    r, z, n, read, h = saved
    (w,) = weights
    units = len(h)
    d_n = d_h * (1 - z) * (1 - n * n)
    d_z = d_h * (h - n) * z * (1 - z)
    d_kept = w[:, 2 * units :] @ d_n
    d_r = d_kept * read * r * (1 - r)
    d_gates = jnp.concatenate([d_r, d_z])
    return jnp.concatenate([d_gates, d_n]), w[:, : 2 * units] @ d_gates + d_kept * r, d_h * z


def _gru_original_weights(weights: Any, read: Array, saved: Any, d_x: Array) -> tuple[Array, ...]:
    units = weights[0].shape[0]
    parts = _product(read, d_x[:, : 2 * units]), _product(saved[0] * read, d_x[:, 2 * units :])
    return (jnp.concatenate(parts, 1),)


RNN_CELLS = {
    "tanh": _rnn_cell(jnp.tanh, lambda y: 1 - y * y),
    "relu": _rnn_cell(jax.nn.relu, lambda y: (y > 0).astype(y.dtype)),
}
LSTM = Cell(_lstm_forward, _lstm_backward, _lstm_weights)
GRU = Cell(_gru_forward, _gru_backward, _gru_weights)
GRU_ORIGINAL = Cell(_gru_original_forward, _gru_original_backward, _gru_original_weights)


def _product(read: Array, d_x: Array) -> Array:
    """The gradient of w, `[H, G H]`, as one product over all steps and sequences."""
    return jnp.einsum("thb,tgb->hg", read, d_x)


def _over_time(
    cell: Cell, gates: int, x: Array, weights: Any, state: Any, lengths: Any, reverse: bool, mask: Array | None
) -> tuple[Array, Any]:
    """`_scan` of arrays with the batch in front."""
    units = weights[0].shape[0]
    batch, steps, width = x.shape
    if width != gates * units or weights[0].shape != (units, width):
        raise UserError(
            f"a recurrence of {units} units with {gates} gates takes inputs [B, T, {gates * units}] and weights "
            f"[{units}, {gates * units}]; got {list(x.shape)} and {list(weights[0].shape)}"
        )
    if any(part.shape != (batch, units) for part in jax.tree.leaves((state, mask))):
        shapes = [list(part.shape) for part in jax.tree.leaves((state, mask))]
        raise UserError(f"states and masks of {batch} sequences are [{batch}, {units}]; got {shapes}")
    counts = None if lengths is None else (jnp.arange(steps)[:, None] < lengths)[:, None]  # [T, 1, B]
    state, mask = jax.tree.map(lambda part: part.T, (state, mask))
    outputs, state = _scan(cell, reverse, x.transpose(1, 2, 0), weights, state, counts, mask)
    if counts is not None:
        outputs = jnp.where(counts, outputs, 0)
    return outputs.transpose(2, 0, 1), jax.tree.map(lambda part: part.T, state)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(cell: Cell, reverse: bool, x: Array, weights: Any, state: Any, counts: Any, mask: Any) -> tuple[Array, Any]:
    """h after every step `[T, H, B]` and the last state.

    Args:
      cell: what one step does.
      reverse: from the last step to the first.
      x: `[T, G H, B]`.
      weights: those of the cell; first w `[H, G H]`.
      state: h, or a tuple that begins with it, `[H, B]` each.
      counts: `[T, 1, B]`, whether a step changes the state; always if None.
      mask: `[H, B]`, or None.
    """
    (outputs, _), state = _forward(cell, reverse, x, weights, state, counts, mask, save=False)
    return outputs, state


def _h(state: Any) -> Array:
    return state[0] if isinstance(state, tuple) else state


def _forward(
    cell: Cell, reverse: bool, x: Array, weights: Any, state: Any, counts: Any, mask: Any, save: bool
) -> tuple[Any, Any]:
    weights = (weights[0].T, *weights[1:])

    def step(state: Any, inputs: Any) -> tuple[Any, Any]:
        x, count = inputs
        h = _h(state)
        new, saved = cell.forward(weights, x, h if mask is None else h * mask, state)
        if count is not None:
            new = jax.tree.map(lambda new, old: jnp.where(count, new, old), new, state)
        return new, (_h(new), saved if save else None)

    state, kept = lax.scan(step, state, (x, counts), reverse=reverse)
    return kept, state


def _scan_forward(
    cell: Cell, reverse: bool, x: Array, weights: Any, state: Any, counts: Any, mask: Any
) -> tuple[Any, Any]:
    (outputs, saved), last = _forward(cell, reverse, x, weights, state, counts, mask, save=True)
    return (outputs, last), (outputs, saved, weights, _h(state), counts, mask)


def _scan_backward(cell: Cell, reverse: bool, residuals: Any, gradients: Any) -> tuple[Any, ...]:
    outputs, saved, weights, first, counts, mask = residuals
    d_outputs, d_last = gradients

    def step(d_state: Any, inputs: Any) -> tuple[Any, Array]:
        saved, d_output, count = inputs
        d_state = _add_to_h(d_state, d_output)
        d_old = None
        if count is not None:
            d_old = jax.tree.map(lambda part: jnp.where(count, 0, part), d_state)
            d_state = jax.tree.map(lambda part: jnp.where(count, part, 0), d_state)
        d_x, d_read, d_state = cell.backward(weights, saved, d_state)
        d_state = _add_to_h(d_state, d_read if mask is None else d_read * mask)
        return d_state if d_old is None else jax.tree.map(jnp.add, d_state, d_old), d_x

    d_state, d_x = lax.scan(step, d_last, (saved, d_outputs, counts), reverse=not reverse)
    before = [outputs[1:], first[None]] if reverse else [first[None], outputs[:-1]]
    read = jnp.concatenate(before)
    d_weights = cell.weights(weights, read if mask is None else read * mask, saved, d_x)
    return d_x, d_weights, d_state, None, None


def _add_to_h(state: Any, h: Array) -> Any:
    return (state[0] + h, *state[1:]) if isinstance(state, tuple) else state + h


_scan.defvjp(_scan_forward, _scan_backward)
