"""BERT with the layer that a task needs, to be fine-tuned as a whole."""

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.sequence.bert import BERT, init
from dlfx.types import Array


class BERTClassifier(nn.Module):
    """The class of a text, or of a pair of texts: a dense layer on the pooled vector, dropout before it.

    Args (of the call): those of `BERT`.

    Returns:
      Logits `[B, classes]`, at least float32.

    Source: Devlin et al. 2018 (arXiv:1810.04805), section 4.1.
    """

    bert: BERT
    classes: int
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self, tokens: Array, token_types: Array | None = None, lengths: Array | None = None, *, train: bool = False
    ) -> Array:
        _, pooled = self.bert(tokens, token_types, lengths, train=train)
        return _dense(self.bert, self.classes, nn.Dropout(self.dropout)(pooled, deterministic=not train))


class BERTTagger(nn.Module):
    """The tag of every token: a dense layer on its hidden state, dropout before it.

    Args (of the call): those of `BERT`, and
      positions: `[B, W]` of the tokens to be tagged, the first ones of words; None: all.

    Returns:
      Logits `[B, W, tags]` (`[B, T, tags]`), at least float32.

    Source: Devlin et al. 2018 (arXiv:1810.04805), section 5.3: the first token of a word stands for it, no CRF.
    """

    bert: BERT
    tags: int
    dropout: float = 0.1

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        token_types: Array | None = None,
        lengths: Array | None = None,
        positions: Array | None = None,
        *,
        train: bool = False,
    ) -> Array:
        x, _ = self.bert(tokens, token_types, lengths, train=train)
        if positions is not None:
            x = jnp.take_along_axis(x, positions[..., None], 1)
        return _dense(self.bert, self.tags, nn.Dropout(self.dropout)(x, deterministic=not train))


class BERTSpans(nn.Module):
    """Where an answer stands: the inner products of a start and an end vector with the hidden states.

    Args (of the call): those of `BERT`; the question is of type 0, the passage of type 1.

    Returns:
      The logits of the first and of the last token of the answer `[B, T]` each, at least float32. Those outside the
      passage, and padding, are for the caller to leave out; `ops.answer_spans` chooses.

    Source: Devlin et al. 2018 (arXiv:1810.04805), section 4.2.
    """

    bert: BERT

    @nn.compact
    def __call__(
        self, tokens: Array, token_types: Array | None = None, lengths: Array | None = None, *, train: bool = False
    ) -> tuple[Array, Array]:
        x, _ = self.bert(tokens, token_types, lengths, train=train)
        start, end = jnp.moveaxis(_dense(self.bert, 2, x), -1, 0)
        return start, end


def _dense(bert: BERT, features: int, x: Array) -> Array:
    out = nn.Dense(features, kernel_init=init, dtype=bert.dtype, param_dtype=bert.param_dtype, name="out")(x)
    return out.astype(jnp.promote_types(bert.dtype, jnp.float32))
