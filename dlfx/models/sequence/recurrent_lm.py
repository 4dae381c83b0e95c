"""A recurrent language model: it reads from left to right, and its state is all that it remembers."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.recurrent import Recurrent, orthogonal_gates
from dlfx.types import Array, Key

# As published: 4,651,600, 19,775,200 and 66,022,000 parameters with 10,000 words.
SIZES: dict[str, dict[str, Any]] = {
    "zaremba_small": {"layers": 2, "width": 200, "dropout": 0.0, "init_scale": 0.1, "forget_bias": 0.0},
    "zaremba_medium": {"layers": 2, "width": 650, "dropout": 0.5, "init_scale": 0.05, "forget_bias": 0.0},
    "zaremba_large": {"layers": 2, "width": 1500, "dropout": 0.65, "init_scale": 0.04, "forget_bias": 0.0},
}


class RecurrentLM(nn.Module):
    """Embeddings, recurrent layers as wide, and a dense layer that says what comes next.

    `RecurrentLM(10000, **SIZES["zaremba_large"])` is the large model of Zaremba et al.

    Args (of the call):
      tokens: `[B, T]` int32.
      carry: the states that the call before gave for the tokens before; zeros if None.
      train: with dropout, whose key is `rngs={"dropout": key}`.

    Returns:
      The logits of the token after each, `[B, T, vocabulary]`, at least float32, and the states after the last one, as
      `nn.recurrent.Recurrent` has them.

    Source: Zaremba, Sutskever and Vinyals 2014, Recurrent Neural Network Regularization (arXiv:1409.2329), section 4.1;
      there biases are drawn too, here they begin at 0. Variational dropout, of whole words as well: Gal and Ghahramani
      2016 (arXiv:1512.05287), sections 4.2 and 4.3. Tied embeddings: Press and Wolf 2017 (arXiv:1608.05859).
    """

    vocabulary: int = 10000
    cell: str = "lstm"  # or "rnn", "gru"
    layers: int = 2
    width: int = 200
    dropout: float = 0.0  # of what goes up, never of what goes from step to step
    variational: bool = False  # one mask for all steps, of the states and of words too
    tied: bool = False  # the output layer has the embeddings for its kernel
    forget_bias: float = 1.0  # of lstm
    init_scale: float = 0.0  # all weights begin uniform within it; 0: each kind as is usual
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def uniform(key: Key, shape: Any, dtype: Any = jnp.float32) -> Array:
            return nn.initializers.uniform(2 * self.init_scale)(key, shape, dtype) - jnp.asarray(self.init_scale, dtype)

        drawn = bool(self.init_scale)
        small = nn.initializers.normal(0.1)
        self.embedding = nn.Embed(self.vocabulary, self.width, embedding_init=uniform if drawn else small, **dtypes)
        self.recurrent = Recurrent(
            self.cell,
            self.width,
            self.layers,
            forget_bias=self.forget_bias,
            dropout=0.0 if self.variational else self.dropout,
            variational_dropout=self.dropout if self.variational else 0.0,
            kernel_init=uniform if drawn else nn.initializers.xavier_uniform(),
            recurrent_init=uniform if drawn else orthogonal_gates,
            **dtypes,
        )
        if self.tied:
            self.bias = self.param("bias", nn.initializers.zeros, (self.vocabulary,), self.param_dtype)
        else:
            init = uniform if drawn else nn.initializers.lecun_normal()
            self.output = nn.Dense(self.vocabulary, kernel_init=init, **dtypes)
        self.drop = nn.Dropout(self.dropout, broadcast_dims=(1,) if self.variational else ())
        self.drop_words = nn.Dropout(self.dropout)

    def __call__(self, tokens: Array, carry: Any = None, *, train: bool = False) -> tuple[Array, Any]:
        x = self.embedding(tokens)
        if self.variational and train:
            words = self.drop_words(jnp.ones((len(tokens), self.vocabulary), self.dtype), deterministic=False)
            x *= jnp.take_along_axis(words, tokens, 1)[..., None]
        elif not self.variational:
            x = self.drop(x, deterministic=not train)
        x, carry = self.recurrent(x, initial=carry, train=train)
        x = self.drop(x, deterministic=not train)
        logits = self.embedding.attend(x) + self.bias.astype(self.dtype) if self.tied else self.output(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), carry

    def start(self, batch: int) -> Any:
        """The states before the first token, zeros. Every array has the batch first."""
        return self.recurrent.initial_state(batch)
