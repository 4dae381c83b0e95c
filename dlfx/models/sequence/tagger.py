"""A tagger of sequences: a bidirectional LSTM that says what each token could be, and a CRF of what follows what."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.models.sequence.elmo import LayerMix
from dlfx.models.sequence.text_classifier import ConvolutionalEncoder
from dlfx.nn.dense import Dense
from dlfx.nn.recurrent import Recurrent
from dlfx.ops import crf
from dlfx.types import Array


class Tagger(nn.Module):
    """Token embeddings, with what their letters look like where these are given, a BiLSTM, and a score for each tag.

    With `chain` the scores are those of a linear-chain CRF, whose transitions are trained too; without, every tag has a
    softmax of its own. A vector of the letters is that of a convolution over three of them, the strongest anywhere.
    Where layers of a language model are given, their mix, whose weights are trained, is one more part of a token.

    Calls, with tokens `[B, T]`, lengths `[B]`, letters `[B, T, C]` (numbers from 1, 0 behind a word's end) or None, and
    context `[B, L, T, F]`, L layers of a language model, or None:
      `model(tokens, lengths, letters, context, train=False)` to the scores `[B, T, tags]`, float32 at least. In
        training, tokens are now and then unknown, so that something is learned for those that are.
      `model.loss(tokens, lengths, tags, letters, context, train=False)` to nats `[B]`, the sums over tokens.
      `model.decode(tokens, lengths, letters, context)` to the best tags `[B, T]`, 0 at padding.

    Source: Huang, Xu and Yu 2015, Bidirectional LSTM-CRF Models for Sequence Tagging (arXiv:1508.01991); the letters:
      Ma and Hovy 2016, End-to-end Sequence Labeling via Bi-directional LSTM-CNNs-CRF (arXiv:1603.01354), section 2.1;
      layers of a language model: Peters et al. 2018 (arXiv:1802.05365), section 3.3.
    """

    vocabulary: int
    tags: int
    features: int = 64  # of a token's embedding
    hidden: int = 64  # units of each direction
    layers: int = 1
    chain: bool = True
    letters: int = 0  # different letters, the padding counted; 0: letters are not looked at
    letter_features: int = 30
    letter_maps: int = 30
    dropout: float = 0.5  # of what goes into the LSTM, and of what comes out
    word_dropout: float = 0.0  # the share of tokens that are unknown in training
    unknown: int = 1  # the token that stands for those
    mix_norm: bool = False  # layers of a language model are normalised before they are mixed
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.embedding = nn.Embed(self.vocabulary, self.features, **dtypes)
        if self.letters:
            self.letter_embedding = nn.Embed(self.letters, self.letter_features, **dtypes)
            self.spelling = ConvolutionalEncoder((3,), self.letter_maps, **dtypes)
        self.mix = LayerMix(self.mix_norm, self.param_dtype)
        self.network = Recurrent(
            "lstm",
            self.hidden,
            self.layers,
            bidirectional=True,
            dropout=self.dropout if self.layers > 1 else 0,
            **dtypes,
        )
        self.drop = nn.Dropout(self.dropout)
        self.out = Dense(self.tags, **dtypes)
        if self.chain:
            zeros = nn.initializers.zeros
            self.between = self.param("between", zeros, (self.tags, self.tags), self.param_dtype)
            self.start = self.param("start", zeros, (self.tags,), self.param_dtype)
            self.end = self.param("end", zeros, (self.tags,), self.param_dtype)

    def __call__(
        self,
        tokens: Array,
        lengths: Array | None = None,
        letters: Array | None = None,
        context: Array | None = None,
        *,
        train: bool = False,
    ) -> Array:
        if train and self.word_dropout:
            hidden = jax.random.bernoulli(self.make_rng("dropout"), self.word_dropout, tokens.shape)
            tokens = jnp.where(hidden, self.unknown, tokens)
        x = self.embedding(tokens)
        if self.letters:
            assert letters is not None
            words = letters.reshape(-1, letters.shape[-1])
            spelled = self.spelling(self.letter_embedding(words), (words > 0).sum(-1))
            x = jnp.concatenate([x, spelled.reshape(*tokens.shape, -1)], -1)
        if context is not None:
            x = jnp.concatenate([x, self.mix(context).astype(x.dtype)], -1)
        x, _ = self.network(self.drop(x, deterministic=not train), lengths, train=train)
        y = self.out(self.drop(x, deterministic=not train))
        return y.astype(jnp.promote_types(y.dtype, jnp.float32))

    def loss(
        self,
        tokens: Array,
        lengths: Array,
        tags: Array,
        letters: Array | None = None,
        context: Array | None = None,
        *,
        train: bool = False,
    ) -> Array:
        """The negative logarithm of the probability of a sequence of tags `[B, T]`, `[B]`."""
        scores = self(tokens, lengths, letters, context, train=train)
        if self.chain:
            return crf.negative_log_likelihood(scores, tags, self._transitions(), lengths)
        there = jnp.arange(tokens.shape[1]) < lengths[:, None]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(scores), tags[..., None], 2)[..., 0]
        return -jnp.where(there, chosen, 0).sum(1)

    def decode(
        self, tokens: Array, lengths: Array, letters: Array | None = None, context: Array | None = None
    ) -> Array:
        """The most probable sequence of tags, or without a chain the most probable tag of each token."""
        scores = self(tokens, lengths, letters, context)
        if self.chain:
            return crf.viterbi(scores, self._transitions(), lengths)[0]
        return jnp.where(jnp.arange(tokens.shape[1]) < lengths[:, None], scores.argmax(-1), 0).astype(jnp.int32)

    def _transitions(self) -> crf.Transitions:
        return crf.Transitions(self.between, self.start, self.end)
