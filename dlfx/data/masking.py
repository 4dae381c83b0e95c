"""BERT's pretraining examples, pairs of sentences with masked tokens, as a pure function of (seed, i)."""

from typing import NamedTuple

import numpy as np

from dlfx.data.batches import process_slice
from dlfx.data.sequences import Ragged, padded, ragged
from dlfx.types import Batch, Stream, UserError

MASKING = 0xD6E8FEB8  # keeps these draws apart from every other use of a seed
SHARE = 0.15  # of the tokens is to be told


class Symbols(NamedTuple):
    """The numbers that mean something to BERT; below `ordinary` are the special ones, the padding 0 among them."""

    cls: int
    sep: int
    mask: int
    ordinary: int  # the first number of a token of text
    size: int  # the number after the last token of text


def packed(first: Ragged, second: Ragged, index: np.ndarray, other: np.ndarray, length: int, symbols: Symbols) -> Batch:
    """`[CLS] A [SEP] B [SEP]`, A and B of `index` and `other [b]`; where they do not fit, the longer one is cut.

    Returns:
      `tokens [b, T]`, zeros behind the ends; `token_types [b, T]`, 1 in B and its [SEP]; and `lengths [b]`.
    """
    room = length - 3
    sizes = first.lengths[index], second.lengths[other]
    a = np.minimum(sizes[0], np.maximum(room - sizes[1], (room + 1) // 2))
    b = np.minimum(sizes[1], room - a)
    place = np.arange(length)
    a, b = a[:, None], b[:, None]
    ends = a + 1, a + b + 2  # of the two sentences: where [SEP] stands
    words = padded(first, index, length), padded(second, other, length)
    at = np.arange(len(index))[:, None]
    tokens = np.where(place <= a, words[0][at, np.maximum(place - 1, 0)], 0)
    tokens = np.where((place > ends[0]) & (place < ends[1]), words[1][at, np.clip(place - a - 2, 0, None)], tokens)
    tokens = np.where((place == ends[0]) | (place == ends[1]), symbols.sep, tokens)
    tokens[:, 0] = symbols.cls
    types = (place > ends[0]) & (place <= ends[1])
    return {
        "tokens": tokens.astype(np.int32),
        "token_types": types.astype(np.int32),
        "lengths": (a + b + 3)[:, 0].astype(np.int32),
    }


def most_masked(length: int) -> int:
    """P, how many tokens of a row of `length` are told at most."""
    return max(1, round(SHARE * (length - 3)))


def masked(rng: np.random.Generator, batch: Batch, symbols: Symbols) -> Batch:
    """Hides 15 % of the tokens of each row: 80 % of them as [MASK], 10 % as any token, 10 % not at all.

    It is at least one where a row has any. [CLS], [SEP], padding and unknown words are never chosen.

    Args:
      rng: what draws.
      batch: of `packed`.
      symbols: the numbers of the special tokens.

    Returns:
      The batch with other `tokens`, and `positions [b, P]`, rising; `targets [b, P]`, the tokens that stood there; and
      `weights [b, P]`, 1 where there is one to tell, else 0.

    Source: Devlin et al. 2018 (arXiv:1810.04805), section 3.1 and appendix A.1.
    """
    tokens = batch["tokens"]
    size, most = tokens.shape[1], most_masked(tokens.shape[1])
    free = tokens >= symbols.ordinary
    score = np.where(free, rng.random(tokens.shape), 2.0)
    count = np.minimum(np.clip(np.round(SHARE * free.sum(1)), 1, most), free.sum(1))
    rank = np.arange(most)
    chosen = np.where(rank < count[:, None], np.argsort(score, 1, kind="stable")[:, :most], size)
    chosen = np.sort(chosen, 1)
    weights = chosen < size
    positions = np.where(weights, chosen, 0)
    rows = np.arange(len(tokens))[:, None]
    targets = tokens[rows, positions]
    how = rng.random(chosen.shape)
    drawn = rng.integers(symbols.ordinary, symbols.size, chosen.shape)
    shown = np.where(how < 0.8, symbols.mask, np.where(how < 0.9, drawn, targets))
    hidden = tokens.copy()
    at = np.nonzero(weights)
    hidden[at[0], positions[at]] = shown[at]
    return {
        **batch,
        "tokens": hidden,
        "positions": positions.astype(np.int32),
        "targets": np.where(weights, targets, 0).astype(np.int32),
        "weights": weights.astype(np.float32),
    }


class Spans(NamedTuple):
    """A text in spans of whole sentences, one from every sentence on.

    Attributes:
      text: of the n spans.
      after: `[n]`, the sentence that follows the span.
      starts: the spans that a sentence of their document follows.
    """

    text: Ragged
    after: np.ndarray
    starts: np.ndarray


def spans(sentences: Ragged, documents: np.ndarray, most: int) -> Spans:
    """The longest spans of at most `most` tokens within a document, or of one sentence where that is longer.

    Raises:
      UserError: if too few of them follow each other.
    """
    n = len(sentences.offsets) - 1
    ends = np.searchsorted(documents, documents, side="right")  # of their documents
    fits = np.searchsorted(sentences.offsets, sentences.offsets[:-1] + most, side="right") - 1
    after = np.clip(fits, np.arange(n) + 1, ends)
    starts = np.flatnonzero(after < ends)
    if n < 3 or not len(starts):
        raise UserError(f"{n} sentences are too few for pairs that follow each other and pairs that do not")
    first, last = sentences.offsets[:-1], sentences.offsets[after]
    return Spans(ragged(sentences.values[a:b] for a, b in zip(first, last, strict=True)), after, starts)


def _examples(rng: np.random.Generator, of: Spans, k: np.ndarray, length: int, symbols: Symbols) -> Batch:
    """Spans k, half of them with the one that follows and half with any other, masked."""
    random = rng.random(len(k)) < 0.5
    other = rng.integers(0, len(of.after) - 1, len(k))
    other = np.where(random, other + (other >= of.after[k]), of.after[k])  # never the one that follows by chance
    batch = masked(rng, packed(of.text, of.text, k, other, length, symbols), symbols)
    return {**batch, "not_next": random.astype(np.int32)}


def training_stream(
    sentences: Ragged,
    documents: np.ndarray,
    batch_size: int,
    length: int,
    symbols: Symbols,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """Pairs of spans at random places with new masks every time, without end.

    A span is as many sentences of one document as half of a row holds, or one that is longer.

    Args:
      sentences: n of them, none empty.
      documents: `[n]`, which document each is of, rising.
      batch_size: pairs in a batch, over all processes.
      length: T; at least 8.
      symbols: the numbers of the special tokens.
      process: this process.
      processes: how many there are.

    Returns:
      Batches as of `masked` with `not_next [B]`: 0 where the second span follows the first, 1 where it is any other.

    Raises:
      UserError: for too few sentences.
    """
    mine, of = process_slice(batch_size, process, processes), spans(sentences, documents, (length - 3) // 2)

    def host(seed: int, i: int) -> Batch:
        rng = np.random.Generator(np.random.Philox(key=[seed, MASKING], counter=[0, 0, 0, i]))
        k = of.starts[rng.integers(0, len(of.starts), batch_size)]
        return {name: x[mine] for name, x in _examples(rng, of, k, length, symbols).items()}

    return Stream(host, (), lambda _, batch: batch)


def evaluation_stream(
    sentences: Ragged,
    documents: np.ndarray,
    batch_size: int,
    length: int,
    symbols: Symbols,
    process: int = 0,
    processes: int = 1,
) -> tuple[Stream, int]:
    """Every span that another follows once, with masks and second spans that no seed changes.

    Returns:
      The stream of batches as of `training_stream` with `mask [B]`, 0 in rows that only fill the last batch; and how
      many there are.
    """
    mine, of = process_slice(batch_size, process, processes), spans(sentences, documents, (length - 3) // 2)

    def host(_: int, i: int) -> Batch:
        rng = np.random.Generator(np.random.Philox(key=[0, MASKING], counter=[0, 0, 1, i]))
        row = i * batch_size + np.arange(batch_size)
        batch = _examples(rng, of, of.starts[np.minimum(row, len(of.starts) - 1)], length, symbols)
        batch["mask"] = (row < len(of.starts)).astype(np.float32)
        return {name: x[mine] for name, x in batch.items()}

    return Stream(host, (), lambda _, batch: batch), -(-len(of.starts) // batch_size)
