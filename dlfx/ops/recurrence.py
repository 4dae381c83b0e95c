"""Recurrences over time: the products with the inputs and the gradients of all weights are outside the loop over steps.

Each is one product for all steps, and the recurrent one alone is within. What the gradient needs of a step are its
gates and old states; states that went into the recurrent product are the outputs, one step later.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.ops.recurrent_cells import GRU, GRU_ORIGINAL, LSTM, RNN_CELLS, Cell, rows_of
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

    a = (rows_of(x) @ kernel).reshape(*x.shape[:2], -1)
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
    d_rows = rows_of(d_a)
    d_x = (d_rows @ kernel.T).reshape(x.shape)
    d_weights = cell.weights(weights, _masked(before, mask), saved, d_a)
    return d_x, rows_of(x).T @ d_rows, d_rows.sum(0), d_weights, d_state, None, None


def _h(state: Any) -> Array:
    return state[0] if isinstance(state, tuple) else state


def _masked(h: Array, mask: Array | None) -> Array:
    return h if mask is None else h * mask


def _add_to_h(state: Any, h: Array) -> Any:
    return (state[0] + h, *state[1:]) if isinstance(state, tuple) else state + h


_scan.defvjp(_scan_forward, _scan_backward)
