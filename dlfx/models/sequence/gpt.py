"""GPT: a Transformer that reads from left to right and says what comes next."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.positions import KINDS, LearnedPositions, sinusoidal
from dlfx.nn.transformer import Block, Stack, StackCache
from dlfx.types import Array, UserError, unknown

# As published: 124,439,808, 354,823,168, 774,030,080 and 1,557,611,200 parameters.
SIZES: dict[str, dict[str, int]] = {
    "gpt2": {"layers": 12, "heads": 12, "width": 768},
    "gpt2_medium": {"layers": 24, "heads": 16, "width": 1024},
    "gpt2_large": {"layers": 36, "heads": 20, "width": 1280},
    "gpt2_xl": {"layers": 48, "heads": 25, "width": 1600},
}


class GPT(nn.Module):
    """GPT-2: token and position embeddings, blocks with the norm first, a norm, and the embeddings again as output.

    `GPT(**SIZES["gpt2"])` is GPT-2 small. Weights begin as N(0, 0.02^2), those that end a residual branch
    smaller by sqrt(2 layers).

    Args (of the call):
      tokens: `[B, T]` int32, T at most `context`.
      train: with dropout, whose key is `rngs={"dropout": key}`.

    Returns:
      The logits of the token after each, `[B, T, vocabulary]`, at least float32.

    Raises:
      UserError: for more tokens than `context`.

    Source: Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.3.
    """

    vocabulary: int = 50257
    context: int = 1024
    layers: int = 12
    heads: int = 12
    width: int = 768
    dropout: float = 0.1
    use_bias: bool = True  # in dense layers and norms
    positions: str = "learned"  # or "sinusoidal", "rotary"
    remat: bool = False
    unroll: int = 1  # of the loop over layers
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.positions not in KINDS:
            raise unknown("kind of positions", self.positions, KINDS)
        init, dtypes = nn.initializers.normal(0.02), {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embedding = nn.Embed(self.vocabulary, self.width, embedding_init=init, **dtypes)
        if self.positions == "learned":
            self.position = LearnedPositions(self.context, self.width, init, **dtypes)
        block = partial(
            Block,
            self.width,
            self.heads,
            4 * self.width,
            causal=True,
            norm_first=True,
            rotary=self.positions == "rotary",
            activation=nn.gelu,  # of tanh
            dropout=self.dropout,
            use_bias=self.use_bias,
            kernel_init=init,
            out_init=nn.initializers.normal(0.02 / math.sqrt(2 * self.layers)),
            **dtypes,
        )
        self.stack = Stack(self.layers, block, self.remat, self.unroll)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, tokens: Array, *, train: bool = False) -> Array:
        self._require(tokens.shape[1])
        x = self.drop(self._embed(tokens, 0), deterministic=not train)
        return self._logits(self.stack(x, train=train))

    def start(self, batch: int, size: int | None = None) -> StackCache:
        """The cache for sequences of up to `size` tokens, `context` if None. Every array has the batch first."""
        size = self.context if size is None else size
        self._require(size)
        return self.stack.start(batch, size)

    def decode(self, tokens: Array, cache: StackCache, position: Array | int) -> tuple[Array, StackCache]:
        """The logits after the next tokens, at the cost of these alone.

        Args:
          tokens: `[B, T]`, one for each sequence, or a prompt.
          cache: from `start`, with the keys and values of all tokens before.
          position: [] of the first of `tokens`, from 0. Under vmap each sequence can have its own.

        Returns:
          `[B, T, vocabulary]` and the cache with T tokens more.
        """
        x, cache = self.stack.decode(self._embed(tokens, position), cache, position)
        return self._logits(x), cache

    def _embed(self, tokens: Array, first: Array | int) -> Array:
        x, positions = self.embedding(tokens), first + jnp.arange(tokens.shape[1])
        if self.positions == "learned":
            return x + self.position(positions)
        return x + sinusoidal(positions, self.width, self.dtype) if self.positions == "sinusoidal" else x

    def _logits(self, x: Array) -> Array:
        logits = self.embedding.attend(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

    def _require(self, size: int) -> None:
        if size > self.context:
            raise UserError(f"this GPT has a context of {self.context} tokens; got {size}")
