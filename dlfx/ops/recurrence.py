"""Recurrences over time: the products with the inputs and the gradients of all weights are outside the loop over steps.

Each is one product for many steps, and the recurrent one alone is within. Within, the batch is the last axis,
`[features, B]`: gates are then contiguous, and a product with so few columns is twice as fast on CPU as one with so few
rows. On CPU the steps go by chunks, of which everything but what the gradient needs stays in the cache; elsewhere all
steps are one chunk.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array, UserError

LSTMState = tuple[Array, Array]
CHUNK = 16  # steps on CPU


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
    weights = (w,) if peepholes is None else (w, peepholes[..., None])
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
    return _over_time(GRU, 3, x, kernel, bias, (w, inner_bias[:, None]), h, lengths, reverse, mask)


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
    """One step, its gradient, and the gradients of the weights from many steps.

    Attributes:
      forward: (weights with w transposed, a `[G H, B]`, h to multiply by w, state) to (state, what the gradient needs);
        a is what the inputs give.
      backward: (weights, what it needs, gradient of the new state) to gradients of (a, h to multiply, old state).
      weights: (weights, h multiplied, what was needed, gradient of a), of many steps, `[T, features, B]`, to gradients.
    """

    forward: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Array, Array, Any]]
    weights: Callable[..., tuple[Array, ...]]


def _rnn_cell(function: Callable[[Array], Array], derivative: Callable[[Array], Array]) -> Cell:
    """`derivative` is of the function's value."""

    def forward(weights: Any, a: Array, read: Array, h: Array) -> tuple[Array, Any]:
        h = function(a + weights[0] @ read)
        return h, h

    def backward(weights: Any, h: Array, d_h: Array) -> tuple[Array, Array, Array]:
        d_a = d_h * derivative(h)
        return d_a, weights[0] @ d_a, jnp.zeros_like(d_h)

    return Cell(forward, backward, lambda weights, read, saved, d_a: (_product(read, d_a),))


def _lstm_forward(weights: Any, a: Array, read: Array, state: Any) -> tuple[Any, Any]:
    _, c = state
    i, f, g, o = jnp.split(a + weights[0] @ read, 4)
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
    d_a = jnp.concatenate([d_i, d_f, d_g, d_o])
    return d_a, weights[0] @ d_a, (jnp.zeros_like(d_h), d_c)


def _lstm_weights(weights: Any, read: Array, saved: Any, d_a: Array) -> tuple[Array, ...]:
    d_w = _product(read, d_a)
    if len(weights) == 1:
        return (d_w,)
    i, f, g, _, c, _ = saved
    d_i, d_f, _, d_o = jnp.split(d_a, 4, 1)
    sums = [(d * seen).sum((0, 2)) for d, seen in ((d_i, c), (d_f, c), (d_o, f * c + i * g))]
    return d_w, jnp.stack(sums)[..., None]


def _gru_forward(weights: Any, a: Array, read: Array, h: Array) -> tuple[Array, Any]:
    w, bias = weights
    units = len(h)
    product = w @ read
    r, z = jnp.split(jax.nn.sigmoid(a[: 2 * units] + product[: 2 * units]), 2)
    inner = product[2 * units :] + bias
    n = jnp.tanh(a[2 * units :] + r * inner)
    return n + z * (h - n), (r, z, n, inner, h)


def _gru_backward(weights: Any, saved: Any, d_h: Array) -> tuple[Array, Array, Array]:
    r, z, n, inner, h = saved
    d_n = d_h * (1 - z) * (1 - n * n)
    d_z = d_h * (h - n) * z * (1 - z)
    d_r = d_n * inner * r * (1 - r)
    return jnp.concatenate([d_r, d_z, d_n]), weights[0] @ jnp.concatenate([d_r, d_z, d_n * r]), d_h * z


def _gru_weights(weights: Any, read: Array, saved: Any, d_a: Array) -> tuple[Array, ...]:
    units = weights[0].shape[0]
    d_inner = d_a[:, 2 * units :] * saved[0]
    product = _product(read, jnp.concatenate([d_a[:, : 2 * units], d_inner], 1))
    return product, d_inner.sum((0, 2))[:, None]


def _gru_original_forward(weights: Any, a: Array, read: Array, h: Array) -> tuple[Array, Any]:
    (w,) = weights
    units = len(h)
    r, z = jnp.split(jax.nn.sigmoid(a[: 2 * units] + w[: 2 * units] @ read), 2)
    n = jnp.tanh(a[2 * units :] + w[2 * units :] @ (r * read))
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


def _gru_original_weights(weights: Any, read: Array, saved: Any, d_a: Array) -> tuple[Array, ...]:
    units = weights[0].shape[0]
    parts = _product(read, d_a[:, : 2 * units]), _product(saved[0] * read, d_a[:, 2 * units :])
    return (jnp.concatenate(parts, 1),)


RNN_CELLS = {
    "tanh": _rnn_cell(jnp.tanh, lambda y: 1 - y * y),
    "relu": _rnn_cell(jax.nn.relu, lambda y: (y > 0).astype(y.dtype)),
}
LSTM = Cell(_lstm_forward, _lstm_backward, _lstm_weights)
GRU = Cell(_gru_forward, _gru_backward, _gru_weights)
GRU_ORIGINAL = Cell(_gru_original_forward, _gru_original_backward, _gru_original_weights)


def _rows(steps: Array) -> Array:
    """`[T, features, B]` as `[T B, features]`."""
    return steps.swapaxes(1, 2).reshape(-1, steps.shape[1])


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
    chunks = -(-steps // CHUNK) if jax.default_backend() == "cpu" else 1
    size = -(-steps // max(chunks, 1))
    extra = chunks * size - steps
    counts: Any = None
    if lengths is not None or extra:
        ends = jnp.full((batch,), steps) if lengths is None else jnp.minimum(lengths, steps)
        counts = (jnp.arange(steps + extra)[:, None] < ends).reshape(chunks, size, 1, batch)
    x = jnp.pad(x.swapaxes(0, 1), ((0, extra), (0, 0), (0, 0))).reshape(chunks, size, batch, inputs)
    state, mask = jax.tree.map(lambda part: part.T, (state, mask))
    outputs, state = _scan(cell, reverse, x, kernel, bias, weights, state, counts, mask)
    if lengths is not None:
        outputs = jnp.where(counts, outputs, 0)
    outputs = outputs.reshape(steps + extra, units, batch)[:steps]
    return outputs.transpose(2, 0, 1), jax.tree.map(lambda part: part.T, state)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _scan(
    cell: Cell, reverse: bool, x: Array, kernel: Array, bias: Array, weights: Any, state: Any, counts: Any, mask: Any
) -> tuple[Array, Any]:
    """h after every step `[chunks, steps, H, B]` and the last state.

    Args:
      cell: what one step does.
      reverse: from the last step to the first.
      x: `[chunks, steps, B, D]`.
      kernel, bias: `[D, G H]` and `[G H]`.
      weights: those of the cell; first w `[H, G H]`.
      state: h, or a tuple that begins with it, `[H, B]` each.
      counts: `[chunks, steps, 1, B]`, whether a step changes the state; always if None.
      mask: `[H, B]`, or None.
    """
    (outputs, _), state = _forward(cell, reverse, x, kernel, bias, weights, state, counts, mask, save=False)
    return outputs, state


def _forward(
    cell: Cell,
    reverse: bool,
    x: Array,
    kernel: Array,
    bias: Array,
    weights: Any,
    state: Any,
    counts: Any,
    mask: Any,
    save: bool,
) -> tuple[Any, Any]:
    weights = (weights[0].T, *weights[1:])

    def step(carry: Any, inputs: Any, a_all: Array) -> tuple[Any, Any]:
        (state, a), (t, count) = carry, inputs
        read = _h(state) if mask is None else _h(state) * mask
        new, saved = cell.forward(weights, a, read, state)
        if count is not None:
            new = jax.tree.map(lambda new, old: jnp.where(count, new, old), new, state)
        # What the inputs give to the next step waits in the carry: XLA does not vectorise gates fused with its slicing.
        after = lax.dynamic_index_in_dim(a_all, jnp.clip(t - 1 if reverse else t + 1, 0, len(a_all) - 1), 0, False)
        return (new, after), (_h(new), (read, saved) if save else None)

    def chunk(state: Any, inputs: Any) -> tuple[Any, Any]:
        x, counts = inputs
        a = (x.reshape(-1, x.shape[-1]) @ kernel + bias).reshape(*x.shape[:2], -1).swapaxes(1, 2)
        carry = state, a[-1] if reverse else a[0]
        (state, _), kept = lax.scan(partial(step, a_all=a), carry, (jnp.arange(len(a)), counts), reverse=reverse)
        return state, kept

    state, kept = lax.scan(chunk, state, (x, counts), reverse=reverse)
    return kept, state


def _scan_forward(
    cell: Cell, reverse: bool, x: Array, kernel: Array, bias: Array, weights: Any, state: Any, counts: Any, mask: Any
) -> tuple[Any, Any]:
    (outputs, saved), last = _forward(cell, reverse, x, kernel, bias, weights, state, counts, mask, save=True)
    return (outputs, last), (saved, x, kernel, weights, counts, mask)


def _scan_backward(cell: Cell, reverse: bool, residuals: Any, gradients: Any) -> tuple[Any, ...]:
    saved, x, kernel, weights, counts, mask = residuals
    d_outputs, d_last = gradients
    transposed = kernel.T

    def step(d_state: Any, inputs: Any) -> tuple[Any, Array]:
        (_, saved), d_output, count = inputs
        d_state = _add_to_h(d_state, d_output)
        d_old = None
        if count is not None:
            d_old = jax.tree.map(lambda part: jnp.where(count, 0, part), d_state)
            d_state = jax.tree.map(lambda part: jnp.where(count, part, 0), d_state)
        d_a, d_read, d_state = cell.backward(weights, saved, d_state)
        d_state = _add_to_h(d_state, d_read if mask is None else d_read * mask)
        return d_state if d_old is None else jax.tree.map(jnp.add, d_state, d_old), d_a

    def chunk(carry: Any, inputs: Any) -> tuple[Any, Array]:
        d_state, sums = carry
        x, (read, saved), d_outputs, counts = inputs
        d_state, d_a = lax.scan(step, d_state, ((read, saved), d_outputs, counts), reverse=not reverse)
        rows = _rows(d_a)
        parts = x.reshape(len(rows), -1).T @ rows, d_a.sum((0, 2)), cell.weights(weights, read, saved, d_a)
        return (d_state, jax.tree.map(jnp.add, sums, parts)), (rows @ transposed).reshape(x.shape)

    # Sums over chunks in at least float32, as those within a product are.
    wide = jnp.promote_types(kernel.dtype, jnp.float32)
    trained = kernel, jnp.zeros(kernel.shape[1:], kernel.dtype), weights
    zeros = jax.tree.map(lambda part: jnp.zeros(part.shape, wide), trained)
    inputs = x, saved, d_outputs, counts
    (d_state, sums), d_x = lax.scan(chunk, (d_last, zeros), inputs, reverse=not reverse)
    return d_x, *jax.tree.map(lambda total, part: total.astype(part.dtype), sums, trained), d_state, None, None


def _h(state: Any) -> Array:
    return state[0] if isinstance(state, tuple) else state


def _add_to_h(state: Any, h: Array) -> Any:
    return (state[0] + h, *state[1:]) if isinstance(state, tuple) else state + h


_scan.defvjp(_scan_forward, _scan_backward)
