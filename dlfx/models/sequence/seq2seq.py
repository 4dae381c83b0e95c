"""Recurrent encoder and decoder: all of the source in one vector, or attention to each of its tokens."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.nn.attention import AdditiveAttention, MultiplicativeAttention, padding_mask
from dlfx.nn.dense import Dense
from dlfx.nn.recurrent import Recurrent
from dlfx.types import Array, UserError, unknown

ATTENTIONS = ("none", "additive", "dot", "general")


class Decoding(NamedTuple):
    """What the decoder knows before its next token. Every array has the batch first.

    Attributes:
      state: of the recurrent decoder.
      keys: of attention, `[B, S, width]`, or None without.
      values: the encoder's outputs `[B, S, width]`, or None.
      mask: `[B, S]`, True at the tokens of the source, or None.
    """

    state: Any
    keys: Array | None
    values: Array | None
    mask: Array | None


class Seq2Seq(nn.Module):
    """An encoder reads the source, and from its last state a decoder goes on with the target.

    Without attention that state, of the same size for any source, is all that the decoder learns of it. With attention
    each state h_t of the decoder looks at the outputs of the encoder: `a_t = tanh(W [c_t; h_t])`, of the context c_t,
    is what the next token is told from; without, h_t itself. As h_t does not depend on a_{t-1}, a known target goes
    through the decoder in one pass. An encoder of both directions has half of the width in each.

    Args (of the call):
      source: `[B, S]` int32.
      target: `[B, T]` int32, what the decoder reads: the target after a token that begins it.
      source_lengths: `[B]` without the padding, or None. Padding of the target needs none: it comes after what counts.
      train: with dropout, whose key is `rngs={"dropout": key}`.

    Returns:
      The logits of the token after each of the target, `[B, T, vocabulary]`, at least float32. With
      `mutable="intermediates"` also `weights [B, T, S]` of attention.

    Raises:
      UserError: for an unknown attention, or both directions of an odd width.

    Source: Sutskever, Vinyals and Le 2014, Sequence to Sequence Learning with Neural Networks (arXiv:1409.3215),
      without attention. Luong, Pham and Manning 2015 (arXiv:1508.04025), section 3 (equation 5) with attention, whose
      additive scores and two directions are those of Bahdanau, Cho and Bengio 2014 (arXiv:1409.0473).
    """

    vocabulary: int
    source_vocabulary: int
    attention: str = "additive"  # one of ATTENTIONS
    cell: str = "lstm"  # see `Recurrent`
    width: int = 256  # of the decoder, and of what the encoder gives
    features: int = 128  # of embeddings
    layers: int = 1  # of encoder and decoder each
    bidirectional: bool = False  # the encoder
    dropout: float = 0.0  # of embeddings, between layers, and before the logits
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.attention not in ATTENTIONS:
            raise unknown("attention", self.attention, ATTENTIONS)
        if self.bidirectional and self.width % 2:
            raise UserError(f"an encoder of both directions has half of the width in each; the width is {self.width}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        network: Any = partial(Recurrent, self.cell, layers=self.layers, dropout=self.dropout, **dtypes)
        self.source_embedding = nn.Embed(self.source_vocabulary, self.features, **dtypes)
        self.embedding = nn.Embed(self.vocabulary, self.features, **dtypes)
        self.encoder = network(self.width // (1 + self.bidirectional), bidirectional=self.bidirectional)
        self.decoder = network(self.width)
        if self.attention == "additive":
            self.look: Any = AdditiveAttention(self.width, **dtypes)
        elif self.attention != "none":
            self.look = MultiplicativeAttention(self.width, self.attention == "general", **dtypes)
        if self.attention != "none":
            self.combine = Dense(self.width, use_bias=False, **dtypes)
        self.out = Dense(self.vocabulary, **dtypes)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, source: Array, target: Array, source_lengths: Array | None = None, *, train: bool = False
    ) -> Array:
        return self._next(target, self.start(source, source_lengths, train=train), train)[0]

    def start(self, source: Array, source_lengths: Array | None = None, *, train: bool = False) -> Decoding:
        """What the decoder begins with, of sources `[B, S]`."""
        x = self.drop(self.source_embedding(source), deterministic=not train)
        outputs, state = self.encoder(x, source_lengths, train=train)
        if self.bidirectional:
            state = tuple(jax.tree.map(lambda *sides: jnp.concatenate(sides, -1), *layer) for layer in state)
        if self.attention == "none":
            return Decoding(state, None, None, None)
        mask = None if source_lengths is None else padding_mask(source_lengths, source.shape[1])[:, 0, 0]
        return Decoding(state, self.look.project(outputs), outputs, mask)

    def decode(self, tokens: Array, known: Decoding) -> tuple[Array, Decoding]:
        """The logits after the next tokens.

        Args:
          tokens: `[B, T]`, mostly one for each sequence; at first the token that begins a target.
          known: from `start`, or from the call before.

        Returns:
          `[B, T, vocabulary]`, and what is known for the next call.
        """
        return self._next(tokens, known, False)

    def _next(self, tokens: Array, known: Decoding, train: bool) -> tuple[Array, Decoding]:
        x = self.drop(self.embedding(tokens), deterministic=not train)
        h, state = self.decoder(x, initial=known.state, train=train)
        if self.attention != "none":
            context, weights = self.look(h, known.keys, known.values, known.mask)
            self.sow("intermediates", "weights", weights)
            h = jnp.tanh(self.combine(jnp.concatenate([context, h], -1)))
        logits = self.out(self.drop(h, deterministic=not train))
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), known._replace(state=state)
