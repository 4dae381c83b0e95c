"""Batches of sequences of different lengths, padded, with labels or in pairs, as a pure function of (seed, i)."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlfx.data.batches import order, process_slice
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import Batch, Stream, UserError

BUCKETS = 0x94D049BB  # keeps these draws apart from every other use of a seed


class Ragged(NamedTuple):
    """Sequences one after another.

    Attributes:
      values: `[total]`, may be mapped from a file.
      offsets: `[n + 1]`, sequence k is `values[offsets[k] : offsets[k + 1]]`.
    """

    values: np.ndarray
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """How long every sequence is, `[n]`."""
        return np.diff(self.offsets)


Fields = Mapping[str, Ragged | np.ndarray]  # of n examples each


def ragged(sequences: Iterable[np.ndarray]) -> Ragged:
    """Sequences `[length]` of whole numbers as one `Ragged` of int32."""
    rows = [np.asarray(row, np.int32) for row in sequences]
    return Ragged(np.concatenate([*rows, np.zeros(0, np.int32)]), np.cumsum([0, *(len(row) for row in rows)]))


def encoded(vocabulary: Vocabulary, texts: Sequence[Any], end: bool = False) -> Ragged:
    """Texts, or lists of symbols, as sequences of numbers; with `end`, `<eos>` behind each."""
    rows: Iterable[np.ndarray] = (vocabulary.encode(text) for text in texts)
    if vocabulary.kind == "characters":  # a character is a number: all at once
        lengths = np.array([len(text) for text in texts], np.int64)
        every = vocabulary.encode("".join("".join(text) for text in texts))
        if not end:
            return Ragged(every, np.cumsum([0, *lengths]))
        rows = np.split(every, np.cumsum(lengths)[:-1]) if len(texts) else []
    return ragged(np.append(row, vocabulary.special["<eos>"]) if end else row for row in rows)


def padded(sequences: Ragged, index: np.ndarray, length: int) -> np.ndarray:
    """The sequences at `index [b]` as `[b, length]` int32, zeros behind their ends, cut where they are longer."""
    start, size = sequences.offsets[index], sequences.lengths[index]
    inside = np.arange(length) < size[:, None]
    position = np.where(inside, start[:, None] + np.arange(length), 0)
    values = sequences.values if len(sequences.values) else np.zeros(1, np.int32)
    return np.where(inside, values[position], 0).astype(np.int32)


def batch_of(fields: Fields, index: np.ndarray, lengths: Mapping[str, int]) -> Batch:
    """The examples at `index [b]`: sequences padded to `lengths`, everything else as it is.

    Returns:
      Every field by its name; and how long the sequences of `tokens` are as `lengths [b]`, of any other field as
      `<name>_lengths [b]`.
    """
    batch: dict[str, np.ndarray] = {}
    for name, field in fields.items():
        if isinstance(field, Ragged):
            batch[name] = padded(field, index, lengths[name])
            of = "lengths" if name == "tokens" else f"{name}_lengths"
            batch[of] = np.minimum(field.lengths[index], lengths[name]).astype(np.int32)
        else:
            batch[name] = field[index]
    return batch


def size_of(fields: Fields) -> int:
    """How many examples there are, the same in every field."""
    sizes = {
        name: len(field.offsets) - 1 if isinstance(field, Ragged) else len(field) for name, field in fields.items()
    }
    if len(set(sizes.values())) != 1:
        raise UserError(f"fields of different sizes: {sizes}")
    return next(iter(sizes.values()))


def longest(*several: Fields) -> dict[str, int]:
    """The length of the longest sequence of every field over some sets, at least 1: what all can be padded to."""
    found: dict[str, int] = {}
    for fields in several:
        for name, field in fields.items():
            if isinstance(field, Ragged):
                found[name] = max(found.get(name, 1), int(field.lengths.max(initial=1)))
    return found


def subset(fields: Fields, index: np.ndarray) -> dict[str, Ragged | np.ndarray]:
    """The examples at `index [m]`, in that order."""

    def chosen(field: Ragged | np.ndarray) -> Ragged | np.ndarray:
        if not isinstance(field, Ragged):
            return field[index]
        return ragged(field.values[field.offsets[k] : field.offsets[k + 1]] for k in index)

    return {name: chosen(field) for name, field in fields.items()}


def training_stream(
    fields: Fields,
    batch_size: int,
    lengths: Mapping[str, int] | None = None,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """Shuffled batches without end, all padded to the same lengths; each epoch is a permutation of the examples.

    Args:
      fields: name to `Ragged` or `[n, ...]`, such as `{"tokens": ..., "label": ...}`.
      batch_size: examples in a batch, over all processes.
      lengths: what to pad the sequences of every field to, or cut them; None: the longest of each.
      process: this process.
      processes: how many there are.

    Returns:
      The stream of the batches of `batch_of`.

    Raises:
      UserError: if the batch is larger than the set, or not positive, or the processes do not divide it.
    """
    size = size_of(fields)
    if not 1 <= batch_size <= size:
        raise UserError(f"batch size {batch_size} is not possible: there are {size} training examples")
    mine = process_slice(batch_size, process, processes)
    to = lengths or longest(fields)
    return Stream(lambda seed, i: batch_of(fields, order(seed, i, batch_size, size)[mine], to))


def evaluation_stream(
    fields: Fields,
    batch_size: int,
    lengths: Mapping[str, int] | None = None,
    process: int = 0,
    processes: int = 1,
) -> tuple[Stream, int]:
    """Every example once, in order, as (stream, number of batches); the last batch is filled up.

    Args: as of `training_stream`.

    Returns:
      The stream of the batches of `batch_of` with `mask [b]`, 1 for an example and 0 for filling.
    """
    size = size_of(fields)
    mine = process_slice(batch_size, process, processes)
    to = lengths or longest(fields)

    def host(seed: int, i: int) -> Batch:
        index = np.arange(i * batch_size, (i + 1) * batch_size)[mine]
        real = index < size
        return {**batch_of(fields, np.where(real, index, 0), to), "mask": real.astype(np.float32)}

    return Stream(host), -(-size // batch_size)


def bucket_stream(
    fields: Fields,
    by: str,
    bounds: Sequence[int],
    batch_size: int,
    run: int = 1,
    process: int = 0,
    processes: int = 1,
) -> tuple[Stream, int]:
    """Shuffled batches of sequences of like length, which waste little on padding: (stream, batches of an epoch).

    A sequence belongs to the first bucket whose bound it does not exceed, and is padded to that bound; so a compiled
    step has as many shapes as there are buckets. Which bucket batch i is of depends on i alone, so that several seeds
    can train together; which examples are in it depends on the seed. The short end of a bucket is left out.

    Args:
      fields: name to `Ragged` or `[n, ...]`.
      by: the field whose length decides. The others are padded to the longest that the bucket has.
      bounds: rising; the last is at least the longest sequence.
      batch_size: examples in a batch, over all processes.
      run: so many batches in succession are of one bucket, for a step that scans over them.
      process: this process.
      processes: how many there are.

    Raises:
      UserError: if the bounds do not rise or do not reach, or no bucket fills a run of batches.
    """
    size_of(fields)
    mine = process_slice(batch_size, process, processes)
    deciding = fields[by]
    assert isinstance(deciding, Ragged)
    if list(bounds) != sorted(set(bounds)) or not bounds or bounds[-1] < deciding.lengths.max(initial=0):
        raise UserError(
            f"bucket bounds {list(bounds)} must rise, to {int(deciding.lengths.max(initial=0))} at least, the longest"
        )
    bucket_of = np.searchsorted(bounds, deciding.lengths)
    members = [np.flatnonzero(bucket_of == k) for k in range(len(bounds))]
    lengths = [{**longest(subset(fields, m)), by: bound} for m, bound in zip(members, bounds, strict=True)]
    runs = np.repeat(np.arange(len(bounds)), [len(m) // (batch_size * run) for m in members])
    if not len(runs):
        raise UserError(f"no bucket of {[len(m) for m in members]} examples fills {run} batches of {batch_size}")

    @functools.lru_cache(maxsize=4)
    def schedule(epoch: int) -> np.ndarray:
        return _generator(0, epoch).permutation(runs)

    @functools.lru_cache(maxsize=64)
    def shuffled(seed: int, epoch: int, bucket: int) -> np.ndarray:
        return _generator(seed, epoch, bucket + 1).permutation(members[bucket])

    def host(seed: int, i: int) -> Batch:
        epoch, rest = divmod(i, len(runs) * run)
        place, within = divmod(rest, run)
        bucket = int(schedule(epoch)[place])
        earlier = int((schedule(epoch)[:place] == bucket).sum())
        start = (earlier * run + within) * batch_size
        index = shuffled(seed, epoch, bucket)[start : start + batch_size][mine]
        return batch_of(fields, index, lengths[bucket])

    return Stream(host), len(runs) * run


def _generator(seed: int, epoch: int, bucket: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, BUCKETS], counter=[0, 0, bucket, epoch]))


def pack(documents: Ragged, length: int) -> dict[str, np.ndarray]:
    """Several documents in a row, none torn apart that fits in one: the longest first, each where it first fits.

    Args:
      documents: of whole numbers, none of them empty. A document above `length` is cut into pieces of it.
      length: T, of a row.

    Returns:
      `{"tokens": [n, T], "segments": [n, T], "positions": [n, T]}` int32: which document of its row a token is of, from
      1, and its place in it, from 0; all 0 where a row has room left. Attention may look at its own segment only.
    """
    pieces = [
        documents.values[start : min(start + length, end)]
        for begin, end in zip(documents.offsets, documents.offsets[1:], strict=False)
        for start in range(begin, end, length)
    ]
    room = np.zeros(0, np.int64)
    rows: list[list[int]] = []
    for k in sorted(range(len(pieces)), key=lambda k: -len(pieces[k])):  # stable: equally long ones in their order
        fits = np.flatnonzero(room >= len(pieces[k]))
        if len(fits):
            row = int(fits[0])
        else:
            row, room = len(rows), np.append(room, length)
            rows.append([])
        rows[row].append(k)
        room[row] -= len(pieces[k])
    packed = {name: np.zeros((len(rows), length), np.int32) for name in ("tokens", "segments", "positions")}
    for r, row_pieces in enumerate(rows):
        at = 0
        for segment, k in enumerate(row_pieces, 1):
            where = slice(at, at + len(pieces[k]))
            packed["tokens"][r, where] = pieces[k]
            packed["segments"][r, where] = segment
            packed["positions"][r, where] = np.arange(len(pieces[k]))
            at = where.stop
    return packed
