"""The Transformer: an encoder of the source, and a decoder of the target that looks at it."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.attention import padding_mask
from dlfx.nn.positions import sinusoidal
from dlfx.nn.transformer import Block, Stack, StackCache
from dlfx.types import Array, UserError

# The paper's table 3; with the shared vocabulary of 37,000 about 65 and 213 million parameters.
SIZES: dict[str, dict[str, Any]] = {
    "base": {"layers": 6, "heads": 8, "width": 512, "hidden": 2048, "dropout": 0.1},
    "big": {"layers": 6, "heads": 16, "width": 1024, "hidden": 4096, "dropout": 0.3},
}


class Transformer(nn.Module):
    """The Transformer: embeddings times sqrt(width), sinusoidal positions, blocks with the norm last.

    The output is tied to the embeddings of the target.

    Args (of the call):
      source: `[B, S]` int32.
      target: `[B, T]` int32, what the decoder reads: the target after a token that begins it.
      source_lengths: `[B]` without the padding, or None. Padding of the target needs none: nothing before it sees it.
      train: with dropout, whose key is `rngs={"dropout": key}`.

    Returns:
      The logits of the token after each of the target, `[B, T, vocabulary]`, at least float32.

    Raises:
      UserError: for shared embeddings of two vocabularies.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), section 3.
    """

    vocabulary: int  # of the target, and of the source unless that has its own
    source_vocabulary: int | None = None
    shared_embeddings: bool = True  # one table for source and target
    layers: int = 6  # of encoder and decoder each
    heads: int = 8
    width: int = 512
    hidden: int = 2048
    dropout: float = 0.1
    norm_first: bool = False
    remat: bool = False
    unroll: int = 1  # of the loops over layers
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        words = self.source_vocabulary or self.vocabulary
        if self.shared_embeddings and words != self.vocabulary:
            raise UserError(
                f"embeddings of a source of {words} tokens and a target of {self.vocabulary} cannot be shared; "
                "shared_embeddings=False keeps them apart"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(self.width**-0.5)
        embed: Any = partial(nn.Embed, features=self.width, embedding_init=init, **dtypes)
        self.embedding = embed(self.vocabulary)
        self.source_embedding = self.embedding if self.shared_embeddings else embed(words)
        options = {"norm_first": self.norm_first, "dropout": self.dropout, **dtypes}
        block = partial(Block, self.width, self.heads, self.hidden, **options)
        self.encoder = Stack(self.layers, block, self.remat, self.unroll)
        self.decoder = Stack(self.layers, partial(block, causal=True, cross=True), self.remat, self.unroll)
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, source: Array, target: Array, source_lengths: Array | None = None, *, train: bool = False
    ) -> Array:
        memory = self.encode(source, source_lengths, train=train)
        x = self.drop(self._embed(self.embedding, target, 0), deterministic=not train)
        mask = _mask(source_lengths, source.shape[1])
        return self._logits(self.decoder(x, memory=memory, memory_mask=mask, train=train))

    def encode(self, source: Array, source_lengths: Array | None = None, *, train: bool = False) -> Array:
        """The memory of a source `[B, S]`, `[B, S, width]`, at padding without meaning."""
        x = self.drop(self._embed(self.source_embedding, source, 0), deterministic=not train)
        return self.encoder(x, _mask(source_lengths, source.shape[1]), train=train)

    def start(self, source: Array, size: int, source_lengths: Array | None = None) -> StackCache:
        """What is needed to decode up to `size` tokens for each source `[B, S]`. Every array has the batch first."""
        memory = self.encode(source, source_lengths)
        return self.decoder.start(len(source), size, memory, _mask(source_lengths, source.shape[1]))

    def decode(self, tokens: Array, cache: StackCache, position: Array | int) -> tuple[Array, StackCache]:
        """The logits after the next tokens, at the cost of these alone.

        Args:
          tokens: `[B, T]`, mostly one for each sequence; at first the token that begins a target.
          cache: from `start`, with the keys and values of all tokens before.
          position: [] of the first of `tokens`, from 0. Under vmap each sequence can have its own.

        Returns:
          `[B, T, vocabulary]` and the cache with T tokens more.
        """
        x, cache = self.decoder.decode(self._embed(self.embedding, tokens, position), cache, position)
        return self._logits(x), cache

    def _embed(self, table: nn.Embed, tokens: Array, first: Array | int) -> Array:
        positions = first + jnp.arange(tokens.shape[1])
        return table(tokens) * math.sqrt(self.width) + sinusoidal(positions, self.width, self.dtype)

    def _logits(self, x: Array) -> Array:
        logits = self.embedding.attend(x)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _mask(lengths: Array | None, size: int) -> Array | None:
    return None if lengths is None else padding_mask(lengths, size)
