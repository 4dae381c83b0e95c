"""Linear-chain conditional random fields: tags that look at their neighbours.

`score(y) = start[y_1] + sum_t emissions[t, y_t] + sum_{t > 1} between[y_{t - 1}, y_t] + end[y_T]`, and the probability
of the tags y is `exp(score(y)) / Z` with Z the sum over all K^T sequences.

Lafferty, McCallum and Pereira 2001, Conditional Random Fields; Rabiner 1989, A Tutorial on Hidden Markov Models, for
the algorithms.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array

LOW = -1e30  # stands for -inf, as differences of infinities are NaN


class Transitions(NamedTuple):
    """The scores of what follows what. One of -inf, or below -1e30, forbids it.

    Attributes:
      between: `[K, K]`, of the tag of the column after that of the row.
      start: `[K]`, of the first tag.
      end: `[K]`, of the last tag.
    """

    between: Array
    start: Array
    end: Array


def log_partition(emissions: Array, transitions: Transitions, lengths: Array | None = None) -> Array:
    """The logarithm of Z, `log sum_y exp(score(y))`, by the forward algorithm.

    Args:
      emissions: `[B, T, K]`, the scores of every tag at every position.
      transitions: those between tags.
      lengths: positions `[B]` int32, T each if None. What is behind them does not matter. Of length 0 the result is 0.

    Returns:
      `[B]`, float32 or wider.

    Source: Rabiner 1989, equations 19 to 21, with scores in place of log-probabilities.
    """
    emissions, (between, start, end), lengths = _prepared(emissions, transitions, lengths)

    def step(alpha: Array, position: tuple[Array, Array]) -> tuple[Array, None]:
        t, emission = position
        following = jax.nn.logsumexp(alpha[:, :, None] + between, 1) + emission
        return jnp.where((t < lengths)[:, None], following, alpha), None

    rest = (jnp.arange(1, emissions.shape[1]), emissions[:, 1:].swapaxes(0, 1))
    alpha, _ = lax.scan(step, start + emissions[:, 0], rest)
    return jnp.where(lengths > 0, jax.nn.logsumexp(alpha + end, 1), 0)


def sequence_score(emissions: Array, tags: Array, transitions: Transitions, lengths: Array | None = None) -> Array:
    """The score of given tags, `[B]`, the logarithm of their term in Z.

    Args:
      emissions, transitions, lengths: as in `log_partition`.
      tags: `[B, T]` int32. What is behind the lengths does not matter.

    Source: Lafferty, McCallum and Pereira 2001, equation 1.
    """
    emissions, (between, start, end), lengths = _prepared(emissions, transitions, lengths)
    batch, size, classes = emissions.shape
    tags = jnp.clip(tags, 0, classes - 1)  # padding may be anything
    here = jnp.take_along_axis(emissions, tags[..., None], 2)[..., 0]  # 0 behind the lengths
    follow = between[tags[:, :-1], tags[:, 1:]]
    last = tags[jnp.arange(batch), jnp.maximum(lengths - 1, 0)]
    inner = here.sum(1) + jnp.where(jnp.arange(1, size) < lengths[:, None], follow, 0).sum(1)
    return inner + jnp.where(lengths > 0, start[tags[:, 0]] + end[last], 0)


def negative_log_likelihood(
    emissions: Array, tags: Array, transitions: Transitions, lengths: Array | None = None
) -> Array:
    """The loss of given tags, `log Z - score(tags)`, `[B]` in nats.

    Args:
      emissions, tags, transitions, lengths: as in `sequence_score`.

    Source: Lample et al. 2016, Neural Architectures for Named Entity Recognition (arXiv:1603.01360), section 2.2.
    """
    partition = log_partition(emissions, transitions, lengths)
    return partition - sequence_score(emissions, tags, transitions, lengths)


def marginals(emissions: Array, transitions: Transitions, lengths: Array | None = None) -> Array:
    """The probability of every tag at every position, by the forward and the backward algorithm.

    `p[t, k] = d log Z / d emissions[t, k]`

    Args:
      emissions, transitions, lengths: as in `log_partition`.

    Returns:
      `[B, T, K]`, of sum 1 at every position and 0 behind the lengths.

    Source: Rabiner 1989, equations 24, 25 and 27.
    """
    emissions, (between, start, end), lengths = _prepared(emissions, transitions, lengths)
    size = emissions.shape[1]
    within = jnp.arange(size)[:, None, None] < lengths[:, None]  # [T, B, 1]
    scores = emissions.swapaxes(0, 1)

    def forward(alpha: Array, position: tuple[Array, Array]) -> tuple[Array, Array]:
        inside, emission = position
        alpha = jnp.where(inside, jax.nn.logsumexp(alpha[:, :, None] + between, 1) + emission, alpha)
        return alpha, alpha

    def backward(beta: Array, position: tuple[Array, Array]) -> tuple[Array, Array]:
        inside, emission = position  # of the position after
        beta = jnp.where(inside, jax.nn.logsumexp((beta + emission)[:, None] + between, 2), beta)
        return beta, beta

    first = start + scores[0]
    last = jnp.broadcast_to(end, first.shape)
    _, alphas = lax.scan(forward, first, (within[1:], scores[1:]))
    _, betas = lax.scan(backward, last, (within[1:], scores[1:]), reverse=True)
    both = jnp.concatenate([first[None], alphas]) + jnp.concatenate([betas, last[None]])
    return jnp.where(within, jax.nn.softmax(both), 0).swapaxes(0, 1)


def viterbi(emissions: Array, transitions: Transitions, lengths: Array | None = None) -> tuple[Array, Array]:
    """The tags of the highest score. Among equals, the lower tags from the end on.

    Args:
      emissions, transitions, lengths: as in `log_partition`.

    Returns:
      The tags `[B, T]` int32, 0 behind the lengths, and their scores `[B]`.

    Source: Viterbi 1967; Rabiner 1989, equations 32 to 35.
    """
    emissions, (between, start, end), lengths = _prepared(emissions, transitions, lengths)
    size, classes = emissions.shape[1:]
    within = jnp.arange(size)[:, None] < lengths  # [T, B]
    scores = emissions.swapaxes(0, 1)

    def forward(best: Array, position: tuple[Array, Array]) -> tuple[Array, Array]:
        inside, emission = position
        through = best[:, :, None] + between
        moved = jnp.where(inside[:, None], through.max(1) + emission, best)
        return moved, jnp.where(inside[:, None], through.argmax(1), jnp.arange(classes)).astype(jnp.int32)

    def backward(tag: Array, previous: Array) -> tuple[Array, Array]:
        return jnp.take_along_axis(previous, tag[:, None], 1)[:, 0], tag

    best, previous = lax.scan(forward, start + scores[0], (within[1:], scores[1:]))
    total = best + end
    first, rest = lax.scan(backward, total.argmax(1).astype(jnp.int32), previous, reverse=True)
    tags = jnp.where(within, jnp.concatenate([first[None], rest]), 0).T
    return tags, jnp.where(lengths > 0, total.max(1), 0)


def _prepared(emissions: Array, transitions: Transitions, lengths: Array | None) -> tuple[Array, Transitions, Array]:
    """Scores in float32 or wider, with LOW in place of -inf and 0 behind the lengths."""
    batch, size, _ = emissions.shape
    lengths = jnp.full(batch, size, jnp.int32) if lengths is None else jnp.asarray(lengths)
    dtype = jnp.promote_types(jnp.result_type(emissions, *transitions), jnp.float32)
    emissions, transitions = jax.tree.map(lambda x: jnp.maximum(jnp.asarray(x, dtype), LOW), (emissions, transitions))
    return jnp.where((jnp.arange(size) < lengths[:, None])[..., None], emissions, 0), transitions, lengths
