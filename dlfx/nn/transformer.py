"""Blocks of Transformers and stacks of them."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from dlfx.nn.attention import KeysAndValues, MultiHeadAttention
from dlfx.nn.dense import Dense
from dlfx.types import Array, UserError

xavier = nn.initializers.xavier_uniform()


class Block(nn.Module):
    """Self-attention, attention to a memory if there is one, and two dense layers, each f with a residual connection.

    `x + f(norm(x))` before the norm (`norm_first`), `norm(x + f(x))` after it; dropout acts on what f gives, on the
    weights of attention, and between the dense layers where `hidden_dropout` says so, as PyTorch has it.

    `[B, T, features]` to the same shape. An encoder's block is not causal; a decoder's is; with `cross` it looks at a
    memory too.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), section 3.1 and figure 1. Norm first:
      Xiong et al. 2020, On Layer Normalization in the Transformer Architecture (arXiv:2002.04745), figure 1.
    """

    features: int
    heads: int
    hidden: int  # width between the two dense layers
    causal: bool = False
    cross: bool = False  # looks at a memory
    norm_first: bool = False
    rotary: bool = False
    activation: Callable[[Array], Array] = nn.relu
    dropout: float = 0.0
    hidden_dropout: bool = False
    use_bias: bool = True  # in dense layers and norms
    epsilon: float = 1e-5  # of norms
    kernel_init: Any = xavier
    out_init: Any = xavier  # of the layers that end a residual branch
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        options = {"use_bias": self.use_bias, "dtype": self.dtype, "param_dtype": self.param_dtype}
        inits = {"kernel_init": self.kernel_init, "out_init": self.out_init}
        attention = partial(MultiHeadAttention, self.features, self.heads, dropout=self.dropout, **inits, **options)
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, **options)
        self.attention, self.attention_norm = attention(causal=self.causal, rotary=self.rotary), norm()
        if self.cross:
            self.cross_attention, self.cross_attention_norm = attention(), norm()
        self.mlp_in = Dense(self.hidden, kernel_init=self.kernel_init, **options)
        self.mlp_out = Dense(self.features, kernel_init=self.out_init, **options)
        self.mlp_norm = norm()
        self.drop = nn.Dropout(self.dropout)

    def __call__(
        self, x: Array, mask: Array | None, memory: Array | None, memory_mask: Array | None, train: bool
    ) -> tuple[Array, None]:
        """A whole sequence `[B, T, F]`, memory `[B, S, F]`, masks as those of attention; None stands for a scan."""
        if self.cross != (memory is not None):
            raise UserError("a block with cross-attention takes a memory, and one without it none")
        seen = None if memory is None else self.cross_attention.project(memory)
        return self._sublayers(x, lambda y: self.attention(y, mask, train), seen, memory_mask, train), None

    def project(self, carry: None, memory: Array) -> tuple[None, KeysAndValues]:
        """The keys and values of a memory, for `decode`. The carry is a scan's."""
        return carry, self.cross_attention.project(memory)

    def decode(self, x: Array, layer: Array, cache: "StackCache", position: Array | int) -> tuple[Array, KeysAndValues]:
        """The next tokens `[B, T, F]`, with this layer's part of the cache; gives what is new in it, too."""
        earlier, seen = jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, layer, 1, False), (cache.own, cache.memory))
        kept = []

        def attend(y: Array) -> Array:
            y, new = self.attention.decode(y, earlier, position)
            kept.append(new)
            return y

        return self._sublayers(x, attend, seen, cache.memory_mask, False), kept[0]

    def _sublayers(
        self, x: Array, attend: Callable, memory: KeysAndValues | None, memory_mask: Array | None, train: bool
    ) -> Array:
        x = self._residual(x, attend, self.attention_norm, train)
        if memory is not None:
            look = partial(self.cross_attention.attend, memory=memory, mask=memory_mask, train=train)
            x = self._residual(x, look, self.cross_attention_norm, train)
        return self._residual(x, partial(self._mlp, train=train), self.mlp_norm, train)

    def _mlp(self, x: Array, train: bool) -> Array:
        x = self.activation(self.mlp_in(x))
        return self.mlp_out(self.drop(x, deterministic=not train) if self.hidden_dropout else x)

    def _residual(self, x: Array, f: Callable[[Array], Array], norm: Callable[[Array], Array], train: bool) -> Array:
        if self.norm_first:
            return x + self.drop(f(norm(x)), deterministic=not train)
        return norm(x + self.drop(f(x), deterministic=not train))


class StackCache(NamedTuple):
    """What a stack of L blocks keeps from step to step of a decoding. Every array has the batch first.

    Attributes:
      own: keys and values of the tokens so far, `[B, L, H, S, D]`.
      memory: those of the memory, `[B, L, M, H, D]`, or None.
      memory_mask: `[B, 1, 1, M]`, or None.
    """

    own: KeysAndValues
    memory: KeysAndValues | None = None
    memory_mask: Array | None = None


class Stack(nn.Module):
    """`layers` equal blocks one after another, and a norm at the end where blocks begin with one.

    The blocks are one `lax.scan` over their parameters, which stand in one array `[layers, ...]` for each of a block's:
    the program, and with it the time to compile it, is that of one block.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), section 3.1. Remat: Chen et al. 2016,
      Training Deep Nets with Sublinear Memory Cost (arXiv:1604.06174).
    """

    layers: int
    block: Callable[..., Block]  # with everything but a name, such as `partial(Block, 64, 4, 256)`
    remat: bool = False  # the backward pass computes the inside of a block again, and holds only what goes in
    unroll: int = 1  # blocks in one turn of the loop

    def setup(self) -> None:
        axes: Any = {"variable_axes": {"params": 0, "intermediates": 0}, "length": self.layers, "unroll": self.unroll}
        axes |= {"split_rngs": {"params": True, "dropout": True}, "metadata_params": {nn.PARTITION_NAME: None}}
        methods = {
            "__call__": axes | {"in_axes": nn.broadcast},
            "project": axes | {"in_axes": nn.broadcast, "out_axes": 1},
            "decode": axes | {"in_axes": (0, nn.broadcast, nn.broadcast), "out_axes": 1},
        }
        # The last argument, train, is static. What forbids common subexpressions is of no use within a scan.
        block = nn.remat(self.block, prevent_cse=False, static_argnums=(5,)) if self.remat else self.block
        self.blocks = nn.scan(block, methods=methods)()
        one = self.block(parent=None)
        if one.norm_first:
            self.norm = nn.LayerNorm(one.epsilon, one.dtype, one.param_dtype, one.use_bias)

    def __call__(
        self,
        x: Array,
        mask: Array | None = None,
        memory: Array | None = None,
        memory_mask: Array | None = None,
        train: bool = False,
    ) -> Array:
        """Whole sequences.

        Args:
          x: `[B, T, F]`.
          mask: what positions may look at, broadcastable to `[B, H, T, T]`; None: all, or all earlier ones if causal.
          memory: `[B, S, F]`, of blocks that look at one.
          memory_mask: what of it they may look at, broadcastable to `[B, H, T, S]`.
          train: with dropout, whose key is `rngs={"dropout": key}`.

        Returns:
          `[B, T, F]`.
        """
        x, _ = self.blocks(x, mask, memory, memory_mask, train)
        return self._end(x)

    def start(self, batch: int, size: int, memory: Array | None = None, memory_mask: Array | None = None) -> StackCache:
        """The cache before the first token.

        Args:
          batch: B.
          size: S, the most tokens that will ever be decoded.
          memory: `[B, M, F]`, of blocks that look at one.
          memory_mask: `[B, 1, 1, M]`, or None.
        """
        one = self.block(parent=None)
        shape = (batch, self.layers, one.heads, size, one.features // one.heads)
        own = KeysAndValues(jnp.zeros(shape, one.dtype), jnp.zeros(shape, one.dtype))
        seen = None if memory is None else self.blocks.project(None, memory)[1]
        return StackCache(own, seen, memory_mask)

    def decode(self, x: Array, cache: StackCache, position: Array | int) -> tuple[Array, StackCache]:
        """The next tokens, each of which sees itself and all before it.

        Args:
          x: `[B, T, F]`, mostly T = 1; more of them for a prompt.
          cache: from `start`, filled up to `position`; its size is at least position + T.
          position: [] of the first token of x. Under vmap each sequence can have its own.

        Returns:
          `[B, T, F]` and the cache with T tokens more.
        """
        x, new = self.blocks.decode(x, jnp.arange(self.layers), cache, position)
        own = jax.tree.map(lambda a, b: lax.dynamic_update_slice_in_dim(a, b, position, 3), cache.own, new)
        return self._end(x), cache._replace(own=own)

    def _end(self, x: Array) -> Array:
        return self.norm(x) if self.block(parent=None).norm_first else x
