"""ELMo: a language model in both directions over words that are read letter by letter, and the mix of its layers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.models.sequence.text_classifier import ConvolutionalEncoder
from dlfx.nn.dense import Dense
from dlfx.nn.recurrent import Recurrent
from dlfx.types import Array

Filters = tuple[tuple[int, int], ...]  # (letters that a filter sees, how many such filters)


class CharacterCNN(nn.Module):
    """The vector of a word by its letters alone: convolutions of several widths, highway layers, a projection.

    `c = max over places of relu(filters)`, then of every highway layer `y = g c + (1 - g) relu(W c + b)` with the gate
    `g = sigmoid(V c + a)`, and a linear layer. What stands behind a word, and how much of it, does not matter.

    Args (of the call):
      letters: `[..., C]`, numbers from 1, 0 behind the end of a word.

    Returns:
      `[..., features]`.

    Source: Kim et al. 2016, Character-Aware Neural Language Models (arXiv:1508.06615), section 2; Jozefowicz et al.
      2016, Exploring the Limits of Language Modeling (arXiv:1602.02410), section 3.1. Highway layers: Srivastava, Greff
      and Schmidhuber 2015 (arXiv:1505.00387); a gate begins by carrying, with the bias 1.
    """

    alphabet: int  # different letters, the padding counted
    features: int
    letter_features: int = 16
    filters: Filters = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))
    highways: int = 2
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, letters: Array) -> Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        words = letters.reshape(-1, letters.shape[-1])
        lengths = (words > 0).sum(-1)
        x = nn.Embed(self.alphabet, self.letter_features, name="embedding", **dtypes)(words)
        found = [
            ConvolutionalEncoder((width,), maps, name=f"filters{width}", **dtypes)(x, lengths)
            for width, maps in self.filters
        ]
        x = jnp.concatenate(found, -1)
        for k in range(self.highways):
            new = nn.relu(Dense(x.shape[-1], name=f"highway{k}", **dtypes)(x))
            carry = Dense(x.shape[-1], bias_init=nn.initializers.ones, name=f"carry{k}", **dtypes)(x)
            gate = nn.sigmoid(carry)
            x = gate * x + (1 - gate) * new
        return Dense(self.features, name="projection", **dtypes)(x).reshape(*letters.shape[:-1], -1)


class BiLM(nn.Module):
    """Two language models, forward and backward, that share the words' vectors and the softmax, and nothing else.

    Each is a stack of LSTMs of its own; what a layer reads is added to what it gives, but in the first one. No layer
    reads the other direction, or a word would be told what it is to predict. The softmax is over the whole vocabulary,
    where the authors sample; their LSTMs of 4,096 units, clipped and projected to 512, are plain ones here.

    Calls, with letters `[B, T, C]` and lengths `[B]` (None: all of them count):
      `model(letters, lengths, train=False)` to all layers `[B, layers + 1, T, 2 width]`, 0 at padding: the words'
        vectors, twice, and of every layer what the forward and the backward model make of them, side by side.
      `model.embed(letters)` to the words' vectors `[B, T, width]`, and `model.read(x, lengths)` from these to layers.
      `model.losses(letters, targets [B, T], train=False)` to nats `[B, T - 1]` of the second to the last target by the
        words before, and of the first to the last but one by the words after.

    Source: Peters et al. 2018, Deep contextualized word representations (arXiv:1802.05365), sections 3.1 and 3.4.
    """

    alphabet: int
    vocabulary: int  # words that can be predicted
    width: int = 512
    layers: int = 2
    letter_features: int = 16
    filters: Filters = CharacterCNN.filters
    highways: int = 2
    dropout: float = 0.1  # of what goes into every LSTM and into the softmax
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        form = self.alphabet, self.width, self.letter_features, self.filters, self.highways
        self.words = CharacterCNN(*form, **dtypes)
        self.forward = [Recurrent("lstm", self.width, **dtypes) for _ in range(self.layers)]
        self.backward = [Recurrent("lstm", self.width, reverse=True, **dtypes) for _ in range(self.layers)]
        self.drop = nn.Dropout(self.dropout)
        self.softmax = Dense(self.vocabulary, **dtypes)

    def __call__(self, letters: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        return self.read(self.embed(letters), lengths, train=train)

    def embed(self, letters: Array) -> Array:
        """The vectors of words, whatever stands around them."""
        return self.words(letters)

    def read(self, x: Array, lengths: Array | None = None, *, train: bool = False) -> Array:
        """All layers of words whose vectors `[B, T, width]` are known."""
        if lengths is not None:
            x = jnp.where((jnp.arange(x.shape[1]) < lengths[:, None])[..., None], x, 0)
        sides = []
        for stack in (self.forward, self.backward):
            y, found = x, [x]
            for k, network in enumerate(stack):
                new, _ = network(self.drop(y, deterministic=not train), lengths)
                y = new + y if k else new
                found.append(y)
            sides.append(jnp.stack(found, 1))
        return jnp.concatenate(sides, -1)

    def losses(self, letters: Array, targets: Array, *, train: bool = False) -> tuple[Array, Array]:
        """Nats of the targets by the forward and by the backward model, float32 at least."""
        last = self(letters, train=train)[:, -1]
        forward, backward = jnp.split(self.drop(last, deterministic=not train), 2, -1)
        return self._nats(forward[:, :-1], targets[:, 1:]), self._nats(backward[:, 1:], targets[:, :-1])

    def _nats(self, x: Array, targets: Array) -> Array:
        logits = self.softmax(x)
        logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        return jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]


class LayerMix(nn.Module):
    """One vector of each word for a task: `gamma sum_j softmax(s)_j h_j`, with s and gamma trained by the task.

    s begins at 0 and gamma at 1: the mean of the layers.

    Args (of the call):
      layers: h, `[B, L, T, F]`.

    Returns:
      `[B, T, F]`.

    Source: Peters et al. 2018 (arXiv:1802.05365), section 3.2, equation 1. `norm` is the layer norm that the paper
      speaks of, here that of Ba et al. 2016 over the features of each word, without parameters.
    """

    norm: bool = False
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, layers: Array) -> Array:
        s = self.param("weights", nn.initializers.zeros, (layers.shape[1],), self.param_dtype)
        gamma = self.param("gamma", nn.initializers.ones, (), self.param_dtype)
        exact = layers.astype(jnp.promote_types(layers.dtype, jnp.float32))
        if self.norm:
            exact = nn.LayerNorm(use_bias=False, use_scale=False, dtype=exact.dtype)(exact)
        return (gamma * jnp.einsum("L,BLTF->BTF", jax.nn.softmax(s), exact)).astype(layers.dtype)
