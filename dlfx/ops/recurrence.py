"""Recurrences over time: the products with the inputs and the gradients of all weights are outside the loop over steps.

Each is one product for all steps, and the recurrent one alone is within. What the gradient needs of a step are its
gates and old states; states that went into the recurrent product are the outputs, one step later.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.types import Array, UserError

LSTMState = tuple[Array, Array]


def rnn(
    x: Array,
    kernel: Array,
    bias: Array,
    w: Array,
    h: Array,
    *,
    activation: str = "tanh",
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The simple recurrent network.

    `h_t = f(x_t kernel + bias + h_{t-1} w)`

    Args:
      x: `[B, T, D]`.
      kernel: `[D, H]`.
      bias: `[H]`.
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
    return _over_time(RNN_CELLS[activation], 1, x, kernel, bias, (w,), h, lengths, reverse, mask)


def lstm(
    x: Array,
    kernel: Array,
    bias: Array,
    w: Array,
    state: LSTMState,
    *,
    peepholes: Array | None = None,
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, LSTMState]:
    """Long short-term memory.

    `i, f, g, o = split(x_t kernel + bias + h_{t-1} w)`
    `c_t = sigmoid(f + p_f c_{t-1}) c_{t-1} + sigmoid(i + p_i c_{t-1}) tanh(g)`
    `h_t = sigmoid(o + p_o c_t) tanh(c_t)`

    Args:
      x: `[B, T, D]`.
      kernel, bias, w: `[D, 4 H]`, `[4 H]` and `[H, 4 H]`, in the order i, f, g, o.
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
    weights = (w,) if peepholes is None else (w, peepholes)
    return _over_time(LSTM, 4, x, kernel, bias, weights, state, lengths, reverse, mask)


def gru(
    x: Array,
    kernel: Array,
    bias: Array,
    w: Array,
    h: Array,
    *,
    inner_bias: Array,
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The gated recurrent unit whose reset gate comes after the recurrent product: PyTorch's and cuDNN's.

    `a = x_t kernel + bias`, `r = sigmoid(a_r + h_{t-1} w_r)`, `z = sigmoid(a_z + h_{t-1} w_z)`
    `n = tanh(a_n + r (h_{t-1} w_n + inner_bias))`
    `h_t = (1 - z) n + z h_{t-1}`

    Args:
      x: `[B, T, D]`.
      kernel, bias, w: `[D, 3 H]`, `[3 H]` and `[H, 3 H]`, in the order r, z, n.
      h: `[B, H]`, the state before the first step.
      inner_bias: `[H]`. PyTorch's second bias of r and z is part of `bias`.
      lengths, reverse, mask: as of `rnn`.

    Returns:
      h of all steps `[B, T, H]`, and the last one `[B, H]`.

    Raises:
      UserError: for shapes that do not fit.

    Source: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder, version 1 (arXiv:1406.1078v1).
    """
    if inner_bias.shape != (w.shape[0],):
        raise UserError(f"the inner bias of {w.shape[0]} units is [{w.shape[0]}]; got {list(inner_bias.shape)}")
    return _over_time(GRU, 3, x, kernel, bias, (w, inner_bias), h, lengths, reverse, mask)


def gru_original(
    x: Array,
    kernel: Array,
    bias: Array,
    w: Array,
    h: Array,
    *,
    lengths: Array | None = None,
    reverse: bool = False,
    mask: Array | None = None,
) -> tuple[Array, Array]:
    """The gated recurrent unit as published: the reset gate comes before the recurrent product.

    As `gru`, but with `n = tanh(a_n + (r h_{t-1}) w_n)`.

    Args:
      x, kernel, bias, w, h, lengths, reverse, mask: as of `gru`.

    Returns:
      h of all steps `[B, T, H]`, and the last one `[B, H]`.

    Raises:
      UserError: for shapes that do not fit.

    Source: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder (arXiv:1406.1078), equations 5
      to 8.
    """
    return _over_time(GRU_ORIGINAL, 3, x, kernel, bias, (w,), h, lengths, reverse, mask)


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


RNN_CELLS = {
    "tanh": _rnn_cell(jnp.tanh, lambda y: 1 - y * y),
    "relu": _rnn_cell(jax.nn.relu, lambda y: (y > 0).astype(y.dtype)),
}
LSTM = Cell(_lstm_forward, _lstm_backward, _lstm_weights)
GRU = Cell(_gru_forward, _gru_backward, _gru_weights)
GRU_ORIGINAL = Cell(_gru_original_forward, _gru_original_backward, _gru_original_weights)


def _rows(steps: Array) -> Array:
    """`[T, B, features]` as `[T B, features]`."""
    return steps.reshape(-1, steps.shape[2])


def _product(read: Array, d_a: Array) -> Array:
    """The gradient of w, `[H, G H]`, as one product over steps and sequences."""
    return _rows(read).T @ _rows(d_a)


def _over_time(
    cell: Cell,
    gates: int,
    x: Array,
    kernel: Array,
    bias: Array,
    weights: Any,
    state: Any,
    lengths: Any,
    reverse: bool,
    mask: Array | None,
) -> tuple[Array, Any]:
    """`_scan` of arrays with the batch in front."""
    batch, steps, inputs = x.shape
    units = weights[0].shape[0]
    width = gates * units
    if (kernel.shape, bias.shape, weights[0].shape) != ((inputs, width), (width,), (units, width)):
        raise UserError(
            f"a recurrence from {inputs} features to {units} units with {gates} gates has weights [{inputs}, {width}], "
            f"[{width}] and [{units}, {width}]; got {list(kernel.shape)}, {list(bias.shape)} and "
            f"{list(weights[0].shape)}"
        )
    if any(part.shape != (batch, units) for part in jax.tree.leaves((state, mask))):
        shapes = [list(part.shape) for part in jax.tree.leaves((state, mask))]
        raise UserError(f"states and masks of {batch} sequences are [{batch}, {units}]; got {shapes}")
    counts = None if lengths is None else (jnp.arange(steps)[:, None] < lengths)[..., None]
    outputs, state = _scan(cell, reverse, x.swapaxes(0, 1), kernel, bias, weights, state, counts, mask)
    if counts is not None:
        outputs = jnp.where(counts, outputs, 0)
    return outputs.swapaxes(0, 1), state


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    cell: Cell, reverse: bool, x: Array, kernel: Array, bias: Array, weights: Any, state: Any, counts: Any, mask: Any
) -> tuple[Array, Any]:
    """h after every step `[T, B, H]` and the last state.

    Args:
      cell: what one step does.
      reverse: from the last step to the first.
      x: `[T, B, D]`.
      kernel, bias: `[D, G H]` and `[G H]`.
      weights: those of the cell; first w `[H, G H]`.
      state: h, or a tuple that begins with it, `[B, H]` each.
      counts: `[T, B, 1]`, whether a step changes the state; always if None.
      mask: `[B, H]`, or None.
    """
    (outputs, last), _ = _scan_forward(cell, reverse, x, kernel, bias, weights, state, counts, mask)
    return outputs, last


def _scan_forward(
    cell: Cell, reverse: bool, x: Array, kernel: Array, bias: Array, weights: Any, state: Any, counts: Any, mask: Any
) -> tuple[Any, Any]:
    def step(state: Any, inputs: Any) -> tuple[Any, Any]:
        a, count = inputs
        new, saved = cell.forward(weights, a + bias, _masked(_h(state), mask), state)
        if count is not None:
            new = jax.tree.map(lambda new, old: jnp.where(count, new, old), new, state)
        return new, (_h(new), saved)

    a = (_rows(x) @ kernel).reshape(*x.shape[:2], -1)
    last, (outputs, saved) = lax.scan(step, state, (a, counts), reverse=reverse)
    return (outputs, last), (outputs, saved, _h(state), x, kernel, weights, counts, mask)


def _scan_backward(cell: Cell, reverse: bool, residuals: Any, gradients: Any) -> tuple[Any, ...]:
    outputs, saved, first, x, kernel, weights, counts, mask = residuals
    d_outputs, d_last = gradients
    edge = first[None]
    before = jnp.concatenate([outputs[1:], edge] if reverse else [edge, outputs[:-1]])
    transposed = (weights[0].T, *weights[1:])

    def step(d_state: Any, inputs: Any) -> tuple[Any, Array]:
        saved, before, d_output, count = inputs
        d_state = _add_to_h(d_state, d_output)
        d_old = None
        if count is not None:
            d_old = jax.tree.map(lambda part: jnp.where(count, 0, part), d_state)
            d_state = jax.tree.map(lambda part: jnp.where(count, part, 0), d_state)
        d_a, d_read, d_state = cell.backward(transposed, saved, _masked(before, mask), before, d_state)
        d_state = _add_to_h(d_state, _masked(d_read, mask))
        return d_state if d_old is None else jax.tree.map(jnp.add, d_state, d_old), d_a

    d_state, d_a = lax.scan(step, d_last, (saved, before, d_outputs, counts), reverse=not reverse)
    d_rows = _rows(d_a)
    d_x = (d_rows @ kernel.T).reshape(x.shape)
    d_weights = cell.weights(weights, _masked(before, mask), saved, d_a)
    return d_x, _rows(x).T @ d_rows, d_rows.sum(0), d_weights, d_state, None, None


def _h(state: Any) -> Array:
    return state[0] if isinstance(state, tuple) else state


def _masked(h: Array, mask: Array | None) -> Array:
    return h if mask is None else h * mask


def _add_to_h(state: Any, h: Array) -> Any:
    return (state[0] + h, *state[1:]) if isinstance(state, tuple) else state + h


_scan.defvjp(_scan_forward, _scan_backward)
