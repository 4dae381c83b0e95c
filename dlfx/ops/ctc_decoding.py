"""From the frames of connectionist temporal classification (`ops/ctc.py`) to labels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from dlfx.types import Array, UserError

# Prefixes `[W, M]` int32, of lengths `[W]`, to the log-probabilities of what comes next `[W, K]`; in the column of the
# blank, those of the end.
LanguageModel = Callable[[Array, Array], Array]


class Decoded(NamedTuple):
    """Labels read off frames.

    Attributes:
      symbols: `[..., M]` int32, the blank behind the lengths.
      lengths: `[...]` int32.
      scores: `[...]`, their log-probabilities.
    """

    symbols: Array
    lengths: Array
    scores: Array


def collapse(paths: Array, blank: int = 0) -> tuple[Array, Array]:
    """What paths read as: repeats are merged first, blanks removed then, so that "a-a" is "aa" and "aa" is "a".

    Args:
      paths: symbols `[..., T]`.
      blank: the symbol that says nothing.

    Returns:
      The labels `[..., T]` int32, the blank behind them, and their lengths `[...]` int32.

    Source: Graves et al. 2006, Connectionist Temporal Classification, section 3.1.
    """
    before = jnp.concatenate([jnp.full_like(paths[..., :1], blank), paths[..., :-1]], -1)
    keep = (paths != blank) & (paths != before)
    lengths = keep.sum(-1, dtype=jnp.int32)
    symbols = jnp.take_along_axis(paths, jnp.argsort(~keep, -1, stable=True), -1)
    return jnp.where(jnp.arange(paths.shape[-1]) < lengths[..., None], symbols, blank).astype(jnp.int32), lengths


def greedy_decode(logits: Array, logit_lengths: Array | None = None, blank: int = 0) -> Decoded:
    """The label of the likeliest path. It need not be the likeliest label, which may have many paths.

    Args:
      logits: `[B, T, K]`.
      logit_lengths: frames `[B]` int32, T each if None.
      blank: the symbol that says nothing.

    Returns:
      Labels `[B, T]`, with the log-probability of the path as the score.

    Source: Graves et al. 2006, Connectionist Temporal Classification, equation 4.
    """
    within = _within(logits, logit_lengths)
    log_probs = _log_probs(logits)
    symbols, lengths = collapse(jnp.where(within, log_probs.argmax(-1), blank), blank)
    return Decoded(symbols, lengths, jnp.where(within, log_probs.max(-1), 0).sum(-1))


def prefix_beam_search(
    logits: Array,
    logit_lengths: Array | None = None,
    width: int = 16,
    blank: int = 0,
    max_length: int | None = None,
    language_model: LanguageModel | None = None,
    weight: float = 1.0,
    bonus: float = 0.0,
) -> Decoded:
    """The likeliest labels: the paths of one prefix are summed, and after every frame the best prefixes go on.

    `score(y) = log p(y | logits) + weight log p_lm(y, end) + bonus |y|`

    A prefix keeps two sums apart, of the paths that end in a blank and in its last symbol: only after a blank does the
    same symbol again make the prefix longer. With a width as large as the number of prefixes the search is exact.

    Args:
      logits: `[B, T, K]`.
      logit_lengths: frames `[B]` int32, T each if None.
      width: W, how many prefixes go on.
      blank: the symbol that says nothing.
      max_length: M, of the longest label; T if None.
      language_model: see `LanguageModel` and `bigram`. Called on all prefixes at every frame.
      weight: of the language model, against the frames.
      bonus: for every symbol, as a language model prefers short labels.

    Returns:
      Labels `[B, W, M]` from the best on, with their scores; where there are fewer than W, empty ones of -inf.

    Raises:
      UserError: for a width below 1.

    Source: Hannun et al. 2014, First-Pass Large Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent
    DNNs (arXiv:1408.2873), algorithm 1.
    """
    if width < 1:
        raise UserError(f"a beam search needs a width of at least 1, not {width}")
    size = logits.shape[1] if max_length is None else max_length
    all_log_probs = _log_probs(logits)

    def grammar(beam: _Beam) -> Array:
        """What the next symbol adds, by the language model."""
        if language_model is None:
            return jnp.zeros_like(all_log_probs[0, :1])
        return (weight * language_model(beam.symbols, beam.lengths)).astype(all_log_probs.dtype)

    def search(log_probs: Array, within: Array) -> Decoded:
        def step(beam: _Beam, frame: tuple[Array, Array]) -> tuple[_Beam, None]:
            inside, now = frame
            following = _advance(beam, now, grammar(beam) + bonus, blank)
            return jax.tree.map(lambda new, old: jnp.where(inside, new, old), following, beam), None

        nothing = jnp.full(width, -jnp.inf, log_probs.dtype)
        beam = _Beam(
            jnp.full((width, size), blank, jnp.int32), jnp.zeros(width, jnp.int32), nothing.at[0].set(0), nothing
        )
        beam, _ = lax.scan(step, beam, (within, log_probs))
        total = jnp.logaddexp(beam.silent, beam.said) + grammar(beam)[:, blank]
        scores, order = lax.top_k(total, width)
        exists = scores > -jnp.inf
        symbols = jnp.where(exists[:, None], beam.symbols[order], blank)
        return Decoded(symbols, jnp.where(exists, beam.lengths[order], 0), scores)

    return jax.vmap(search)(all_log_probs, _within(logits, logit_lengths))


def bigram(log_probs: Array, blank: int = 0) -> LanguageModel:
    """A language model that knows the last symbol only.

    Args:
      log_probs: `[K, K]`, of the column's symbol after that of the row. The blank's row is the start, its column the
        end; zeros in the column leave the end out.
      blank: the symbol that says nothing.
    """
    return lambda symbols, lengths: log_probs[_last(symbols, lengths, blank)]


class _Beam(NamedTuple):
    """Prefixes; those alive, of a sum above -inf, all differ.

    Attributes:
      symbols: `[W, M]`, the blank behind the lengths.
      lengths: `[W]`.
      silent: `[W]`, the log of the sum over the paths that end in a blank.
      said: `[W]`, over those that end in the last symbol.
    """

    symbols: Array
    lengths: Array
    silent: Array
    said: Array


def _advance(beam: _Beam, log_probs: Array, extra: Array, blank: int) -> _Beam:
    """One frame of probabilities `[K]`. `extra`, `[W or 1, K]`, is what a new symbol adds besides."""
    symbols, lengths, silent, said = beam
    width, size = symbols.shape
    classes = len(log_probs)
    total = jnp.logaddexp(silent, said)
    last = _last(symbols, lengths, blank)
    again = jnp.arange(classes) == last[:, None]
    longer = jnp.where(again, silent[:, None], total[:, None]) + log_probs + extra
    longer = jnp.where((jnp.arange(classes) == blank) | (lengths == size)[:, None], -jnp.inf, longer)

    # A prefix that grows into another of the beam adds its paths to that one.
    alive = total > -jnp.inf
    shorter = jnp.where(jnp.arange(size) == lengths[:, None] - 1, blank, symbols)
    grows = (symbols[:, None] == shorter).all(-1) & (lengths[:, None] == lengths - 1) & alive[:, None] & alive
    parent = jnp.where(grows.any(0), grows.argmax(0), width)
    joining = longer.at[parent, last].get(mode="fill", fill_value=-jnp.inf)
    longer = longer.at[parent, last].set(-jnp.inf, mode="drop")
    silent, said = total + log_probs[blank], jnp.logaddexp(said + log_probs[last], joining)

    best, chosen = lax.top_k(jnp.concatenate([jnp.logaddexp(silent, said), longer.ravel()]), width)
    stays = chosen < width
    source = jnp.where(stays, chosen, (chosen - width) // classes)
    symbol = (chosen - width) % classes
    new = (jnp.arange(size) == lengths[source][:, None]) & ~stays[:, None]
    return _Beam(
        jnp.where(new, symbol[:, None], symbols[source]),
        lengths[source] + ~stays,
        jnp.where(stays, silent[source], -jnp.inf),
        jnp.where(stays, said[source], best),
    )


def _last(symbols: Array, lengths: Array, blank: int) -> Array:
    """The last symbol of every prefix, the blank of an empty one."""
    last = jnp.take_along_axis(symbols, jnp.maximum(lengths - 1, 0)[:, None], 1)[:, 0]
    return jnp.where(lengths > 0, last, blank)


def _within(logits: Array, lengths: Array | None) -> Array:
    batch, frames = logits.shape[:2]
    return jnp.ones((batch, frames), bool) if lengths is None else jnp.arange(frames) < jnp.asarray(lengths)[:, None]


def _log_probs(logits: Array) -> Array:
    return jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
