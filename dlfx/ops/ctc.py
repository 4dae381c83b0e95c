"""Connectionist temporal classification: labels without the frames they belong to.

A path gives every frame one symbol or the blank; it reads as the label that is left when repeats are merged and then
blanks removed. The paths of a label `l_1 ... l_L` are those through the states blank, l_1, blank, l_2 ... l_L, blank:
each frame stays, goes one on, or two on past a blank that no repeat needs.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.types import Array, UserError

LOW = -1e30  # the logarithm of 0. Finite, as differences of infinities are NaN


def ctc_loss(
    logits: Array,
    logit_lengths: Array | None,
    labels: Array,
    label_lengths: Array | None,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Array:
    """The negative log-probability that a path reads as the label: `-log sum_paths prod_t softmax(logits_t)[path_t]`.

    Its gradient is `softmax(logits) - p`, with p the probability, given the label, that the path has this symbol at
    this frame. A label without a path (see `check_feasible`) costs infinity and has a gradient of 0, so that the rest
    of its batch still learns. Never below 0. Every frame is taken relative to the one before, so float32 keeps its
    digits over long sequences; `optax.ctc_loss`, which carries the whole sum, loses some and can dip below 0.

    Args:
      logits: `[B, T, K]`. One of -inf is a symbol that cannot be.
      logit_lengths: frames `[B]` int32, T each if None. What is behind them does not matter and gets no gradient.
      labels: symbols `[B, L]` int32, none of them the blank. What is behind their lengths does not matter.
      label_lengths: `[B]` int32, L each if None.
      blank: the symbol that says nothing.
      zero_infinity: whether a label without a path costs 0 instead.

    Returns:
      The losses `[B]` in nats, float32 or wider.

    Source: Graves et al. 2006, Connectionist Temporal Classification, equations 5 to 8, 10, 11 and 16.
    """
    batch, frames, _ = logits.shape
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    loss = _loss(
        logits, _full(logit_lengths, batch, frames), labels, _full(label_lengths, batch, labels.shape[1]), blank
    )
    return jnp.where(jnp.isinf(loss), 0, loss) if zero_infinity else loss


class Alignment(NamedTuple):
    """The likeliest path of a label.

    Attributes:
      symbols: `[B, T]` int32, of every frame; the blank behind the frames.
      positions: `[B, T]` int32, the index in the label of the symbol of every frame; -1 for the blank.
      score: `[B]`, the log-probability of the path; -inf of a label without one, whose frames are all blank.
    """

    symbols: Array
    positions: Array
    score: Array


def ctc_align(
    logits: Array, logit_lengths: Array | None, labels: Array, label_lengths: Array | None, blank: int = 0
) -> Alignment:
    """Forced alignment: which frame says which symbol, by Viterbi's algorithm over the states of `ctc_loss`.

    Among equals, the path that enters its states earlier.

    Args:
      logits, logit_lengths, labels, label_lengths, blank: as in `ctc_loss`.

    Source: Rabiner 1989, A Tutorial on Hidden Markov Models, equations 32 to 35, over the states of Graves et al. 2006.
    """
    batch, frames, _ = logits.shape
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    logit_lengths = _full(logit_lengths, batch, frames)
    label_lengths = _full(label_lengths, batch, labels.shape[1])
    emissions = _emissions(_log_softmax(logits), logit_lengths, labels, label_lengths, blank)
    skips = _skips(labels)

    def forward(best: Array, emission: Array) -> tuple[Array, Array]:
        sources = jnp.stack(_sources(best, skips))
        return jnp.maximum(sources.max(0) + emission, LOW), sources.argmax(0).astype(jnp.int32)

    def backward(state: Array, moves: Array) -> tuple[Array, Array]:
        state = state - jnp.take_along_axis(moves, state[None], 0)[0]
        return state, state

    best, moves = lax.scan(forward, _start(emissions, jnp.zeros_like(label_lengths)), emissions)
    end = 2 * label_lengths.astype(jnp.int32)
    score = jnp.take_along_axis(best, end[None], 0)[0]
    possible = score > LOW / 2
    _, path = lax.scan(backward, end, moves, reverse=True)  # path[t] is the state before frame t
    symbols = jnp.take_along_axis(_states(labels, blank), path[1:], 0).T
    path = path[1:].T
    labelled = (path % 2 == 1) & possible[:, None] & (jnp.arange(frames) < logit_lengths[:, None])
    positions = jnp.where(labelled, path // 2, -1)
    symbols = jnp.where(labelled, symbols, blank).astype(jnp.int32)
    return Alignment(symbols, positions, jnp.where(possible, score, -jnp.inf))


def check_feasible(
    labels: Any, label_lengths: Any, logit_lengths: Any, num_classes: int | None = None, blank: int = 0
) -> None:
    """Refuses labels that no path reads as: one needs a frame a symbol, and one more between two equal neighbours.

    On the host, for data: compiled code cannot raise.

    Args:
      labels: `[B, L]` integers.
      label_lengths: `[B]`, L each if None.
      logit_lengths: frames `[B]`, as the network gives them, which may be fewer than those of its input.
      num_classes: K, to check the symbols as well.
      blank: the symbol that says nothing.

    Raises:
      UserError: for the first label that is longer than its frames allow, or holds the blank or no symbol of the K.
    """
    labels, logit_lengths = np.asarray(labels), np.asarray(logit_lengths)
    sizes = np.full(len(labels), labels.shape[1]) if label_lengths is None else np.asarray(label_lengths)
    for row, (padded, size, frames) in enumerate(zip(labels, sizes, logit_lengths, strict=True)):
        label = padded[:size]
        repeats = int((label[1:] == label[:-1]).sum())
        if size + repeats > frames:
            raise UserError(
                f"label {row} has {size} symbols and {repeats} repeats, so it needs {size + repeats} frames; "
                f"there are {frames}"
            )
        if (label == blank).any():
            raise UserError(f"label {row} holds the blank, {blank}, which stands for no symbol")
        if num_classes is not None and ((label < 0) | (label >= num_classes)).any():
            wrong = label[(label < 0) | (label >= num_classes)][0]
            raise UserError(f"label {row} holds {wrong}; symbols are 0 to {num_classes - 1}")


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _loss(logits: Array, logit_lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Array:
    emissions = _emissions(_log_softmax(logits), logit_lengths, labels, label_lengths, blank)
    return _negative(_forward(emissions, _skips(labels), jnp.zeros_like(label_lengths))[1])


@_loss.defjvp
def _loss_and_slope(blank: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    # A rule for tangents, and linear in them: JAX transposes it, so both modes and higher derivatives work.
    logits, logit_lengths, labels, label_lengths = primals
    batch, frames, classes = logits.shape
    log_probs = _log_softmax(logits)
    emissions = _emissions(log_probs, logit_lengths, labels, label_lengths, blank)
    skips = _skips(labels)
    # From the end, time and states run backwards and are a lattice again: both directions are one loop.
    from_end = jnp.pad(skips[::-1], ((2, 0), (0, 0)), constant_values=LOW)[:-2]
    both, totals = _forward(
        jnp.concatenate([emissions, emissions[::-1, ::-1]], 2),
        jnp.concatenate([skips, from_end], 1),
        jnp.concatenate([jnp.zeros_like(label_lengths), 2 * (labels.shape[1] - label_lengths)]),
    )
    alpha, beta = both[:-1, :, :batch], both[:0:-1, ::-1, batch:]
    loss = _negative(totals[:batch])
    posterior = jax.nn.softmax(alpha + beta - emissions[:-1], 1)
    symbols = jax.nn.one_hot(_states(labels, blank), classes, dtype=logits.dtype)
    expected = jnp.einsum("tsb,sbk->tkb", posterior, symbols, precision=lax.Precision.HIGHEST)
    counts = (jnp.arange(frames)[:, None] < logit_lengths) & ~jnp.isinf(loss)
    slope = jnp.where(counts[:, None], jnp.exp(log_probs) - expected, 0).transpose(2, 0, 1)
    return loss, (slope * tangents[0]).sum((1, 2))


def _log_softmax(logits: Array) -> Array:
    """`[B, T, K]` to log-probabilities `[T, K, B]`: as what follows wants them."""
    return jax.nn.log_softmax(logits.transpose(1, 2, 0), 1)


def _negative(log_prob: Array) -> Array:
    """The loss: not below 0 by rounding, infinite where nothing is possible. NaN stays."""
    return jnp.where(log_prob < LOW / 2, jnp.inf, jnp.maximum(-log_prob, 0))


def _full(lengths: Array | None, batch: int, size: int) -> Array:
    return jnp.full(batch, size, jnp.int32) if lengths is None else jnp.asarray(lengths)


def _states(labels: Array, blank: int) -> Array:
    """The symbol of every state, `[2 L + 1, B]`: blank, l_1, blank, l_2, ..., blank."""
    pairs = jnp.stack([jnp.full_like(labels, blank), labels], -1).reshape(len(labels), -1)
    return jnp.pad(pairs, ((0, 0), (0, 1)), constant_values=blank).T


def _skips(labels: Array) -> Array:
    """0 for a state that can follow the one before the blank before it, else LOW: `[2 L + 1, B]`."""
    distinct = (labels != jnp.roll(labels, 1, 1)) & (jnp.arange(labels.shape[1]) > 0)
    return jnp.where(_states(distinct.astype(jnp.int32), 0) == 1, 0, LOW)


def _emissions(log_probs: Array, logit_lengths: Array, labels: Array, label_lengths: Array, blank: int) -> Array:
    """The log-probability of the symbol of every state at every frame, `[T + 1, 2 L + 1, B]`.

    Behind the frames, and in one frame more, only the last blank is possible, and costs nothing: whatever a path ends
    with, its sum arrives there, and from there the way back begins.
    """
    frames, classes, _ = log_probs.shape
    symbols = jnp.clip(_states(labels, blank), 0, classes - 1)  # labels may be padded with anything
    emissions = jnp.take_along_axis(jnp.maximum(log_probs, LOW), symbols[None], 1)
    emissions = jnp.pad(emissions, ((0, 1), (0, 0), (0, 0)))
    state, end = jnp.arange(len(symbols))[:, None], 2 * label_lengths
    running = jnp.arange(frames + 1)[:, None, None] < logit_lengths
    return jnp.where(running & (state <= end), emissions, jnp.where(~running & (state == end), 0, LOW))


def _start(emissions: Array, state: Array) -> Array:
    """Certainty, `[S, B]`, that a path is in this state `[B]`."""
    return jnp.where(jnp.arange(emissions.shape[1])[:, None] == state, 0, LOW).astype(emissions.dtype)


def _sources(scores: Array, skips: Array) -> tuple[Array, Array, Array]:
    """What arrives at every state, `[S, B]`, by staying, from one before and from two before."""
    padded = jnp.pad(scores, ((2, 0), (0, 0)), constant_values=LOW)
    return scores, padded[1:-1], padded[:-2] + skips


def _forward(emissions: Array, skips: Array, start: Array) -> tuple[Array, Array]:
    """The sums over the paths to every state, `alpha [T + 1, S, B]` up to a term of every frame, and over all `[B]`.

    A path begins in its state `start` before the first frame. The term is the largest alpha of the frame before, so
    that the numbers stay small. States lead, as shifting whole rows halves the time on CPU.
    """

    def step(alpha: Array, emission: Array) -> tuple[Array, tuple[Array, Array]]:
        stay, one, two = _sources(alpha, skips)
        scale = alpha.max(0)
        # Sorted, as the largest needs no exponential.
        more, less = _ordered(stay, one)
        most, middle = _ordered(more, two)
        alpha = jnp.log(1 + jnp.exp(less - most) + jnp.exp(middle - most)) + most + (emission - scale)
        return alpha, (alpha, scale)

    last, (alphas, scales) = lax.scan(step, _start(emissions, start), emissions)
    return alphas, scales.sum(0) + last.max(0)  # in the last frame one state is possible


def _ordered(first: Array, second: Array) -> tuple[Array, Array]:
    # Not by jnp.maximum, which halves the gradient of a tie: here every derivative is that of the sorted.
    return jnp.where(first >= second, first, second), jnp.where(first >= second, second, first)
