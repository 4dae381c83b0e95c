"""Batches of text for language models as a pure function of (seed, i): windows of one long array of tokens."""

import codecs
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jax import lax, vmap

from dlfx.data.batches import RESIDENT_BYTES, process_slice
from dlfx.data.corpora import existing, not_utf8
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import Array, Batch, Stream, UserError

WINDOWS = 0xBF58476D  # keeps these draws apart from every other use of the seed


def compact(tokens: np.ndarray) -> np.ndarray:
    """The tokens in the smallest unsigned type that holds them: what stays on the device."""
    largest = int(tokens.max(initial=0))
    return tokens.astype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.int32)


def _windows(
    tokens: np.ndarray, length: int, rows: Callable[[int, int], dict[str, np.ndarray]], placement: str
) -> Stream:
    """The stream of `rows`, (seed, i) to `{"start": [b], ...}`, with the window from each start as `tokens [b, T + 1]`.

    A window may reach beyond the end: what it holds there must be masked. `real [b]`, where rows give it, is how many
    targets of a row count; it becomes `mask [b, T]`.
    """
    span = length + 1
    if placement == "auto":
        placement = "device" if tokens.nbytes <= RESIDENT_BYTES else "host"

    def finished(windows: Array, batch: Batch) -> Batch:
        rest = {name: value for name, value in batch.items() if name not in ("start", "real", "tokens")}
        if "real" in batch:
            rest["mask"] = (np.arange(length) < batch["real"][:, None]).astype(np.float32)
        return {"tokens": windows.astype(np.int32), **rest}

    if placement == "host":

        def host(seed: int, i: int) -> Batch:
            batch = rows(seed, i)
            positions = batch.pop("start")[:, None] + np.arange(span)
            return {"tokens": tokens[np.minimum(positions, len(tokens) - 1)], **batch}

        return Stream(host, (), lambda _, batch: finished(batch["tokens"], batch))

    def fetch(arrays: Any, batch: Batch) -> Batch:
        # As slices: XLA on CPU copies a window an order of magnitude faster than it gathers its elements.
        windows = vmap(lambda start: lax.dynamic_slice(arrays["tokens"], (start,), (span,)))(batch["start"])
        return finished(windows, batch)

    def host_rows(seed: int, i: int) -> Batch:
        batch = rows(seed, i)
        return {**batch, "start": batch["start"].astype(np.int32)}

    padded = np.concatenate([tokens, np.zeros(span, tokens.dtype)])  # a slice that would reach beyond would be moved
    return Stream(host_rows, {"tokens": compact(padded)}, fetch)


def _check(tokens: np.ndarray, length: int) -> None:
    if length < 1:
        raise UserError(f"a context of {length} tokens is not possible; it must be at least 1")
    if len(tokens) < length + 1:
        raise UserError(
            f"a context of {length} tokens and the token after it do not fit a text of {len(tokens)} tokens; "
            "take a shorter context or a longer text"
        )


def window_stream(
    tokens: np.ndarray, batch_size: int, length: int, placement: str = "auto", process: int = 0, processes: int = 1
) -> Stream:
    """Windows at random places, without end: `{"tokens": [B, T + 1]}`, T inputs and the T targets one to the right.

    Every place is as likely as any other, independently for every row of every batch. On the device only the places
    travel; a text that is larger than memory, an array that `read_tokens` mapped, is read window by window.

    Args:
      tokens: `[n]`, whole numbers.
      batch_size: windows in a batch, over all processes.
      length: T, the context.
      placement: `device`, `host`, or `auto` (on the device up to `RESIDENT_BYTES`).
      process: this process.
      processes: how many there are.

    Raises:
      UserError: if a window does not fit the text, or the processes do not divide the batch.
    """
    _check(tokens, length)
    mine = process_slice(batch_size, process, processes)

    def rows(seed: int, i: int) -> dict[str, np.ndarray]:
        philox = np.random.Philox(key=[seed, WINDOWS], counter=[0, 0, 0, i])
        return {"start": np.random.Generator(philox).integers(0, len(tokens) - length, batch_size)[mine]}

    return _windows(tokens, length, rows, placement)


def contiguous_stream(
    tokens: np.ndarray, batch_size: int, length: int, placement: str = "auto", process: int = 0, processes: int = 1
) -> tuple[Stream, int]:
    """For truncated backpropagation through time: row r of batch i + 1 goes on where row r of batch i ended.

    The text is cut into B equal rows, which are read in parallel, T tokens a batch; what is left at their ends is
    dropped. At the end of an epoch all begin again. The order is the same for every seed.

    Args: as of `window_stream`.

    Returns:
      The stream of `{"tokens": [B, T + 1], "first": [B]}`, `first` 1 where a row begins anew, so that the state carried
      from the batch before must be forgotten, else 0; and how many batches an epoch has.

    Raises:
      UserError: if the rows are shorter than a window, or the processes do not divide the batch.
    """
    mine = process_slice(batch_size, process, processes)
    row = len(tokens) // batch_size
    batches = (row - 1) // length
    if batches < 1:
        raise UserError(
            f"{batch_size} rows of {length} + 1 tokens do not fit a text of {len(tokens)} tokens; "
            "take a smaller batch or a shorter context"
        )

    def rows(seed: int, i: int) -> dict[str, np.ndarray]:
        start = np.arange(batch_size)[mine] * row + i % batches * length
        return {"start": start, "first": np.full(len(start), i % batches == 0, np.float32)}

    return _windows(tokens, length, rows, placement), batches


def evaluation_stream(
    tokens: np.ndarray,
    batch_size: int,
    length: int,
    contiguous: bool = False,
    placement: str = "auto",
    process: int = 0,
    processes: int = 1,
) -> tuple[Stream, int]:
    """A whole text, every token but the first a target exactly once: (stream, number of batches).

    Args:
      tokens: `[n]`, n at least 2.
      batch_size: windows in a batch.
      length: T, the context.
      contiguous: whether row r goes on from batch to batch, for a model that carries its state; otherwise the windows
        follow one another along the rows, each begun without a past.
      placement: as of `window_stream`.
      process: this process.
      processes: how many there are.

    Returns:
      The stream of `{"tokens": [B, T + 1], "mask": [B, T]}`, mask 1 where the token one to the right is a target that
      counts, else 0, and if contiguous `first` as in `contiguous_stream`; and the number of its batches.

    Raises:
      UserError: if the text has no target, or the processes do not divide the batch.
    """
    mine = process_slice(batch_size, process, processes)
    targets = len(tokens) - 1
    if targets < 1:
        raise UserError(f"a text of {len(tokens)} tokens has nothing to predict")
    row = -(-targets // batch_size)  # targets of a row
    batches = -(-row // length) if contiguous else -(-targets // (length * batch_size))

    def rows(seed: int, i: int) -> dict[str, np.ndarray]:
        r = np.arange(batch_size)[mine]
        start = r * row + i * length if contiguous else (i * batch_size + r) * length
        end = np.minimum((r + 1) * row, targets) if contiguous else targets
        batch = {"start": np.minimum(start, targets), "real": np.clip(end - start, 0, length).astype(np.int32)}
        return {**batch, "first": np.full(len(r), i == 0, np.float32)} if contiguous else batch

    return _windows(tokens, length, rows, placement), batches


def tokenise_file(path: str | Path, vocabulary: Vocabulary, to: str | Path, chunk_bytes: int = 1 << 24) -> int:
    """Writes the tokens of a UTF-8 file of any size to a raw binary file, which `read_tokens` maps.

    The file is read in pieces, cut where a line ends and the next begins at once, which splits no token: the result is
    that of the whole text. The numbers are 16 bits wide, or 32 for a vocabulary above 65,536, in the machine's order.

    Args:
      path: the text.
      vocabulary: what encodes it.
      to: the file to write; it appears only when it is complete.
      chunk_bytes: how much to read at once.

    Returns:
      The number of tokens.

    Raises:
      UserError: if the text is missing, empty or not UTF-8, or the vocabulary lacks a symbol of it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    unfinished = Path(f"{to}.{os.getpid()}.part")
    count, offset, text, first = 0, 0, "", True
    try:
        with existing(path).open("rb") as source, unfinished.open("wb") as target:
            while True:
                data = source.read(chunk_bytes)
                held = len(decoder.getstate()[0])
                try:
                    text += decoder.decode(data, final=not data)
                except UnicodeDecodeError as error:
                    raise not_utf8(str(path), error.object[error.start], offset - held + error.start) from None
                offset += len(data)
                if text and first:  # a byte-order mark
                    text, first = text.removeprefix("\ufeff"), False
                whole, text = (text, "") if not data else _cut(text.replace("\r\n", "\n"))
                tokens = vocabulary.encode(whole)
                count += len(tokens)
                target.write(tokens.astype(token_type(vocabulary.size)).tobytes())
                if not data:
                    break
        if not count:
            raise UserError(f"text file {path} is empty")
        unfinished.replace(to)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


def _cut(text: str) -> tuple[str, str]:
    """The text up to the last end of a line with no other space around it, and the rest."""
    for found in re.finditer(r"\n", text[::-1]):
        at = len(text) - found.start()  # just behind the line end
        if 1 < at < len(text) and not text[at].isspace() and not text[at - 2].isspace():
            return text[:at], text[at:]
    return "", text


def token_type(vocabulary_size: int) -> type[np.unsignedinteger[Any]]:
    """The type of the numbers in a file of tokens."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.uint32


def read_tokens(path: str | Path, vocabulary_size: int) -> np.ndarray:
    """The tokens `[n]` in a file of `tokenise_file`, mapped into memory: pages are read when they are needed.

    Raises:
      UserError: if the file is missing, empty, or not a whole number of tokens long.
    """
    kind = token_type(vocabulary_size)
    size = existing(path).stat().st_size
    if not size or size % np.dtype(kind).itemsize:
        raise UserError(f"{path} is no file of tokens: its size of {size} bytes is not a multiple of {kind().nbytes}")
    return np.memmap(path, kind, mode="r")
