"""Recurrent networks of several layers, in one or both directions."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.ops.recurrence import gru, gru_original, lstm, rnn
from dlfx.types import Array, Key, UserError, unknown

GATES = {"rnn": 1, "lstm": 4, "gru": 3, "gru_original": 3}


def orthogonal_gates(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """`[H, G H]`, an orthogonal matrix `[H, H]` for each gate: at first no product changes the length of a state."""
    units, width = shape
    draw = partial(nn.initializers.orthogonal(), shape=(units, units), dtype=dtype)
    return jnp.concatenate([draw(k) for k in jax.random.split(key, width // units)], 1)


class Recurrent(nn.Module):
    """A recurrent network, `[B, T, D]` to `[B, T, features]`, or to twice as many in both directions.

    The equations are those of `dlfx.ops.recurrence`. A layer of H units that reads D features has one bias for each
    gate: `H (D + H + 1)` parameters of `rnn`, four times as many of `lstm` and `3 H` more with peepholes, three times
    as many of `gru_original`, and of `gru` H more, as the bias within its reset gate cannot be merged. PyTorch has two
    biases throughout, of which only the sum matters but there.

    Args (of the call):
      x: `[B, T, D]`.
      lengths: `[B]`, how many steps of each sequence count; all if None. Each gives what it gives alone, whatever
        stands in the padding, in both directions; outputs at padding are 0.
      initial: the state before the first step, of the form that the call returns; zeros if None. With the state of one
        call the next one continues the stream, be it of pieces in truncated back-propagation (stop the gradient
        between them) or of one step in decoding.
      train: apply dropout, by keys of the collection `dropout`. Each call draws its masks anew.

    Returns:
      The outputs of the last layer, and the states after the last step: a tuple of the layers, each of them `h [B, H]`,
      or `(h, c)` of an LSTM; with both directions each layer is a pair of those, forward and backward. The state
      backward is that after the first step.

    Raises:
      UserError: for an unknown cell, options that the cell does not have, and shapes that do not fit.

    Source: see `dlfx.ops.recurrence`. Schuster and Paliwal 1997, Bidirectional Recurrent Neural Networks. Dropout:
      Zaremba, Sutskever and Vinyals 2014 (arXiv:1409.2329), section 3.2. Variational dropout: Gal and Ghahramani 2016
      (arXiv:1512.05287), section 4.2. Forget bias: Jozefowicz, Zaremba and Sutskever 2015.
    """

    cell: str  # rnn, lstm, gru (PyTorch's) or gru_original (as published)
    features: int  # units of each direction of each layer
    layers: int = 1
    bidirectional: bool = False
    reverse: bool = False  # of one direction: from the last step to the first, in every layer
    activation: str = "tanh"  # of rnn: tanh or relu
    peepholes: bool = False  # of lstm
    forget_bias: float = 1.0  # of lstm: the bias of the forget gate at first
    dropout: float = 0.0  # of what a layer gives to the next one, anew at each step
    # Of what every layer reads, inputs and states, with masks that are the same at every step and for every gate.
    variational_dropout: float = 0.0
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.xavier_uniform()
    recurrent_init: Any = orthogonal_gates

    @nn.compact
    def __call__(
        self, x: Array, lengths: Array | None = None, initial: Any = None, train: bool = False
    ) -> tuple[Array, Any]:
        self._check(x, lengths)
        if initial is None:
            initial = self.initial_state(len(x))
        x = x.astype(self.dtype)
        states = []
        for layer in range(self.layers):
            if layer and self.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            if self.variational_dropout:
                x = nn.Dropout(self.variational_dropout, broadcast_dims=(1,), deterministic=not train)(x)
            if self.bidirectional:
                ahead, back = (
                    self._direction(x, lengths, initial[layer][side], train, f"layer{layer}{name}", bool(side))
                    for side, name in enumerate(("", "_reverse"))
                )
                x, state = jnp.concatenate([ahead[0], back[0]], -1), (ahead[1], back[1])
            else:
                x, state = self._direction(x, lengths, initial[layer], train, f"layer{layer}", self.reverse)
            states.append(state)
        return x, tuple(states)

    def initial_state(self, batch: int) -> Any:
        """The state of zeros."""
        zero = jnp.zeros((batch, self.features), self.dtype)
        one = (zero, zero) if self.cell == "lstm" else zero
        return ((one, one) if self.bidirectional else one,) * self.layers

    def _direction(
        self, x: Array, lengths: Array | None, state: Any, train: bool, name: str, reverse: bool
    ) -> tuple[Array, Any]:
        units = self.features
        width = GATES[self.cell] * units

        def parameter(kind: str, init: Any, *shape: int) -> Array:
            return self.param(f"{name}_{kind}", init, shape, self.param_dtype).astype(self.dtype)

        zeros = nn.initializers.zeros
        kernel = parameter("kernel", self.kernel_init, x.shape[-1], width)
        w = parameter("recurrent_kernel", self.recurrent_init, units, width)
        bias = parameter("bias", self._bias if self.cell == "lstm" else zeros, width)
        mask = None
        if self.variational_dropout and train:
            ones = jnp.ones((len(x), units), self.dtype)
            mask = nn.Dropout(self.variational_dropout, deterministic=False)(ones)
        options: dict[str, Any] = {"lengths": lengths, "reverse": reverse, "mask": mask}
        state = jax.tree.map(lambda part: part.astype(self.dtype), state)
        if self.cell == "rnn":
            return rnn(x, kernel, bias, w, state, activation=self.activation, **options)
        if self.cell == "lstm":
            peepholes = parameter("peepholes", zeros, 3, units) if self.peepholes else None
            return lstm(x, kernel, bias, w, state, peepholes=peepholes, **options)
        if self.cell == "gru":
            inner = parameter("recurrent_bias", zeros, units)
            return gru(x, kernel, bias, w, state, inner_bias=inner, **options)
        return gru_original(x, kernel, bias, w, state, **options)

    def _bias(self, key: Key, shape: Sequence[int], dtype: Any) -> Array:
        return jnp.zeros(shape, dtype).at[self.features : 2 * self.features].set(self.forget_bias)

    def _check(self, x: Array, lengths: Array | None) -> None:
        if self.cell not in GATES:
            raise unknown("recurrent cell", self.cell, GATES)
        if self.peepholes and self.cell != "lstm":
            raise UserError(f"peepholes are of the cell lstm; got {self.cell}")
        if self.reverse and self.bidirectional:
            raise UserError("a recurrent network in both directions has no reverse")
        if self.features < 1 or self.layers < 1:
            raise UserError(f"a recurrent network has features and layers; got {self.features} and {self.layers}")
        if x.ndim != 3 or (lengths is not None and lengths.shape != x.shape[:1]):
            shapes = list(x.shape), None if lengths is None else list(lengths.shape)
            raise UserError(f"a recurrent network takes x [B, T, D] and lengths [B]; got {shapes[0]} and {shapes[1]}")
