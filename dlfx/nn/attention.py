"""Attention: values weighed by how well their keys fit a query.

Masks are boolean and say where a query may look. Weights are float32 at least. A query that may look nowhere gets the
mean of all values.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.nn.dense import Dense
from dlfx.nn.positions import rotary
from dlfx.types import Array, UserError

BLOCK = 64  # queries; 32 and 128 are no faster on CPU


class KeysAndValues(NamedTuple):
    """What queries look at: of a whole sequence, or of the part that is known so far.

    Attributes:
      keys: `[B, S, H, D]`; in a cache `[B, H, S, D]`.
      values: alike.
    """

    keys: Array
    values: Array


def padding_mask(lengths: Array, size: int) -> Array:
    """True at the positions of each sequence, False at the padding after it: `[B]` to `[B, 1, 1, size]`."""
    return (jnp.arange(size) < lengths[:, None])[:, None, None, :]


def causal_mask(queries: int, keys: int, first: Array | int = 0) -> Array:
    """True where the key is not later than the query: `[1, 1, queries, keys]`; the first query stands at `first`."""
    return (jnp.arange(keys) <= first + jnp.arange(queries)[:, None])[None, None]


def attention_weights(query_BTHD: Array, key_BSHD: Array, mask: Array | None = None) -> Array:
    """How much each query looks at each key.

    `W[t, s] = exp(q_t k_s / sqrt(D)) / sum_s' exp(q_t k_s' / sqrt(D))`, over the s' that the mask allows

    Args:
      query_BTHD: queries of H heads.
      key_BSHD: keys.
      mask: broadcastable to `[B, H, T, S]`, or None.

    Returns:
      `[B, H, T, S]`, float32 at least; exactly 0 where the mask is False.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), equation 1. The scale is one over the
      standard deviation of a product of D independent pairs of variance 1, not over its variance D.
    """
    # Matrix products of contiguous heads are faster on CPU than the same contraction over the third axis.
    query_BHTD, key_BHSD = query_BTHD.swapaxes(1, 2) * query_BTHD.shape[-1] ** -0.5, key_BSHD.swapaxes(1, 2)
    exact = jnp.promote_types(query_BTHD.dtype, jnp.float32)
    scores = jnp.matmul(query_BHTD, key_BHSD.swapaxes(2, 3), preferred_element_type=exact)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(exact).min)
    return jax.nn.softmax(scores)


def weighted_values(weights_BHTS: Array, value_BSHD: Array) -> Array:
    """`sum_s W[t, s] v_s`: `[B, T, H, D]`, of the type of the values."""
    return (weights_BHTS.astype(value_BSHD.dtype) @ value_BSHD.swapaxes(1, 2)).swapaxes(1, 2)


def dot_product_attention(
    query_BTHD: Array, key_BSHD: Array, value_BSHD: Array, mask: Array | None = None, causal: bool = False
) -> Array:
    """Scaled dot-product attention: `softmax(Q K^T / sqrt(D)) V`.

    cuDNN's fused form where the backend has it for these shapes and types (float16 and bfloat16), which never holds
    the weights as a whole. Elsewhere a plain one: on CPU, forward and backward, it takes 1.6 ms for 12 sequences of 64
    positions in 4 heads of 32, where XLA's form in `jax.nn` takes 2.2 to 3.5 and PyTorch 2.0 to 2.3. A longer causal
    one goes by blocks of queries, which leave out most of what none of them may see: 50 ms instead of 70 for 12
    sequences of 256 in 6 heads of 64 (`jax.nn` 87 to 93, PyTorch 33 to 37).

    Args:
      query_BTHD: queries of H heads.
      key_BSHD: keys.
      value_BSHD: values.
      mask: broadcastable to `[B, H, T, S]`, or None.
      causal: that query t sees keys 0 ... t alone, besides the mask.

    Returns:
      `[B, T, H, D]`.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), equation 1.
    """
    if _has_fused(query_BTHD, key_BSHD, mask, causal):
        return _fused(query_BTHD, key_BSHD, value_BSHD, mask, causal)
    if not causal:
        return weighted_values(attention_weights(query_BTHD, key_BSHD, mask), value_BSHD)
    steps, size = query_BTHD.shape[1], key_BSHD.shape[1]
    out = []
    for start in range(0, steps, BLOCK):
        stop = min(start + BLOCK, steps)
        seen = min(stop, size)
        allowed = causal_mask(stop - start, seen, start)
        if mask is not None:
            rows = slice(start, stop) if mask.shape[-2] > 1 else slice(None)
            columns = slice(0, seen) if mask.shape[-1] > 1 else slice(None)
            allowed = allowed & mask[..., rows, columns]
        weights = attention_weights(query_BTHD[:, start:stop], key_BSHD[:, :seen], allowed)
        out.append(weighted_values(weights, value_BSHD[:, :seen]))
    return jnp.concatenate(out, 1)


class MultiHeadAttention(nn.Module):
    """Attention of several heads, each in a space of its own: self-attention, or to another sequence.

    `y = concat_h(softmax(q_h k_h^T / sqrt(D)) v_h) W_out`, with `q_h, k_h, v_h` projections to D = features / heads

    In training with dropout, weights are dropped, as in the code of the paper. Whoever wants the weights for a figure
    takes them as `intermediates`: `module.apply(variables, x, mutable="intermediates")` holds
    `weights [B, H, T, S]`. Both of these go without the fused form.

    Calls:
      `module(x [B, T, F], mask=None, train=False)`: x looks at itself.
      `module.attend(x, module.project(memory), mask, train=False)`: at another sequence, projected once for all x.
      `module.decode(x, cache, position)`: x are the next T tokens of a sequence; the keys and values of those before
        `position` stand in the cache.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), section 3.2.2.
    """

    features: int
    heads: int
    causal: bool = False  # a query sees no later key; of self-attention
    rotary: bool = False  # queries and keys are turned by their position; of self-attention
    dropout: float = 0.0  # of weights
    use_bias: bool = True
    kernel_init: Any = nn.initializers.xavier_uniform()
    out_init: Any = nn.initializers.xavier_uniform()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.heads < 1 or self.features % self.heads:
            raise UserError(f"{self.heads} heads do not divide {self.features} features")
        options = {"use_bias": self.use_bias, "dtype": self.dtype, "param_dtype": self.param_dtype}
        self.query = Dense(self.features, kernel_init=self.kernel_init, **options)
        self.key = Dense(self.features, kernel_init=self.kernel_init, **options)
        self.value = Dense(self.features, kernel_init=self.kernel_init, **options)
        self.out = Dense(self.features, kernel_init=self.out_init, **options)
        self.drop = nn.Dropout(self.dropout)

    def __call__(self, x: Array, mask: Array | None = None, train: bool = False) -> Array:
        """x `[B, T, F]` and a mask broadcastable to `[B, H, T, T]` to `[B, T, features]`."""
        return self._out(self._queries(x), self.project(x), mask, self.causal, train)

    def project(self, memory: Array, position: Array | int = 0) -> KeysAndValues:
        """The keys and values of `[B, S, F]`, whose first token stands at `position`."""
        keys = self._split(self.key(memory))
        if self.rotary:
            keys = rotary(keys, position + jnp.arange(memory.shape[1]))
        return KeysAndValues(keys, self._split(self.value(memory)))

    def attend(self, x: Array, memory: KeysAndValues, mask: Array | None = None, train: bool = False) -> Array:
        """x `[B, T, F]`, keys and values `[B, S, H, D]` and a mask for `[B, H, T, S]` to `[B, T, features]`."""
        return self._out(self._queries(x), memory, mask, False, train)

    def decode(self, x: Array, cache: KeysAndValues, position: Array | int) -> tuple[Array, KeysAndValues]:
        """The next T tokens of causal self-attention.

        Args:
          x: `[B, T, F]`.
          cache: `[B, H, S, D]`, filled up to `position`. See `empty_cache`.
          position: [] of the first token of x.

        Returns:
          `[B, T, features]`, and what belongs into the cache at `position`, `[B, H, T, D]`.
        """
        new = KeysAndValues(*(part.swapaxes(1, 2) for part in self.project(x, position)))
        query_BHTD = self._queries(x, position).swapaxes(1, 2) * (self.features // self.heads) ** -0.5
        exact = jnp.promote_types(query_BHTD.dtype, jnp.float32)
        steps, size = x.shape[1], cache.keys.shape[2]
        # New keys are apart from old ones: to put them into a copy of the cache first would move all of it.
        old = jnp.broadcast_to(jnp.arange(size) < position, (steps, size))
        mask = jnp.concatenate([old, jnp.tri(steps, dtype=bool)], 1)
        scores = [
            jnp.matmul(query_BHTD, keys.swapaxes(2, 3), preferred_element_type=exact) for keys in (cache.keys, new.keys)
        ]
        weights = jax.nn.softmax(jnp.where(mask, jnp.concatenate(scores, -1), jnp.finfo(exact).min))
        weights = weights.astype(new.values.dtype)
        y = weights[..., :size] @ cache.values + weights[..., size:] @ new.values
        return self.out(y.swapaxes(1, 2).reshape(x.shape[0], steps, self.features)), new

    def _queries(self, x: Array, position: Array | int = 0) -> Array:
        queries = self._split(self.query(x))
        return rotary(queries, position + jnp.arange(x.shape[1])) if self.rotary else queries

    def _split(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], self.heads, self.features // self.heads)

    def _out(self, queries: Array, memory: KeysAndValues, mask: Array | None, causal: bool, train: bool) -> Array:
        if (train and self.dropout) or self.is_mutable_collection("intermediates"):
            if causal:
                earlier = causal_mask(queries.shape[1], memory.keys.shape[1])
                mask = earlier if mask is None else mask & earlier
            weights = attention_weights(queries, memory.keys, mask)
            self.sow("intermediates", "weights", weights)
            y = weighted_values(self.drop(weights, deterministic=not train), memory.values)
        else:
            y = dot_product_attention(queries, *memory, mask, causal)
        return self.out(y.reshape(*y.shape[:2], self.features))


def empty_cache(batch: int, size: int, heads: int, features: int, dtype: Any = jnp.float32) -> KeysAndValues:
    """Room for the keys and values of `size` tokens in `MultiHeadAttention.decode`: `[B, H, S, D]`.

    Each head has its own matrix, which a product takes as it lies.
    """
    return KeysAndValues(*(jnp.zeros((batch, heads, size, features // heads), dtype) for _ in range(2)))


class AdditiveAttention(nn.Module):
    """Attention whose scores are those of a small network.

    `score(q, k) = v . tanh(W q + U k)`, without biases; `context = sum_s softmax(score(q, k_s)) value_s`

    Calls: `module(query, module.project(memory), memory, mask)`. The projection is apart, as it is done once and then
    serves every step of a decoder.

    Args (of the call):
      query: `[B, Q]`, or `[B, T, Q]` for T of them.
      keys: of `project`, `[B, S, hidden]`.
      values: `[B, S, V]`.
      mask: `[B, S]`, True where there is something to look at, or None.

    Returns:
      The context `[B, V]` and the weights `[B, S]`, float32 at least; `[B, T, V]` and `[B, T, S]` of T queries.

    Source: Bahdanau, Cho and Bengio 2014, Neural Machine Translation by Jointly Learning to Align and Translate
      (arXiv:1409.0473), section 3.1 and appendix A.1.2.
    """

    hidden: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        options = {"use_bias": False, "dtype": self.dtype, "param_dtype": self.param_dtype}
        self.query = nn.Dense(self.hidden, **options)
        self.key = nn.Dense(self.hidden, **options)
        self.score = nn.Dense(1, **options)

    def project(self, memory: Array) -> Array:
        """The keys `[B, S, hidden]` of what is looked at, `[B, S, K]`."""
        return self.key(memory)

    def __call__(self, query: Array, keys: Array, values: Array, mask: Array | None = None) -> tuple[Array, Array]:
        queries = query if query.ndim == 3 else query[:, None]
        scores_BTS = self.score(jnp.tanh(self.query(queries)[:, :, None] + keys[:, None]))[..., 0]
        return _weighed(scores_BTS, values, mask, query.ndim)


class MultiplicativeAttention(nn.Module):
    """Attention whose scores are inner products, without a scale.

    `score(q, k) = q . k` ("dot") or `q . W k` ("general"); `context = sum_s softmax(score(q, k_s)) value_s`

    The calls and their arguments are those of `AdditiveAttention`, with keys `[B, S, Q]`.

    Source: Luong, Pham and Manning 2015, Effective Approaches to Attention-based Neural Machine Translation
      (arXiv:1508.04025), equations 7 and 8.
    """

    features: int  # Q, of the queries; in "dot" of the keys too
    general: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.general:
            self.key = nn.Dense(self.features, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype)

    def project(self, memory: Array) -> Array:
        """The keys `[B, S, Q]` of what is looked at, `[B, S, K]`."""
        if not self.general and memory.shape[-1] != self.features:
            raise UserError(
                f"dot-product attention of queries of {self.features} features takes keys of as many; got "
                f"{memory.shape[-1]} (general=True maps them)"
            )
        return self.key(memory) if self.general else memory.astype(self.dtype)

    def __call__(self, query: Array, keys: Array, values: Array, mask: Array | None = None) -> tuple[Array, Array]:
        queries = query if query.ndim == 3 else query[:, None]
        scores_BTS = queries.astype(self.dtype) @ keys.swapaxes(1, 2)
        return _weighed(scores_BTS, values, mask, query.ndim)


def _weighed(scores_BTS: Array, values_BSV: Array, mask_BS: Array | None, ndim: int) -> tuple[Array, Array]:
    exact = jnp.promote_types(scores_BTS.dtype, jnp.float32)
    scores_BTS = scores_BTS.astype(exact)
    if mask_BS is not None:
        scores_BTS = jnp.where(mask_BS[:, None], scores_BTS, jnp.finfo(exact).min)
    weights = jax.nn.softmax(scores_BTS)
    context = weights.astype(values_BSV.dtype) @ values_BSV
    return (context, weights) if ndim == 3 else (context[:, 0], weights[:, 0])


def _fused(query: Array, key: Array, value: Array, mask: Array | None, causal: bool) -> Array:
    return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal, implementation="cudnn")


def _has_fused(query: Array, key: Array, mask: Array | None, causal: bool) -> bool:
    if jax.default_backend() != "gpu" or query.dtype not in (jnp.float16, jnp.bfloat16):
        return False
    return _lowers(query.shape, key.shape, None if mask is None else mask.shape, str(query.dtype), causal)


@functools.cache
def _lowers(
    query: tuple[int, ...], key: tuple[int, ...], mask: tuple[int, ...] | None, dtype: str, causal: bool
) -> bool:
    """Whether cuDNN takes these shapes, forward and backward, on this machine: jax knows, and says no by raising."""
    memory = jax.ShapeDtypeStruct(key, dtype)
    allowed = None if mask is None else jax.ShapeDtypeStruct(mask, jnp.bool_)

    def loss(q: Array, k: Array, v: Array, allowed: Array | None) -> Array:
        return _fused(q, k, v, allowed, causal).sum()

    try:
        jax.jit(jax.grad(loss, (0, 1, 2))).lower(jax.ShapeDtypeStruct(query, dtype), memory, memory, allowed)
    except (NotImplementedError, RuntimeError, ValueError):
        return False
    return True
