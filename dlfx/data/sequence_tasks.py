"""Tasks from one sequence to another that are made as they are needed, and pairs from a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlfx.data import number_words, sequences
from dlfx.data.batches import process_slice
from dlfx.data.corpora import hashed, read_text
from dlfx.data.vocabulary import Vocabulary, of_symbols
from dlfx.types import Batch, Stream, UserError, unknown

Pair = tuple[str, str]  # what is given, and what it should become
DRAWS = 0xD6E8FEB8  # keeps these draws apart from every other use of the seed
PARTS = ("train", "valid", "test")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SOURCE_SPECIAL = ("<pad>", "<eos>")
TARGET_SPECIAL = ("<pad>", "<bos>", "<eos>")


class Task(NamedTuple):
    """Pairs of texts without end.

    Attributes:
      name: what to call it.
      draw: (generator, n) to n pairs.
      key: what decides the part of a pair: pairs of one key are all in one part.
      source: vocabulary of what is given; has `<pad>` and `<eos>`.
      target: vocabulary of the answers; has `<pad>`, `<bos>` and `<eos>`.
      source_length: of the longest source, in symbols.
      target_length: of the longest answer with its `<eos>`.
    """

    name: str
    draw: Callable[[np.random.Generator, int], list[Pair]]
    key: Callable[[Pair], str]
    source: Vocabulary
    target: Vocabulary
    source_length: int
    target_length: int


def part_of(key: str) -> str:
    """`train` for 90 of 100 keys, `valid` for 5, `test` for 5, by a hash: the same on every machine."""
    return PARTS[int(np.searchsorted([0.9, 0.95], hashed(key), side="right"))]


def _characters(symbols: str, special: tuple[str, ...]) -> Vocabulary:
    return of_symbols("characters", sorted(set(symbols)), special)


def addition(digits: int = 3) -> Task:
    """Sums of two whole numbers of up to so many digits: `123+45` to `168`. `a+b` and `b+a` are in one part."""

    def draw(rng: np.random.Generator, n: int) -> list[Pair]:
        return [(f"{a}+{b}", f"{a + b}") for a, b in rng.integers(0, 10**digits, (n, 2)).tolist()]

    def key(pair: Pair) -> str:
        return "+".join(sorted(pair[0].split("+")))

    source, target = _characters("0123456789+", SOURCE_SPECIAL), _characters("0123456789", TARGET_SPECIAL)
    return Task(f"addition{digits}", draw, key, source, target, 2 * digits + 1, digits + 2)


def reversal(shortest: int = 1, longest: int = 10, symbols: str = LETTERS) -> Task:
    """Strings of random letters to the same from behind, every length equally often."""
    letters = np.array(sorted(set(symbols)))

    def draw(rng: np.random.Generator, n: int) -> list[Pair]:
        lengths = rng.integers(shortest, longest + 1, n).tolist()
        texts = ("".join(letters[rng.integers(0, len(letters), length)]) for length in lengths)
        return [(text, text[::-1]) for text in texts]

    vocabularies = _characters(symbols, SOURCE_SPECIAL), _characters(symbols, TARGET_SPECIAL)
    return Task("reversal", draw, lambda pair: pair[0], *vocabularies, longest, longest + 1)


_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS, DAYS = _MONTHS.split(), _DAYS.split()
# By name: Python's own formats would follow the locale. With slashes the month comes first, with dots the day.
DATE_FORMATS = (
    "{d} {Month} {y}",
    "{d} {Mon} {y}",
    "{Month} {d}, {y}",
    "{Mon} {d}, {y}",
    "{Day}, {Month} {d}, {y}",
    "{Day} {d} {Month} {y}",
    "the {nth} of {Month} {y}",
    "{Month} {nth}, {y}",
    "{y} {Month} {d}",
    "{d:02}.{m:02}.{y}",
    "{d}.{m}.{y}",
    "{m:02}/{d:02}/{y}",
    "{m}/{d}/{y}",
    "{y}{m:02}{d:02}",
)


def written_date(date: np.datetime64, form: str) -> str:
    """A date in one of `DATE_FORMATS`."""
    y, m, d = map(int, str(date).split("-"))
    nth = f"{d}{'th' if 10 < d < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(d % 10, 'th')}"
    month, day = MONTHS[m - 1], DAYS[(date.astype(int) + 3) % 7]  # 1970-01-01 was a Thursday
    return form.format(y=y, m=m, d=d, nth=nth, Month=month, Mon=month[:3], Day=day)


def dates() -> Task:
    """Dates of 1900 to 2099 in many ways of writing to ISO 8601; a date is in one part, however it is written."""
    first, last = np.datetime64("1900-01-01"), np.datetime64("2100-01-01")

    def draw(rng: np.random.Generator, n: int) -> list[Pair]:
        days = first + rng.integers(0, (last - first).astype(int), n)
        forms = rng.integers(0, len(DATE_FORMATS), n)
        return [(written_date(day, DATE_FORMATS[form]), str(day)) for day, form in zip(days, forms, strict=True)]

    symbols = "".join((*MONTHS, *DAYS)) + "the of stndrdth0123456789 ,./"
    longest = max(len(written_date(np.datetime64("2000-09-20"), form)) for form in DATE_FORMATS)  # a Wednesday
    source, target = _characters(symbols, SOURCE_SPECIAL), _characters("0123456789-", TARGET_SPECIAL)
    return Task("dates", draw, lambda pair: pair[1], source, target, longest, 11)


def numbers(digits: int = 6, to_words: bool = True) -> Task:
    """Whole numbers to English words, or back: `321` to `three hundred twenty-one`, every count of digits as often."""
    figures, letters = "0123456789", LETTERS + " -"

    def draw(rng: np.random.Generator, n: int) -> list[Pair]:
        values = [int(rng.integers(0, 10**k)) for k in rng.integers(1, digits + 1, n)]
        pairs = [(str(value), number_words.words(value)) for value in values]
        return pairs if to_words else [(words, figure) for figure, words in pairs]

    longest = number_words.longest(digits)
    if to_words:
        source, target = _characters(figures, SOURCE_SPECIAL), _characters(letters, TARGET_SPECIAL)
        return Task("numbers_to_words", draw, lambda pair: pair[0], source, target, digits, longest + 1)
    source, target = _characters(letters, SOURCE_SPECIAL), _characters(figures, TARGET_SPECIAL)
    return Task("words_to_numbers", draw, lambda pair: pair[1], source, target, longest, digits + 1)


TASKS: dict[str, Callable[[], Task]] = {
    "addition": addition,
    "reversal": reversal,
    "dates": dates,
    "numbers_to_words": numbers,
    "words_to_numbers": lambda: numbers(to_words=False),
}


def load(name: str) -> Task:
    """The task of a name in `TASKS`.

    Raises:
      UserError: for an unknown name, with the closest ones.
    """
    if name not in TASKS:
        raise unknown("task", name, TASKS)
    return TASKS[name]()


def draw_part(task: Task, rng: np.random.Generator, n: int, part: str) -> list[Pair]:
    """n pairs of a part; pairs of other parts are drawn and thrown away."""
    pairs: list[Pair] = []
    while len(pairs) < n:
        drawn = task.draw(rng, (n - len(pairs)) * (1 if part == "train" else 16) + 16)
        pairs += [pair for pair in drawn if part_of(task.key(pair)) == part]
    return pairs[:n]


def fixed(task: Task, part: str, n: int) -> list[Pair]:
    """n different pairs of a part, always the same ones.

    Raises:
      UserError: if the part has not that many.
    """
    rng = np.random.Generator(np.random.Philox(key=[PARTS.index(part), DRAWS]))
    found: dict[Pair, None] = {}
    in_vain = 0
    while len(found) < n:
        before = len(found)
        found.update(dict.fromkeys(draw_part(task, rng, n - before + 64, part)))
        in_vain = in_vain + 1 if len(found) == before else 0
        if in_vain == 8:
            raise UserError(f"task {task.name} has no {n} different {part} examples, but {before}")
    return list(found)[:n]


def fields(pairs: Sequence[Pair], source: Vocabulary, target: Vocabulary) -> dict[str, sequences.Ragged | np.ndarray]:
    """Pairs as `{"source", "target"}` for `sequences`; every target ends with `<eos>`."""
    return {
        "source": sequences.encoded(source, [left for left, _ in pairs]),
        "target": sequences.encoded(target, [right for _, right in pairs], end=True),
    }


def training_stream(task: Task, batch_size: int, process: int = 0, processes: int = 1) -> Stream:
    """New training pairs in every batch.

    Args:
      task: what to draw.
      batch_size: pairs in a batch, over all processes.
      process: this process.
      processes: how many there are.

    Returns:
      The stream of `{"source": [B, S], "source_lengths": [B], "target": [B, T], "target_lengths": [B]}`; targets and
      their lengths count the `<eos>` at their ends.
    """
    mine = process_slice(batch_size, process, processes)

    def host(seed: int, i: int) -> Batch:
        rng = np.random.Generator(np.random.Philox(key=[seed, DRAWS], counter=[0, 0, 1, i]))
        pairs = draw_part(task, rng, batch_size, "train")[mine]
        return sequences.batch_of(fields(pairs, task.source, task.target), np.arange(len(pairs)), lengths(task))

    return Stream(host)


def lengths(task: Task) -> dict[str, int]:
    """What the sequences of a task are padded to, as `sequences` wants it."""
    return {"source": task.source_length, "target": task.target_length}


def copy_stream(
    lag: int, batch_size: int, count: int = 10, symbols: int = 8, process: int = 0, processes: int = 1
) -> Stream:
    """The copying problem: remember some symbols while nothing happens, and say them when asked.

    The input is `count` symbols of 1 ... `symbols`, then `lag` blanks 0, the last of which is the mark `symbols + 1`,
    then `count` blanks. The targets are blanks, and in the place of the last `count` blanks the symbols.

    Args:
      lag: from the last symbol to the first answer, at least 1.
      batch_size: sequences in a batch, over all processes.
      count: symbols to remember.
      symbols: different ones.
      process: this process.
      processes: how many there are.

    Returns:
      The stream of `{"tokens": [B, T], "targets": [B, T], "mask": [B, T]}` with T = lag + 2 count, numbers below
      `symbols + 2`, and mask 1 for the last `count` places. Nobody who forgets does better than chance there.

    Source: Hochreiter and Schmidhuber 1997, Long Short-Term Memory, section 5; in this form Arjovsky, Shah and Bengio
      2016, Unitary Evolution Recurrent Neural Networks, section 5.1.
    """
    if min(lag, count, symbols) < 1:
        raise UserError(f"lag {lag}, count {count} and symbols {symbols} of a copying problem must be at least 1")
    mine = process_slice(batch_size, process, processes)

    def host(seed: int, i: int) -> Batch:
        rng = np.random.Generator(np.random.Philox(key=[seed, DRAWS], counter=[0, 0, 2, i]))
        said = rng.integers(1, symbols + 1, (batch_size, count))[mine].astype(np.int32)
        tokens = np.zeros((len(said), lag + 2 * count), np.int32)
        targets, mask = np.zeros_like(tokens), np.zeros(tokens.shape, np.float32)
        tokens[:, :count] = targets[:, -count:] = said
        tokens[:, count + lag - 1] = symbols + 1
        mask[:, -count:] = 1
        return {"tokens": tokens, "targets": targets, "mask": mask}

    return Stream(host)


def read_pairs(path: str | Path) -> dict[str, list[Pair]]:
    """Pairs from a UTF-8 file, a line each: left, tab, right; what follows another tab is ignored.

    Returns:
      Part to pairs, in the order of the file, without repetitions. The part depends on a hash of the left side: no left
      side is in two parts.

    Raises:
      UserError: if the file cannot be read (see `read_text`), or a line has no tab or an empty side; names the line.
    """
    parts: dict[str, dict[Pair, None]] = {part: {} for part in PARTS}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        sides = [side.strip() for side in line.split("\t")[:2]]
        if len(sides) < 2 or not all(sides):
            what = "no tab" if len(sides) < 2 else "an empty side"
            raise UserError(f"line {number} of {path} has {what}: each line must be one pair, left TAB right")
        parts[part_of(sides[0])][sides[0], sides[1]] = None
    return {part: list(pairs) for part, pairs in parts.items()}
