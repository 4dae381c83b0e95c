"""Language models of n-grams, by counting: add-k and interpolated Kneser-Ney smoothing.

A model is a tree: the n-grams of order m are numbered by their sorted keys, `prefix * (V + 1) + token`, where `prefix`
is the number of their first m - 1 tokens among those of order m - 1. So no key is too large whatever V and n, the grams
that end at every position follow from those of the position before, and a context's successors stand side by side.
Token V is the one before a sequence begins; nothing predicts it.
"""

from typing import NamedTuple

import numpy as np

from dlfx.types import UserError


class NGram(NamedTuple):
    """The probabilities of a token w after a context h of m - 1 tokens, for every order m from 1 to n.

    `p_m(w | h) = seen_m(hw) + backoff_m(h) p_{m-1}(w | h without its first)`, with p_0 = 1 / V; what is not in the tree
    has seen = 0 and backoff = 1.

    Attributes:
      vocabulary: V; tokens are 0 to V - 1.
      keys: for every order the sorted keys of its grams.
      seen: for every order a value for each key.
      backoff: for every order a value for each gram one shorter.
    """

    vocabulary: int
    keys: tuple[np.ndarray, ...]
    seen: tuple[np.ndarray, ...]
    backoff: tuple[np.ndarray, ...]


def fit_add_k(
    tokens: np.ndarray, order: int, vocabulary: int, k: float = 1.0, lengths: np.ndarray | None = None
) -> NGram:
    """`p(w | h) = (c(hw) + k) / (c(h) + k V)` with counts c of the highest order alone.

    Args:
      tokens: integers of one sequence `[T]`, or of many `[B, T]`. Each begins anew: its first tokens are counted after
        the token "before the beginning".
      order: n, at least 1.
      vocabulary: V.
      k: more than 0; 1 is Laplace's rule.
      lengths: `[B]`, how many tokens of each row count; all if None.

    Raises:
      UserError: for an order below 1, a k of 0 or less, tokens outside of 0 to V - 1, and no tokens at all.

    Source: Chen and Goodman 1998, An Empirical Study of Smoothing Techniques for Language Modeling, section 2.1.
    """
    if not k > 0:
        raise UserError(f"add-k with k = {k:g}; k is more than 0")
    levels = _count(tokens, order, vocabulary, lengths)
    # Only the highest order counts; those below hand the uniform p_0 on.
    seen, backoff = [np.zeros(len(level.keys)) for level in levels], [np.ones(level.contexts) for level in levels]
    last = levels[-1]
    totals = _per_context(last, last.counts) + k * vocabulary
    seen[-1], backoff[-1] = last.counts / totals[last.prefixes], k * vocabulary / totals
    return NGram(vocabulary, tuple(level.keys for level in levels), tuple(seen), tuple(backoff))


def fit_kneser_ney(
    tokens: np.ndarray,
    order: int,
    vocabulary: int,
    discount: float | None = None,
    lengths: np.ndarray | None = None,
) -> NGram:
    """Interpolated Kneser-Ney smoothing, with one discount an order.

    `p_m(w | h) = (max(c(hw) - D_m, 0) + D_m N(h) p_{m-1}(w | h')) / sum_w c(hw)`, where N(h) is how many different
    tokens followed h, and h' is h without its first token. For m = n, c counts occurrences; below, it counts the
    different tokens that stood before hw (the token "before the beginning" is one). p_0 is 1 / V.

    Args:
      tokens: as for `fit_add_k`, and so are order, vocabulary and lengths.
      discount: D of all orders, from 0 to 1. If None, `D_m = n_1 / (n_1 + 2 n_2)` with n_i the number of m-grams with
        c = i, and 0.75 where no gram has c = 1.

    Raises:
      UserError: as `fit_add_k`, and for a discount outside of 0 to 1.

    Source: Kneser and Ney 1995, Improved Backing-off for M-gram Language Modeling; Chen and Goodman 1998, sections 2.6
    (D) and 2.7 (the counts, interpolated).
    """
    if discount is not None and not 0 <= discount <= 1:
        raise UserError(f"discount {discount:g}; it is from 0 to 1")
    levels = _count(tokens, order, vocabulary, lengths)
    for m in range(order - 1):
        longer = levels[m + 1]
        befores = np.bincount(longer.suffixes, longer.counts > 0, len(levels[m].keys))
        levels[m] = levels[m]._replace(counts=befores)
    seen, backoff = [], []
    for level in levels:
        once, twice = (level.counts == 1).sum(), (level.counts == 2).sum()
        less = discount if discount is not None else once / (once + 2 * twice) if once else 0.75
        totals = _per_context(level, level.counts)
        followed = totals > 0  # not the last tokens of a sequence, if they stand nowhere else
        totals = np.where(followed, totals, 1)
        seen.append(np.maximum(level.counts - less, 0) / totals[level.prefixes])
        backoff.append(np.where(followed, less * _per_context(level, level.counts > 0) / totals, 1))
    return NGram(vocabulary, tuple(level.keys for level in levels), tuple(seen), tuple(backoff))


def log_probs(model: NGram, tokens: np.ndarray) -> np.ndarray:
    """`log p(w_t | w_{t-n+1} ... w_{t-1})` in nats of all tokens of sequences `[T]` or `[B, T]`, in that shape.

    Raises:
      UserError: for tokens that the model does not know.
    """
    symbols, _ = _symbols(tokens, model.vocabulary, None)
    ids = _lookup(model, symbols)
    p = np.full((symbols.shape[0], symbols.shape[1] - 1), 1 / model.vocabulary)
    for m, (seen, backoff) in enumerate(zip(model.seen, model.backoff, strict=True)):
        context, gram = ids[m][:, :-1], ids[m + 1][:, 1:]
        p = np.where(gram >= 0, seen[gram], 0) + np.where(context >= 0, backoff[context], 1) * p
    with np.errstate(divide="ignore"):  # nothing is left for what was not seen if a discount is 0
        return np.log(p).reshape(np.shape(tokens))


def perplexity(model: NGram, tokens: np.ndarray, lengths: np.ndarray | None = None) -> float:
    """`exp(-mean log p)` over all tokens `[T]` or `[B, T]`, of each row the first `lengths` `[B]`.

    Raises:
      UserError: for tokens that the model does not know, and for none at all.
    """
    symbols, real = _symbols(tokens, model.vocabulary, lengths)
    if not real.any():
        raise UserError("the perplexity of no tokens")
    return float(np.exp(-log_probs(model, symbols[:, 1:])[real].mean()))


def probabilities(model: NGram, contexts: np.ndarray) -> np.ndarray:
    """Of every token after each context.

    Args:
      model: of order n.
      contexts: `[N, C]` integers, of which the last n - 1 count; with fewer the sequence has just begun.

    Returns:
      `[N, V]`, rows that sum to 1.

    Raises:
      UserError: for tokens that the model does not know.
    """
    contexts = np.asarray(contexts)
    symbols, _ = _symbols(contexts[:, max(0, contexts.shape[1] - len(model.keys) + 1) :], model.vocabulary, None)
    p = np.full((len(contexts), model.vocabulary), 1 / model.vocabulary)
    for ids, keys, seen, backoff in zip(_lookup(model, symbols), model.keys, model.seen, model.backoff, strict=False):
        context = ids[:, -1]
        p *= np.where(context >= 0, backoff[context], 1)[:, None]
        begin, end = np.searchsorted(keys, context[:, None] * (model.vocabulary + 1) + [0, model.vocabulary]).T
        rows = np.repeat(np.arange(len(contexts)), end - begin)
        found = np.arange(len(rows)) + np.repeat(begin - np.cumsum(end - begin) + end - begin, end - begin)
        p[rows, keys[found] % (model.vocabulary + 1)] += seen[found]
    return p


def sample(
    model: NGram, random: np.random.Generator, length: int, count: int = 1, prompt: np.ndarray | None = None
) -> np.ndarray:
    """Random sequences.

    Args:
      model: to draw from.
      random: the source of randomness.
      length: how many tokens each has, beside the prompt.
      count: how many sequences.
      prompt: `[T]` tokens that all of them continue; they begin anew if None.

    Returns:
      `[count, length]` int32, without the prompt.
    """
    prompt = np.zeros(0, np.int32) if prompt is None else np.asarray(prompt)
    tokens = np.concatenate([np.tile(prompt, (count, 1)), np.zeros((count, length), np.int32)], 1).astype(np.int32)
    for t in range(len(prompt), len(prompt) + length):
        sums = probabilities(model, tokens[:, max(0, t - len(model.keys) + 1) : t]).cumsum(-1)
        tokens[:, t] = (sums <= random.random((count, 1)) * sums[:, -1:]).sum(-1)
    return tokens[:, len(prompt) :]


class _Level(NamedTuple):
    """The m-grams of one order.

    Attributes:
      keys: `[G]`, sorted.
      counts: `[G]`; 0 of those that end before the beginning, which are contexts only.
      prefixes: `[G]`, the number of the first m - 1 tokens among the grams of the order below.
      suffixes: `[G]`, that of the last m - 1 tokens.
      contexts: how many grams the order below has.
    """

    keys: np.ndarray
    counts: np.ndarray
    prefixes: np.ndarray
    suffixes: np.ndarray
    contexts: int


def _count(tokens: np.ndarray, order: int, vocabulary: int, lengths: np.ndarray | None) -> list[_Level]:
    if order < 1:
        raise UserError(f"order {order} of n-grams; it is at least 1")
    symbols, real = _symbols(tokens, vocabulary, lengths)
    if not real.any():
        raise UserError("n-grams of no tokens")
    levels, ids, contexts = [], np.zeros(symbols.shape, np.int64), 1
    for _ in range(order):
        at = _prefixes(ids) * (vocabulary + 1) + symbols
        at[:, 1:][~real] = at[0, 0]
        keys, first, inverse = np.unique(at, return_index=True, return_inverse=True)
        suffixes, ids = ids.reshape(-1)[first], inverse.reshape(ids.shape)
        counts = np.bincount(ids[:, 1:][real], minlength=len(keys))
        levels.append(_Level(keys, counts, keys // (vocabulary + 1), suffixes, contexts))
        contexts = len(keys)
    return levels


def _lookup(model: NGram, symbols: np.ndarray) -> list[np.ndarray]:
    """For m from 0 to n the numbers of the m-grams that end at each position, -1 where the tree has none."""
    ids = [np.zeros(symbols.shape, np.int64)]
    for keys in model.keys:
        wanted = _prefixes(ids[-1]) * (model.vocabulary + 1) + symbols  # below 0 after a gram that is not there
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        ids.append(np.where(keys[found] == wanted, found, -1))
    return ids


def _symbols(tokens: np.ndarray, vocabulary: int, lengths: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The tokens `[B, 1 + T]` with the one before the beginning, and which of `[B, T]` are no padding."""
    tokens = np.atleast_2d(tokens)
    real = np.ones(tokens.shape, bool)
    if lengths is not None:
        real = np.arange(tokens.shape[1]) < np.asarray(lengths)[:, None]
    strange = tokens[real & ((tokens < 0) | (tokens >= vocabulary))]
    if strange.size:
        raise UserError(f"token {strange[0]}; a vocabulary of {vocabulary} has tokens 0 to {vocabulary - 1}")
    return np.pad(np.where(real, tokens, 0).astype(np.int64), ((0, 0), (1, 0)), constant_values=vocabulary), real


def _prefixes(ids: np.ndarray) -> np.ndarray:
    """The grams that end one position earlier. Before the beginning everything is the beginning."""
    return np.concatenate([ids[:, :1], ids[:, :-1]], 1)


def _per_context(level: _Level, values: np.ndarray) -> np.ndarray:
    """The sums of the values of all grams with the same first m - 1 tokens."""
    return np.bincount(level.prefixes, values, level.contexts)
