"""BERT: a Transformer encoder that sees both sides of every token, and the two tasks it is pretrained by."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.attention import padding_mask
from dlfx.nn.positions import LearnedPositions
from dlfx.nn.transformer import Block, Stack
from dlfx.types import Array, UserError

# Of encoder and pooler with the vocabulary of 30,522: 4,385,920 to 109,482,240 and 335,141,888 parameters.
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 2, "heads": 2, "width": 128},
    "mini": {"layers": 4, "heads": 4, "width": 256},
    "small": {"layers": 4, "heads": 8, "width": 512},
    "medium": {"layers": 8, "heads": 8, "width": 512},
    "base": {"layers": 12, "heads": 12, "width": 768},
    "large": {"layers": 24, "heads": 16, "width": 1024},
}
init = nn.initializers.truncated_normal(0.02)
EPSILON = 1e-12  # of norms


class BERT(nn.Module):
    """BERT's encoder and pooler: the sum of token, position and type embeddings, blocks with the norm last.

    `BERT(**SIZES["base"])` is BERT-base.

    Args (of the call):
      tokens: `[B, T]` int32, T at most `context`; the first is [CLS].
      token_types: `[B, T]`, 0 in the first sentence, 1 in the second; None: all 0.
      lengths: `[B]` without the padding, or None.
      train: with dropout, whose key is `rngs={"dropout": key}`.

    Returns:
      The hidden states `[B, T, width]`, those at padding without meaning, and the pooled `tanh(W h_0 + b)`,
      `[B, width]`.

    Raises:
      UserError: for more tokens than `context`.

    Source: Devlin, Chang, Lee and Toutanova 2018, BERT: Pre-training of Deep Bidirectional Transformers for Language
      Understanding (arXiv:1810.04805), section 3. The small sizes: Turc et al. 2019 (arXiv:1908.08962), table 1.
    """

    vocabulary: int = 30522
    context: int = 512
    types: int = 2
    layers: int = 12
    heads: int = 12
    width: int = 768
    dropout: float = 0.1
    remat: bool = False
    unroll: int = 1  # of the loop over layers
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embedding = nn.Embed(self.vocabulary, self.width, embedding_init=init, **dtypes)
        self.position = LearnedPositions(self.context, self.width, init, **dtypes)
        self.type = nn.Embed(self.types, self.width, embedding_init=init, **dtypes)
        self.norm = nn.LayerNorm(EPSILON, **dtypes)
        self.drop = nn.Dropout(self.dropout)
        exact_gelu = partial(nn.gelu, approximate=False)
        inits: dict[str, Any] = {"kernel_init": init, "out_init": init, "epsilon": EPSILON, "activation": exact_gelu}
        block = partial(Block, self.width, self.heads, 4 * self.width, dropout=self.dropout, **inits, **dtypes)
        self.stack = Stack(self.layers, block, self.remat, self.unroll)
        self.pooler = nn.Dense(self.width, kernel_init=init, **dtypes)

    def __call__(
        self, tokens: Array, token_types: Array | None = None, lengths: Array | None = None, *, train: bool = False
    ) -> tuple[Array, Array]:
        size = tokens.shape[1]
        if size > self.context:
            raise UserError(f"this BERT has a context of {self.context} tokens; got {size}")
        types = jnp.zeros_like(tokens) if token_types is None else token_types
        x = self.norm(self.embedding(tokens) + self.position(jnp.arange(size)) + self.type(types))
        mask = None if lengths is None else padding_mask(lengths, size)
        hidden = self.stack(self.drop(x, deterministic=not train), mask, train=train)
        return hidden, jnp.tanh(self.pooler(hidden[:, 0]))

    def attend(self, x: Array) -> Array:
        """The inner products of `[..., width]` with all token embeddings, `[..., vocabulary]`."""
        return self.embedding.attend(x)


class BERTForPretraining(nn.Module):
    """BERT with its two heads: which token stood here (tied to the embeddings), and do the sentences follow each other.

    Args (of the call): those of `BERT`, and
      positions: `[B, P]` of the tokens to be told, as the logits of all are a waste; None: all.

    Returns:
      The logits of the tokens `[B, P, vocabulary]` (`[B, T, vocabulary]`), and those of the sentences `[B, 2]` (0: the
      second one is the next, 1: it is not), at least float32.

    Source: Devlin et al. 2018 (arXiv:1810.04805), section 3.1.
    """

    bert: BERT

    def setup(self) -> None:
        dtypes = {"dtype": self.bert.dtype, "param_dtype": self.bert.param_dtype}
        self.transform = nn.Dense(self.bert.width, kernel_init=init, **dtypes)
        self.norm = nn.LayerNorm(EPSILON, **dtypes)
        self.bias = self.param("bias", nn.initializers.zeros, (self.bert.vocabulary,), self.bert.param_dtype)
        self.next_sentence = nn.Dense(2, kernel_init=init, **dtypes)

    def __call__(
        self,
        tokens: Array,
        token_types: Array | None = None,
        lengths: Array | None = None,
        positions: Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[Array, Array]:
        x, pooled = self.bert(tokens, token_types, lengths, train=train)
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], 1)
        x = self.norm(nn.gelu(self.transform(x), approximate=False))
        exact = jnp.promote_types(self.bert.dtype, jnp.float32)
        return self.bert.attend(x).astype(exact) + self.bias.astype(exact), self.next_sentence(pooled).astype(exact)
