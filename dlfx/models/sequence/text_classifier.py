"""Classifiers of texts: word vectors, and a recurrent, convolutional or attentive encoder that makes one of them all.

An encoder takes words `[B, T, D]` and `lengths [B]`, or None, and gives `[B, F]`. What stands behind the lengths does
not matter, nor does how much of it there is.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.nn.attention import padding_mask
from dlfx.nn.dense import Dense
from dlfx.nn.positions import sinusoidal
from dlfx.nn.recurrent import Recurrent
from dlfx.nn.transformer import Block, Stack
from dlfx.types import Array, Key, UserError, unknown

CHANNELS = ("trained", "static", "both")


def uniform(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """U(-1/4, 1/4), about the variance of published word vectors of 300 numbers."""
    return jax.random.uniform(key, shape, dtype, -0.25, 0.25)


class RecurrentEncoder(nn.Module):
    """What a recurrent network remembers after the last word; with both directions also what it does before the first.

    Source: Elman 1990, Finding Structure in Time; Schuster and Paliwal 1997, Bidirectional Recurrent Neural Networks.
    """

    network: Recurrent

    def __call__(self, x: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        _, states = self.network(x, lengths, train=train)
        last = states[-1] if self.network.bidirectional else (states[-1],)
        return jnp.concatenate([state[0] if self.network.cell == "lstm" else state for state in last], -1)


class ConvolutionalEncoder(nn.Module):
    """The strongest answer of every filter to any few words in a row.

    `c_i = relu(w . x[i : i + h] + b)`, `y = max_i c_i`, over the windows of h words that fit. In a text of fewer words
    the one window reaches beyond, to zeros.

    Source: Kim 2014, Convolutional Neural Networks for Sentence Classification (arXiv:1408.5882), section 2.
    """

    windows: tuple[int, ...] = (3, 4, 5)
    maps: int = 100  # filters of each window
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        if not self.windows or min(self.windows) < 1:
            raise UserError(f"windows {self.windows} of a convolution over words must be one or more, each at least 1")
        size = x.shape[1]
        lengths = jnp.full(len(x), size) if lengths is None else lengths
        x = jnp.where((jnp.arange(size) < lengths[:, None])[..., None], x, 0)
        x = jnp.pad(x, ((0, 0), (0, max(self.windows) - 1), (0, 0)))
        strongest = []
        for window in self.windows:
            # A product of matrices: on CPU faster than a convolution, and under vmap over seeds much faster.
            rows = jnp.concatenate([x[:, i : i + size] for i in range(window)], -1)
            answers = self._filters(window)(rows)
            fits = jnp.arange(size) <= jnp.maximum(lengths - window, 0)[:, None]
            strongest.append(jnp.where(fits[..., None], answers, -jnp.inf).max(1))
        return nn.relu(jnp.concatenate(strongest, -1))

    def _filters(self, window: int) -> nn.Module:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return Dense(self.maps, kernel_init=nn.initializers.he_uniform(), name=f"window{window}", **dtypes)


class TransformerEncoder(nn.Module):
    """The mean over the words of what a Transformer makes of them; positions are sinusoidal.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), section 3; the norm first: Xiong et al.
      2020 (arXiv:2002.04745).
    """

    layers: int
    heads: int
    width: int
    dropout: float = 0.1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        size, dtypes = x.shape[1], {"dtype": self.dtype, "param_dtype": self.param_dtype}
        lengths = jnp.full(len(x), size) if lengths is None else lengths
        x = Dense(self.width, **dtypes)(x) + sinusoidal(jnp.arange(size), self.width, self.dtype)
        block = partial(Block, self.width, self.heads, 4 * self.width, norm_first=True, dropout=self.dropout, **dtypes)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = Stack(self.layers, block)(x, padding_mask(lengths, size), train=train)
        words = (jnp.arange(size) < lengths[:, None])[..., None]
        exact = jnp.promote_types(x.dtype, jnp.float32)
        total = jnp.where(words, x, 0).sum(1, dtype=exact)
        return (total / jnp.maximum(lengths, 1)[:, None]).astype(x.dtype)


class TextClassifier(nn.Module):
    """Word vectors, an encoder, dropout, and a linear layer.

    The word vectors are trained; or stay as they begin, in the collection `static`; or are both, side by side, a
    channel each, for which a filter has weights of its own. Kim's variants are `trained` from `uniform` ("rand") and
    from given vectors ("non-static"), and `static` ("static") and `both` ("multichannel") from given vectors.

    Calls:
      `model(tokens [B, T], lengths=None, train=False)` to logits `[B, classes]`, float32 at least. Dropout draws from
        `rngs={"dropout": key}`.
      `model.embed(tokens)` and `model.classify(x, lengths, train=False)` are its two halves.

    Source: Kim 2014 (arXiv:1408.5882), sections 2 and 3.3.
    """

    vocabulary: int
    classes: int
    features: int  # of a word vector
    encoder: nn.Module
    channels: str = "trained"  # one of CHANNELS
    vectors: Any = uniform  # initialiser of the word vectors
    dropout: float = 0.5
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.channels not in CHANNELS:
            raise unknown("kind of word vectors", self.channels, CHANNELS)
        shape = (self.vocabulary, self.features)
        if self.channels != "static":
            self.trained = self.param("vectors", self.vectors, shape, self.param_dtype)
        if self.channels != "trained":
            self.kept = self.variable(
                "static", "vectors", lambda: self.vectors(self.make_rng("params"), shape, self.param_dtype)
            )
        self.drop = nn.Dropout(self.dropout)
        self.out = Dense(self.classes, dtype=self.dtype, param_dtype=self.param_dtype)

    def __call__(self, tokens: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        return self.classify(self.embed(tokens), lengths, train=train)

    def embed(self, tokens: Array) -> Array:
        """The vectors of words `[B, T]`, `[B, T, features]`, or twice as many features of two channels."""
        tables = [self.trained] if self.channels != "static" else []
        tables += [self.kept.value] if self.channels != "trained" else []
        return jnp.concatenate([jnp.take(table, tokens, 0).astype(self.dtype) for table in tables], -1)

    def classify(self, x: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        """Logits of texts of which the word vectors are known."""
        y = self.out(self.drop(self.encoder(x, lengths, train=train), deterministic=not train))
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))
