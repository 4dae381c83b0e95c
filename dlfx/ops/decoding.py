"""Sequences from an autoregressive model: greedy, sampled with filters, and by beam search."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array, Key, UserError

# (state, tokens [N]) to (state, logits [N, V]) of the tokens that follow; leaves of state begin with the axis N.
Step = Callable[[Any, Array], tuple[Any, Array]]


class Decoded(NamedTuple):
    """Sequences, without the token they began with.

    Attributes:
      tokens: `[B, T]` int32, or `[B, beam, T]` from the best sequence to the worst; after the end there is padding.
      lengths: `[B]` or `[B, beam]` int32, of tokens, that of the end included.
      log_probs: `[B]` or `[B, beam]`, `log p(tokens | first)` under the model's own softmax, in nats. It is -inf for a
        beam that found nothing, since there are fewer sequences than beams.
    """

    tokens: Array
    lengths: Array
    log_probs: Array


def greedy(step: Step, state: Any, first: Array, max_length: int, end: int | None = None, pad: int = 0) -> Decoded:
    """Always the most probable token, the first of those that are equal: `y_t = argmax_k p(k | y_{<t})`.

    Args:
      step: of the model. `state` must keep its shapes and types from one call to the next.
      state: what the model knows before it reads `first`; each leaf has the leading axis B.
      first: `[B]` integer: the token that begins a sequence, or the last one of a prompt that `state` has seen the
        rest of.
      max_length: T, at which a sequence is cut.
      end: the token that ends a sequence; None if all have T tokens. The loop stops when all sequences have ended.
      pad: fills `tokens` after the end.

    Raises:
      UserError: for a max_length below 1, an `end` that the model does not know, or a state with other leading axes.
    """
    return _one_by_one(step, state, first, max_length, end, pad, lambda t, logits: logits.argmax(-1))


def sample(
    step: Step,
    state: Any,
    first: Array,
    key: Key,
    max_length: int,
    end: int | None = None,
    pad: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Decoded:
    """Random tokens: `y_t ~ softmax(filter(logits / temperature))`, top-k before top-p.

    Args:
      step: as for `greedy`, and so are state, first, max_length, end and pad.
      key: of the randomness.
      temperature: below 1 prefers what is probable; 0 is `greedy`.
      top_k: draws only from so many tokens, the most probable ones; from all if None.
      top_p: draws only from the smallest set of tokens that has this probability (after top_k); from all if None.

    Raises:
      UserError: as `greedy`, for a temperature below 0, and as the filters.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (arXiv:1904.09751), section 3.
    """
    if temperature < 0:
        raise UserError(f"temperature {temperature:g}; it is at least 0")

    def choose(t: Array, logits: Array) -> Array:
        logits = logits / temperature if temperature else logits
        logits = logits if top_k is None else top_k_filter(logits, top_k)
        logits = logits if top_p is None else top_p_filter(logits, top_p)
        return jax.random.categorical(jax.random.fold_in(key, t), logits) if temperature else logits.argmax(-1)

    return _one_by_one(step, state, first, max_length, end, pad, choose)


def top_k_filter(logits: Array, k: int) -> Array:
    """The k largest logits `[..., V]`; the others become -inf. Of equal ones the first are kept.

    Raises:
      UserError: for a k that is not from 1 to V.

    Source: Fan, Lewis and Dauphin 2018, Hierarchical Neural Story Generation (arXiv:1805.04833), section 5.2.
    """
    if not 1 <= k <= logits.shape[-1]:
        raise UserError(f"top-k of {k} tokens; there are {logits.shape[-1]}, and at least 1 is kept")
    return _keep(logits, lax.top_k(logits, k)[1], True)


def top_p_filter(logits: Array, p: float) -> Array:
    """The nucleus: of the logits `[..., V]` the fewest, and largest, whose softmax sums to p or more.

    The others become -inf. Of equal ones the first are kept.

    Raises:
      UserError: for a p that is not above 0 and at most 1.

    Source: Holtzman et al. 2020, The Curious Case of Neural Text Degeneration (arXiv:1904.09751), equation 2.
    """
    if not 0 < p <= 1:
        raise UserError(f"top-p of {p:g}; it is above 0 and at most 1")
    if p == 1:  # rounded, the sum may reach 1 too early
        return logits
    order = jnp.argsort(logits, axis=-1, descending=True, stable=True)
    probs = jax.nn.softmax(_precise(jnp.take_along_axis(logits, order, -1)), axis=-1)
    sums = probs.cumsum(-1)
    before = jnp.concatenate([jnp.zeros_like(sums[..., :1]), sums[..., :-1]], -1)
    return _keep(logits, order, before < p)


def length_penalty(length: Array | int, alpha: float) -> Array:
    """What a log-probability is divided by, so that long sequences may win: `((5 + length) / 6)^alpha`.

    Source: Wu et al. 2016, Google's Neural Machine Translation System (arXiv:1609.08144), equation 14.
    """
    return ((5.0 + jnp.asarray(length)) / 6.0) ** alpha


def beam_search(
    step: Step,
    state: Any,
    first: Array,
    max_length: int,
    beam: int,
    end: int | None = None,
    pad: int = 0,
    alpha: float = 0.0,
) -> Decoded:
    """The sequences of highest `log p(y) / length_penalty(|y|, alpha)` among those that a beam keeps.

    Every step extends each kept sequence by every token and keeps the `beam` best by that score. A finished sequence
    stays one of them, unchanged, until better ones push it out. Sequences cut at T take part as they are.

    Args:
      step: as for `greedy`, and so are state, first, max_length, end and pad. It is called with N = B beam: row
        `b beam + i` is beam i of sequence b, and after each call rows are gathered from their parents'.
      beam: how many to keep. 1 is `greedy`; as many as there are sequences makes the search exact.
      alpha: at least 0. At 0 short sequences are preferred, as each token lowers the probability.

    Raises:
      UserError: as `greedy`, for a beam below 1 and an alpha below 0.

    Source: Graves 2012, Sequence Transduction with Recurrent Neural Networks (arXiv:1211.3711), section 2.5 (beam
    search); Wu et al. 2016 (arXiv:1609.08144), section 7 (the score).
    """
    logits = _checked(step, state, first, max_length, end)
    if beam < 1:
        raise UserError(f"beam {beam}; it is at least 1")
    if alpha < 0:
        raise UserError(f"alpha {alpha:g}; it is at least 0")
    batch, vocabulary = logits.shape
    rows = jnp.arange(batch)[:, None]  # [B, 1]
    dtype = jnp.promote_types(logits.dtype, jnp.float32)

    def unfinished(carry: tuple[Array, Any, Array, Decoded, Array]) -> Array:
        t, _, _, found, finished = carry
        return (t < max_length) & jnp.any(~finished & (found.log_probs > -jnp.inf))

    def extend(carry: tuple[Array, Any, Array, Decoded, Array]) -> tuple[Array, Any, Array, Decoded, Array]:
        t, state, last, found, finished = carry
        state, logits = step(state, last.reshape(-1))
        log_probs = jax.nn.log_softmax(logits.astype(dtype), axis=-1).reshape(batch, beam, vocabulary)
        # A finished sequence has one way to go on: the token of its end again, for free.
        again = jnp.where(jnp.arange(vocabulary) == (-1 if end is None else end), 0.0, -jnp.inf).astype(dtype)
        log_probs = jnp.where(finished[..., None], again[None, None], log_probs) + found.log_probs[..., None]
        lengths = found.lengths + ~finished
        scores = log_probs / length_penalty(lengths, alpha).astype(dtype)[..., None]
        best = lax.top_k(scores.reshape(batch, -1), beam)[1]  # [B, beam]
        parents, last = best // vocabulary, (best % vocabulary).astype(jnp.int32)
        found = Decoded(
            found.tokens[rows, parents].at[:, :, t].set(last),
            lengths[rows, parents],
            log_probs[rows, parents, last],
        )
        finished = finished[rows, parents] | (False if end is None else last == end)
        return t + 1, _rows(state, rows * beam + parents), last, found, finished

    nothing = Decoded(
        jnp.full((batch, beam, max_length), pad, jnp.int32),
        jnp.zeros((batch, beam), jnp.int32),
        # All beams begin alike: only the first may go on, or each would find the same.
        jnp.broadcast_to(jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf).astype(dtype), (batch, beam)),
    )
    last = jnp.broadcast_to(first.astype(jnp.int32)[:, None], (batch, beam))
    state = _rows(state, jnp.broadcast_to(rows, (batch, beam)))
    carry = (jnp.int32(0), state, last, nothing, jnp.zeros((batch, beam), bool))
    return _padded(lax.while_loop(unfinished, extend, carry)[3], pad)


def _one_by_one(
    step: Step,
    state: Any,
    first: Array,
    max_length: int,
    end: int | None,
    pad: int,
    choose: Callable[[Array, Array], Array],
) -> Decoded:
    """One sequence a row; `choose` gives the next tokens `[B]` from their position and logits `[B, V]`."""
    logits = _checked(step, state, first, max_length, end)
    batch = logits.shape[0]
    dtype = jnp.promote_types(logits.dtype, jnp.float32)

    def unfinished(carry: tuple[Array, Any, Array, Decoded, Array]) -> Array:
        return (carry[0] < max_length) & ~carry[-1].all()

    def extend(carry: tuple[Array, Any, Array, Decoded, Array]) -> tuple[Array, Any, Array, Decoded, Array]:
        t, state, last, found, finished = carry
        state, logits = step(state, last)
        logits = logits.astype(dtype)
        last = jnp.where(finished, last, choose(t, logits).astype(jnp.int32))
        gained = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), last[:, None], -1)[:, 0]
        found = Decoded(
            found.tokens.at[:, t].set(last),
            found.lengths + ~finished,
            found.log_probs + jnp.where(finished, 0, gained),
        )
        return t + 1, state, last, found, finished if end is None else finished | (last == end)

    nothing = Decoded(
        jnp.full((batch, max_length), pad, jnp.int32), jnp.zeros(batch, jnp.int32), jnp.zeros(batch, dtype)
    )
    carry = (jnp.int32(0), state, first.astype(jnp.int32), nothing, jnp.zeros(batch, bool))
    return _padded(lax.while_loop(unfinished, extend, carry)[3], pad)


def _checked(step: Step, state: Any, first: Array, max_length: int, end: int | None) -> jax.ShapeDtypeStruct:
    """The logits that step will give, after a look at the arguments."""
    if max_length < 1:
        raise UserError(f"max_length {max_length}; it is at least 1")
    for leaf in jax.tree.leaves(state):
        if jnp.shape(leaf)[:1] != first.shape:
            raise UserError(
                f"a leaf of state is {jnp.shape(leaf)}; its first axis must be that of first, {first.shape}"
            )
    logits: jax.ShapeDtypeStruct = jax.eval_shape(step, state, first.astype(jnp.int32))[1]
    if end is not None and not 0 <= end < logits.shape[-1]:
        raise UserError(f"end {end}; the model's tokens are 0 to {logits.shape[-1] - 1}")
    return logits


def _rows(state: Any, rows: Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows.reshape(-1)], state)


def _padded(found: Decoded, pad: int) -> Decoded:
    inside = jnp.arange(found.tokens.shape[-1]) < found.lengths[..., None]
    return found._replace(tokens=jnp.where(inside, found.tokens, pad))


def _keep(logits: Array, indices: Array, which: Array | bool) -> Array:
    """The logits at those `indices` for which `which` holds, and -inf elsewhere."""
    chosen = jnp.put_along_axis(jnp.zeros(logits.shape, bool), indices, which, axis=-1, inplace=False)
    return jnp.where(chosen, logits, -jnp.inf)


def _precise(logits: Array) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
