"""What a unit went through, row by row: its trajectory, what is known of its end, and both in words."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.data import gates
from dlfx.learners import perceptron as unit
from dlfx.types import Array, Key, Learner

PARTS = {"or": "OR", "nand": "NAND", "and": "AND"}  # XOR = AND(OR, NAND)


class History(NamedTuple):
    """T corrections, or rows that needed none.

    Attributes:
      rows: `[T]`, which row of the table came.
      wrong: `[T]` bool, whether the output was not the target.
      nets: `[T]`, before the correction.
      outputs: `[T]`, likewise.
      weights: `[T + 1, n]`, W(0) first.
      pocket: `[T + 1, n]`, the best weights so far; None without a pocket.
      pocket_errors: `[T + 1]`, the rows that those get wrong; None without a pocket.
    """

    rows: np.ndarray
    wrong: np.ndarray
    nets: np.ndarray
    outputs: np.ndarray
    weights: np.ndarray
    pocket: np.ndarray | None
    pocket_errors: np.ndarray | None


class Outcome(NamedTuple):
    """How a history ended.

    Attributes:
      converged: the k of the first W(k) that is right on every row and stays; None if the last weights are not.
      clean: the first epoch without an error, from 1; None if there was none.
      mistakes: `[epochs]`, rows that were wrong in each whole epoch.
      errors: rows that the last weights get wrong.
      period: epochs after which the weights repeat exactly; None if they were not seen to.
    """

    converged: int | None
    clean: int | None
    mistakes: np.ndarray
    errors: int
    period: int | None


def rerun(
    learner: Learner, activation: str, table: gates.Table, seeds: Sequence[int], count: int, shuffle: bool, dtype: Any
) -> list[History]:
    """The histories of the members of a run: their `count` rows again, one in a step."""
    x, target = jnp.asarray(table.x, dtype), jnp.asarray(table.target, dtype)

    @jax.jit
    def again(key: Key, rows: Array) -> tuple[unit.State, Any]:
        def one(state: unit.State, row: Array) -> tuple[unit.State, Any]:
            net = unit.nets(state.weights, x[row])
            state, _ = learner.step(state, {"x": x[row][None], "target": target[row][None]})
            return state, (net, unit.ACTIVATIONS[activation](net), state.weights, state.pocket, state.pocket_errors)

        first = learner.init(key, {"x": x[:1], "target": target[:1]})
        return first, jax.lax.scan(one, first, rows)[1]

    found = []
    for seed in seeds:
        rows = gates.order(len(x), 0, count, seed if shuffle else None)
        first, (nets, outputs, *later) = again(jax.random.key(np.uint32(seed)), rows)
        begun = first.weights, first.pocket, first.pocket_errors
        states: list[Any] = [
            None if b is None else np.concatenate([np.asarray(b)[None], t]) for b, t in zip(begun, later, strict=True)
        ]
        outputs = np.asarray(outputs)
        found.append(History(rows, outputs != table.target[rows], np.asarray(nets), outputs, *states))
    return found


def errors(table: gates.Table, activation: str, weights: np.ndarray) -> np.ndarray:
    """The rows `[...]` that weights `[..., n]` get wrong."""
    outputs = unit.ACTIVATIONS[activation](jnp.asarray(weights @ table.x.T.astype(weights.dtype)))
    return (np.asarray(outputs) != table.target).sum(-1)


def outcome(history: History, table: gates.Table, activation: str, shuffle: bool) -> Outcome:
    """How a history ended."""
    size = len(table.x)
    epochs = len(history.rows) // size
    mistakes = history.wrong[: epochs * size].reshape(epochs, size).sum(1)
    left = int(errors(table, activation, history.weights[-1]))
    last = np.flatnonzero(history.wrong)
    clean = np.flatnonzero(mistakes == 0)
    period = None
    if left and not shuffle:  # in a fixed order, weights that return at the end of an epoch return for ever
        ends = history.weights[: epochs * size + 1 : size]
        same = np.flatnonzero((ends[:-1] == ends[-1]).all(1))
        period = len(ends) - 1 - int(same[-1]) if len(same) else None
    return Outcome(
        None if left else int(last[-1]) + 1 if len(last) else 0,
        int(clean[0]) + 1 if len(clean) else None,
        mistakes,
        left,
        period,
    )


def margin(table: gates.Table) -> float | None:
    """The margin `min d W . X` of weights with norm 1 that get every row right, by linear programming.

    0 if there are none. It maximises the margin over a box of weights, so other weights may have a larger one. None
    where that cannot be told: scipy is not installed, or the margin is too small for floating point.
    """
    try:
        from scipy.optimize import linprog  # type: ignore[import-untyped]
    except ImportError:
        return None
    scale = np.abs(table.x).max(0)
    scale[scale == 0] = 1
    signed = table.target[:, None] * table.x / scale
    size = signed.shape[1]
    # Maximises t with d W . X >= t and |W_j| <= 1.
    rows = np.insert(-signed, size, 1.0, axis=1)
    found = linprog(np.eye(size + 1)[size] * -1, rows, np.zeros(len(rows)), bounds=[(-1, 1)] * size + [(0, None)])
    if found.status != 0 or 1e-9 < -found.fun < 1e-6:
        return None
    if -found.fun <= 1e-9:
        return 0.0
    weights = found.x[:size] / scale
    return float((table.target * (table.x @ weights)).min() / np.linalg.norm(weights))


def number(value: float) -> str:
    """A number to six decimals, without the zeros at its end."""
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def vector(values: np.ndarray) -> str:
    return f"({', '.join(number(value) for value in values)})"


def shown(history: History, table: gates.Table, ended: Outcome) -> int:
    """How many rows are told: up to the end of the first epoch without an error."""
    return len(history.rows) if ended.clean is None else ended.clean * len(table.x)


def records(history: History, table: gates.Table, ended: Outcome) -> list[dict[str, Any]]:
    """W(0), then one record for every row, for `weights.jsonl`."""
    size = len(table.x)
    lines: list[dict[str, Any]] = [{"k": 0, "weights": history.weights[0].tolist()}]
    for k in range(shown(history, table, ended)):
        row, before, after = int(history.rows[k]), history.weights[k], history.weights[k + 1]
        line = {
            "k": k + 1,
            "epoch": k // size + 1,
            "sample": row + 1,
            "x": table.x[row].tolist(),
            "target": int(table.target[row]),
            "net": float(history.nets[k]),
            "output": int(history.outputs[k]),
            "update": (after - before).tolist(),
            "weights": after.tolist(),
        }
        if history.pocket is not None and history.pocket_errors is not None:
            line["pocket"] = history.pocket[k + 1].tolist()
            line["pocket_errors"] = int(history.pocket_errors[k + 1])
        lines.append(line)
    return lines


def text(lines: list[dict[str, Any]]) -> list[str]:
    """Records as a table for people; the first component of W is the threshold, paired with -1 in X."""
    cells = [["k", "epoch", "sample", "X", "d", "net", "o", "change of W", "W(k)"]]
    cells += [["0", *[""] * 7, vector(lines[0]["weights"])]]
    for line in lines[1:]:
        change = np.array(line["update"])
        cells.append(
            [
                str(line["k"]),
                str(line["epoch"]),
                f"X{line['sample']}",
                vector(line["x"]),
                f"{line['target']:+d}",
                number(line["net"]),
                f"{line['output']:+d}" if line["output"] else "0",
                vector(change) if change.any() else "none",
                vector(line["weights"]),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def verdict(history: History, table: gates.Table, ended: Outcome, gamma: float | None, activation: str) -> list[str]:
    """What can be said of the end, and no more than that."""
    size = len(table.x)
    said, bound = [], ""
    if gamma and not history.weights[0].any():
        # From zero, every full correction adds at least 2 eta gamma along the separating weights. `sign` also makes
        # half corrections, at a net of 0, hence its factor.
        most = (np.linalg.norm(table.x, axis=1).max() / gamma) ** 2 * (2 if activation == "sign" else 1)
        bound = f"the convergence theorem allows {int(most)}"
    if ended.converged is not None:
        k = ended.converged
        line = f"W({k}) = {vector(history.weights[k])} gets all {size} rows right"
        said.append(line + (f"; epoch {ended.clean} is the first without an error." if ended.clean else "."))
        said.append(f"That took {history.wrong.sum()} corrections{'; ' * bool(bound)}{bound}.")
    else:
        said.append(f"not separated after {len(history.rows) // size} epochs: {ended.errors} of {size} rows are wrong.")
        if gamma == 0:
            said.append("No single unit can get every row right: linear programming finds no weights that do.")
        elif gamma:
            said.append("Some weights get every row right (linear programming finds them), so more epochs will, too.")
            if bound:
                said.append(
                    f"So far it made {history.wrong.sum()} corrections; {bound}: --standardize may bring it down."
                )
        else:
            said.append("It did not converge; whether any weights get every row right is not known.")
        if ended.period:
            every = "after every epoch" if ended.period == 1 else f"every {ended.period} epochs"
            said.append(f"The weights return {every}: more epochs would change nothing.")
    if history.pocket is not None and history.pocket_errors is not None:
        k = int(np.flatnonzero(history.pocket_errors == history.pocket_errors[-1])[0])
        best, wrong = vector(history.pocket[-1]), int(history.pocket_errors[-1])
        said.append(f"In the pocket since W({k}): {best}, with {wrong} of {size} rows wrong.")
    return said


class TwoLayers(NamedTuple):
    """XOR by units that were each taught a gate by the perceptron's own rule.

    Attributes:
      hidden: `[2, 3]`, OR and NAND.
      output: `[3]`, AND of those two.
      epochs: that each of `PARTS` took.
      errors: rows of XOR that the whole gets wrong.
    """

    hidden: np.ndarray
    output: np.ndarray
    epochs: dict[str, int]
    errors: int


def two_layers(rate: float, activation: str, epochs: int, dtype: Any) -> TwoLayers:
    """Teaches OR, NAND and AND their tables, and joins them: XOR = AND(OR, NAND)."""
    f, weights, took = unit.ACTIVATIONS[activation], {}, {}
    for name in PARTS:
        table = gates.gate(name)
        x, target = jnp.asarray(table.x, dtype), jnp.asarray(table.target, dtype)
        learned, ran, _ = unit.until_right(jnp.zeros(3, dtype), x, target, rate, f, epochs)
        weights[name], took[name] = np.asarray(learned), int(ran)
    hidden = np.stack([weights["or"], weights["nand"]])
    xor = gates.gate("xor")
    outputs = unit.two_layers(jnp.asarray(hidden), jnp.asarray(weights["and"]), jnp.asarray(xor.x, dtype), f)
    return TwoLayers(hidden, weights["and"], took, int((np.asarray(outputs) != xor.target).sum()))


def tell_two_layers(both: TwoLayers) -> list[str]:
    """The units and what they make of XOR."""
    weights = dict(zip(PARTS, [*both.hidden, both.output], strict=True))
    units = [f"  {PARTS[n]}: W = {vector(w)}, learned in {both.epochs[n]} epochs" for n, w in weights.items()]
    return [
        "Two layers, XOR = AND(OR, NAND), each unit taught its own gate by the same rule:",
        *units,
        f"  together: {both.errors} of 4 rows of XOR are wrong.",
    ]
