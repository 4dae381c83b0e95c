"""Tiny tables for one threshold unit: logical gates, a worked example, two clouds of points, and CSV files."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlfx.data import batches
from dlfx.types import Batch, Stream, UserError, unknown


class Table(NamedTuple):
    """Rows with two classes.

    Attributes:
      name: what to call it.
      x: `[m, n]` float64; the first column is -1, which the threshold is paired with.
      target: `[m]` float64, -1 or 1.
      columns: the names of the other columns.
    """

    name: str
    x: np.ndarray
    target: np.ndarray
    columns: tuple[str, ...]


# Three rows with the weights to begin with, which the rule is shown on by hand at a rate of 0.1.
NOTES_WEIGHTS = (0.5, 1.0, -1.0, 0.0)
NOTES_ROWS = ((1.0, -2.0, 0.0), (0.0, 1.5, -0.5), (-1.0, 1.0, 0.5))
NOTES_TARGETS = (-1.0, -1.0, 1.0)

# True is 1 and false -1, inputs and outputs alike, so that the output of one gate can be the input of another. Rows
# come in the order FF, FT, TF, TT.
GATES: dict[str, tuple[float, ...]] = {
    "and": (-1, -1, -1, 1),
    "or": (-1, 1, 1, 1),
    "nand": (1, 1, 1, -1),
    "xor": (-1, 1, 1, -1),
}


def table(name: str, inputs: np.ndarray, target: np.ndarray, columns: tuple[str, ...] = ()) -> Table:
    """A table of inputs `[m, d]` and targets `[m]`; puts the -1 in front."""
    inputs = np.asarray(inputs, np.float64)
    columns = columns or tuple(f"x{i}" for i in range(1, 1 + inputs.shape[1]))
    return Table(name, np.insert(inputs, 0, -1.0, axis=1), np.asarray(target, np.float64), columns)


def gate(name: str) -> Table:
    """The truth table of `and`, `or`, `nand`, `xor` `[4, 3]` or `not` `[2, 2]`."""
    if name == "not":
        return table(name, np.array([[-1.0], [1.0]]), np.array([1.0, -1.0]))
    return table(name, np.array([(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]), np.array(GATES[name]))


def clouds(seed: int, size: int = 60, margin: float = 0.3) -> Table:
    """Two Gaussian clouds, points of either in turn, that a line separates.

    Args:
      seed: of the points.
      size: the number of points.
      margin: half the width of the gap: points nearer to the line `x1 + x2 = 0`, or beyond it, are moved out of it.
    """
    inputs, target = _points(seed, size, 1.2)
    normal = np.full(2, 0.5**0.5)
    missing = np.maximum(0, margin - target * (inputs @ normal))
    return table("clouds", inputs + (target * missing)[:, None] * normal, target)


def overlap(seed: int, size: int = 60) -> Table:
    """Two Gaussian clouds, points of either in turn, so near that no line separates them (unless chance will have it).

    Args:
      seed: of the points.
      size: the number of points.
    """
    return table("overlap", *_points(seed, size, 0.7))


def _points(seed: int, size: int, distance: float) -> tuple[np.ndarray, np.ndarray]:
    target = np.where(np.arange(size) % 2 == 0, 1.0, -1.0)
    return np.random.default_rng(seed).normal(size=(size, 2)) + distance * target[:, None], target


TABLES: dict[str, Callable[[int], Table]] = {
    "notes": lambda seed: table("notes", np.array(NOTES_ROWS), np.array(NOTES_TARGETS)),
    **{name: lambda seed, name=name: gate(name) for name in ("and", "or", "nand", "not", "xor")},  # type: ignore[misc]
    "clouds": clouds,
    "overlap": overlap,
}


def load(name: str, seed: int = 0) -> Table:
    """A table by its name, or from a CSV file.

    Args:
      name: one of `TABLES`, or the path of a file that ends in `.csv`.
      seed: of the clouds.

    Raises:
      UserError: there is no such table or file, or the file is not as `read_csv` wants it.
    """
    if name in TABLES:
        return TABLES[name](seed)
    if name.lower().endswith(".csv"):
        return read_csv(Path(name).expanduser())
    raise unknown("data set", name, [*TABLES, "FILE.csv"])


def standardized(rows: Table) -> Table:
    """The table with every column but the first brought to mean 0 and standard deviation 1; constant ones become 0."""
    inputs = rows.x[:, 1:]
    std = inputs.std(0)
    return table(rows.name, (inputs - inputs.mean(0)) / np.where(std > 0, std, 1), rows.target, rows.columns)


def read_csv(path: Path) -> Table:
    """A table from a file of numbers separated by commas, whose last column is the class: -1 and 1, or 0 and 1.

    A first line in which nothing is a number names the columns.

    Raises:
      UserError: it cannot be read, or a line is not of that kind; says which and why.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(number, cells) for number, cells in enumerate(csv.reader(file), 1) if "".join(cells).strip()]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file: {error}") from error
    names = None
    if lines and all(_number(cell) is None for cell in lines[0][1]):
        names = tuple(cell.strip() for cell in lines.pop(0)[1])
    if not lines:
        raise UserError(f"{path} holds no row of numbers")
    width = len(names or lines[0][1])
    if width < 2:
        raise UserError(f"{path} has {width} column; it needs at least one of numbers, and the class as the last")
    rows = []
    for number, cells in lines:
        if len(cells) != width:
            raise UserError(f"{path}, line {number}: {len(cells)} columns, where {width} are expected")
        values = [_number(cell) for cell in cells]
        if None in values:
            raise UserError(f"{path}, line {number}: {cells[values.index(None)]!r} is not a finite number")
        rows.append(values)
    array = np.array(rows, np.float64)
    labels = set(array[:, -1])
    if not (labels <= {-1.0, 1.0} or labels <= {0.0, 1.0}):
        number, bad = next((n, row[-1]) for (n, _), row in zip(lines, array, strict=True) if row[-1] not in (0, 1))
        raise UserError(
            f"{path}, line {number}: the class {bad:g} in the last column; classes are -1 and 1, or 0 and 1"
        )
    return table(path.stem, array[:, :-1], np.where(array[:, -1] > 0, 1.0, -1.0), (names or ())[:-1])


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def order(rows: int, first: int, count: int, seed: int | None) -> np.ndarray:
    """The row numbers `[count]` of presentations first, first + 1, ...: epoch after epoch, without a gap.

    Args:
      rows: of the table.
      first: a presentation, from 0.
      count: how many.
      seed: each epoch is a new permutation by this seed; None keeps the order of the table.
    """
    numbers = np.arange(first, first + count)
    if seed is None:
        return numbers % rows
    return np.array([batches.order(seed, int(number), 1, rows)[0] for number in numbers])


def stream(
    rows: Table, batch_size: int, shuffle: bool, dtype: np.dtype, process: int = 0, processes: int = 1
) -> Stream:
    """Batches of consecutive presentations, over the ends of epochs too, so that their size changes no sequence.

    Args:
      rows: the table.
      batch_size: rows in a batch, over all processes.
      shuffle: each epoch in a new order, by the seed of the run.
      dtype: of the batches.
      process: this process.
      processes: how many there are.

    Returns:
      A stream of `{"x": [b, n], "target": [b]}`.
    """
    mine = batches.process_slice(batch_size, process, processes)
    x, target = rows.x.astype(dtype), rows.target.astype(dtype)

    def host(seed: int, i: int) -> Batch:
        chosen = order(len(x), i * batch_size, batch_size, seed if shuffle else None)[mine]
        return {"x": x[chosen], "target": target[chosen]}

    return Stream(host)
