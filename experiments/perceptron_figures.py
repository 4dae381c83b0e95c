"""What a threshold unit looks like: its boundary as it moves, its weights and nets, its errors, two layers on XOR."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dlfx.data import gates
from dlfx.learners import perceptron as unit
from dlfx.training import figures
from experiments.perceptron_history import History, Outcome, TwoLayers, errors, number

CLASSES = {1: ("#4477aa", "o", "d = +1"), -1: ("#cc5566", "s", "d = -1")}
SIDES = {1: "#dbe7f3", -1: "#f9e0e3"}
FRAMES = 40  # of an animation at most; of longer histories the first corrections, then ever so many left out
HELD = 6  # frames that the end is shown for
ROWS = 64  # that have a bar of their own; of larger tables the first


def draw(
    directory: Path,
    table: gates.Table,
    seen: list[History],
    ended: list[Outcome],
    activation: str,
    both: TwoLayers | None,
) -> None:
    """Errors of all members over the epochs; of the first one its boundary in the plane, or its weights and nets."""
    error_curves(directory / "errors.png", table, seen, ended, activation)
    if table.x.shape[1] == 3:
        plane(directory / "boundary.png", table, seen[0])
        moving(directory / "boundary.gif", table, seen[0], moving_plane)
    else:
        bars(directory / "weights.png", table, seen[0])
        moving(directory / "weights.gif", table, seen[0], moving_bars)
    if both:
        regions(directory / "two_layers.png", both, activation)


def error_curves(path: Path, table: gates.Table, seen: list[History], ended: list[Outcome], activation: str) -> None:
    """Rows that were wrong during each epoch, that W gets wrong after it, and that the pocket gets wrong."""
    size, epochs = len(table.x), len(ended[0].mistakes)
    at = slice(size, epochs * size + 1, size)
    lines = {"wrong when they came": (np.array([end.mistakes for end in ended]), "#888888", ":")}
    lines["wrong by W after the epoch"] = (
        np.array([errors(table, activation, member.weights[at]) for member in seen]),
        figures.COLORS["train"],
        "-",
    )
    if seen[0].pocket_errors is not None:
        pocket = np.array([member.pocket_errors[at] for member in seen if member.pocket_errors is not None])
        lines["wrong by the pocket's W"] = (pocket, figures.COLORS["test"], "-")
    axes = (figure := figures.new_figure(6.4, 3.8)).subplots()
    numbers = np.arange(1, epochs + 1)
    for label, (values, color, style) in lines.items():
        marker = "." if epochs <= 60 else ""
        axes.plot(numbers, values.mean(0), style, color=color, marker=marker, label=label, linewidth=1.5)
        if len(values) > 1:
            axes.fill_between(numbers, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    title = f"{table.name}: rows of {size} that are wrong"
    axes.set(
        xlabel="epoch", ylabel="rows", title=f"{title}; mean and range of {len(seen)} seeds" * (len(seen) > 1) or title
    )
    axes.set_ylim(bottom=min(-0.02 * size, -0.05))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def limits(table: gates.Table) -> tuple[float, float, float, float]:
    """Left, right, bottom, top around the points, on one scale unless that would squeeze them."""
    low, high = table.x[:, 1:].min(0), table.x[:, 1:].max(0)
    half = 0.65 * np.where(high > low, high - low, 1.0)
    if half.max() < 3 * half.min():
        half[:] = half.max()
    left, bottom = (low + high) / 2 - half
    right, top = (low + high) / 2 + half
    return left, right, bottom, top


def grid(box: tuple[float, float, float, float], points: int = 160) -> np.ndarray:
    """Rows `[points, points, 3]` of the middles of the pixels of a box, from its lower left corner."""
    left, right, bottom, top = box
    steps = (np.arange(points) + 0.5) / points
    x, y = np.meshgrid(left + steps * (right - left), bottom + steps * (top - bottom))
    return np.stack([-np.ones_like(x), x, y], -1)


def shade(outputs: np.ndarray) -> np.ndarray:
    """Outputs `[H, W]` as an image of the colours of the two sides."""
    colors = {side: [int(color[i : i + 2], 16) for i in (1, 3, 5)] for side, color in SIDES.items()}
    return np.where(outputs[..., None] > 0, colors[1], np.where(outputs[..., None] < 0, colors[-1], 245)).astype(
        np.uint8
    )


def segment(weights: np.ndarray, box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Both ends, xs and ys, of the line `w . x = T`, far outside the box; NaN where there is none."""
    threshold, w = weights[0], weights[1:]
    squared = float(w @ w)
    if not squared:
        return np.full(2, np.nan), np.full(2, np.nan)
    middle = np.array([(box[0] + box[1]) / 2, (box[2] + box[3]) / 2])
    foot = middle + (threshold - w @ middle) / squared * w
    along = np.array([-w[1], w[0]]) / np.sqrt(squared) * np.hypot(box[1] - box[0], box[3] - box[2])
    return np.array([foot[0] - along[0], foot[0] + along[0]]), np.array([foot[1] - along[1], foot[1] + along[1]])


def points(axes: Any, table: gates.Table, size: float) -> None:
    """The rows in the plane, by class."""
    for side, (color, marker, label) in CLASSES.items():
        some = table.x[table.target == side]
        axes.scatter(
            some[:, 1],
            some[:, 2],
            s=size,
            c=color,
            marker=marker,
            label=label,
            edgecolors="white",
            linewidths=0.6,
            zorder=3,
        )


def frame_of(axes: Any, table: gates.Table, box: tuple[float, float, float, float]) -> None:
    axes.set(xlim=box[:2], ylim=box[2:], xlabel=table.columns[0], ylabel=table.columns[1])
    axes.set_aspect("equal" if np.isclose(box[1] - box[0], box[3] - box[2]) else "auto")


def plane(path: Path, table: gates.Table, history: History) -> None:
    """The final boundary with the earlier ones fainter, and that of the pocket, dashed."""
    box = limits(table)
    axes = (figure := figures.new_figure(5.6, 5.4)).subplots()
    final = history.weights[-1]
    axes.imshow(shade(grid(box) @ final), extent=box, origin="lower", aspect="auto")
    changed = np.flatnonzero(history.wrong)[-24:]
    for age, k in enumerate(reversed(changed)):
        axes.plot(*segment(history.weights[k], box), color="#555555", alpha=0.35 * 0.85**age, linewidth=0.8)
    pocketed = history.pocket is not None
    axes.plot(*segment(final, box), color="#222222", linewidth=1.8, label="last W" if pocketed else "boundary")
    if history.pocket is not None:
        axes.plot(*segment(history.pocket[-1], box), color="#117733", linewidth=2.2, linestyle="--", label="pocket's W")
    points(axes, table, size_of(table))
    frame_of(axes, table, box)
    axes.set_title(f"{table.name}: W({len(history.rows)}), with the boundaries before it fainter", fontsize=10)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figures.save(figure, path)


def size_of(table: gates.Table) -> float:
    """Of the markers: large where there are few rows."""
    return 130 if len(table.x) <= 12 else 36


def chosen(history: History) -> list[int]:
    """The k of the W(k) to show: the first, those after corrections, as far as there is room, and the last."""
    changed = np.flatnonzero(history.wrong) + 1
    if len(changed) > FRAMES:  # no fixed stride: it could be one with weights that go round
        begin = FRAMES // 2
        changed = changed[[*range(begin), *np.linspace(begin, len(changed) - 1, FRAMES - begin).astype(int)]]
    last = int(np.flatnonzero(history.wrong)[-1]) + 1 if history.wrong.any() else 0
    return sorted({0, *map(int, changed), last})


def heading(table: gates.Table, history: History, k: int) -> str:
    """Which correction led to W(k)."""
    if not k:
        return "W(0)"
    row, size = int(history.rows[k - 1]), len(table.x)
    return f"W({k}), epoch {(k - 1) // size + 1}: X{row + 1} was wrong, net {number(round(history.nets[k - 1], 3))}"


def moving(
    path: Path, table: gates.Table, history: History, scene: Callable[..., tuple[Any, Callable[[int], None]]]
) -> None:
    """A GIF of the weights after the corrections; a scene is (table, history) to (figure, what turns it to a k)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, turn = scene(table, history)
    canvas, frames = FigureCanvasAgg(figure), []
    for k in chosen(history):
        turn(k)
        canvas.draw()
        figure.set_layout_engine("none")  # as the first frame was laid out, so that nothing jumps
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    figures.animation(path, [*frames, *[frames[-1]] * HELD], 2 if len(frames) <= 20 else 5)


def moving_plane(table: gates.Table, history: History) -> tuple[Any, Callable[[int], None]]:
    """The plane with the boundary of W(k), the row that moved it in orange, and those that are wrong now ringed."""
    box = limits(table)
    rows = grid(box)
    axes = (figure := figures.new_figure(4.6, 4.8)).subplots()
    image = axes.imshow(shade(np.ones(rows.shape[:2])), extent=box, origin="lower", aspect="auto")
    (line,) = axes.plot([], [], color="#222222", linewidth=1.8)
    points(axes, table, size_of(table))
    small = np.sqrt(size_of(table))
    blank = {"markerfacecolor": "none", "linestyle": "none", "marker": "o"}
    (wrong,) = axes.plot([], [], markersize=small + 3, markeredgecolor="black", markeredgewidth=1.3, zorder=4, **blank)
    (came,) = axes.plot([], [], markersize=small + 10, markeredgecolor="#ee7733", markeredgewidth=2, zorder=5, **blank)
    frame_of(axes, table, box)

    def turn(k: int) -> None:
        weights = history.weights[k]
        image.set_data(shade(rows @ weights))
        line.set_data(*segment(weights, box))
        came.set_data(*(table.x[[history.rows[k - 1]], 1:].T if k else ([], [])))
        out = table.x[table.target * (table.x @ weights) <= 0, 1:]
        wrong.set_data(*out.T)
        axes.set_title(f"{heading(table, history, k)}\nnow {len(out)} of {len(table.x)} wrong (ringed)", fontsize=9)

    return figure, turn


def bar_axes(axes: Any, table: gates.Table, history: History) -> None:
    """Labels and limits, the same for all of a history, of weights on the left and nets on the right."""
    kept = history.weights[chosen(history)]
    nets = kept @ table.x.T * table.target
    names = ["threshold", *table.columns]
    left, right = axes
    few = len(table.x) <= 16
    left.set_xticks(range(len(names)), names, rotation=0 if len(names) <= 5 else 60, fontsize=8)
    right.set_xticks(*(range(len(table.x)), [f"X{i + 1}" for i in range(len(table.x))]) if few else ([], []))
    for each, values, title in ((left, kept, "weights"), (right, nets, "d net: above 0 a row is right")):
        low, high = min(0.0, values.min()), max(0.0, values.max())
        room = 0.08 * (high - low or 1)
        each.set_ylim(low - room, high + room)
        each.set_title(title, fontsize=9)
        each.axhline(0, color="black", linewidth=0.8)
        each.grid(alpha=0.3, axis="y")


def paint(drawn: Any, values: np.ndarray, colors: list[str]) -> None:
    for bar, value, color in zip(drawn, values, colors, strict=True):
        bar.set_height(value)
        bar.set_color(color)


def moving_bars(table: gates.Table, history: History) -> tuple[Any, Callable[[int], None]]:
    """W(k) as bars, and beside it `d W . X` of the first rows: those below 0 are wrong."""
    some = table._replace(x=table.x[:ROWS], target=table.target[:ROWS])
    figure = figures.new_figure(7.2, 3.4)
    axes = figure.subplots(1, 2)
    bar_axes(axes, some, history)
    left = axes[0].bar(range(table.x.shape[1]), 0.0)
    right = axes[1].bar(range(len(some.x)), 0.0)

    def turn(k: int) -> None:
        weights = history.weights[k]
        nets = some.target * (some.x @ weights)
        paint(left, weights, ["#888888", *["#4477aa"] * (len(weights) - 1)])
        paint(right, nets, ["#228833" if net > 0 else "#cc5566" for net in nets])
        figure.suptitle(f"{table.name}: {heading(table, history, k)}", fontsize=10)

    return figure, turn


def bars(path: Path, table: gates.Table, history: History) -> None:
    """Every weight, and `d W . X` of every row, over the corrections."""
    figure = figures.new_figure(9.0, 3.6)
    figure.suptitle(f"{table.name}: the weights W(k) and what they make of the rows")
    left, right = figure.subplots(1, 2)
    last = min(len(history.weights) - 1, chosen(history)[-1] + len(table.x))
    at = np.unique(np.linspace(0, last, 1000).astype(int))
    shown = history.weights[at]
    for name, values in zip(["threshold", *table.columns], shown.T, strict=True):
        left.step(at, values, where="post", label=name, color="#888888" if name == "threshold" else None)
    nets = shown @ table.x.T * table.target
    for row in range(len(table.x)) if len(table.x) <= 16 else range(0):
        right.step(at, nets[:, row], where="post", label=f"X{row + 1}")
    if len(table.x) > 16:
        right.plot(at, nets.min(1), label="least of all rows")
    right.axhspan(min(nets.min(), 0), 0, color="#cc5566", alpha=0.1, linewidth=0)
    left.set(xlabel="k", ylabel="weight")
    right.set(xlabel="k", ylabel="d W . X (below 0: wrong)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figures.save(figure, path)


def regions(path: Path, both: TwoLayers, activation: str) -> None:
    """XOR in two layers: what either hidden unit divides, what both together make, and what the output unit sees."""
    table, f = gates.gate("xor"), unit.ACTIVATIONS[activation]
    box = limits(table)
    rows = grid(box)
    figure = figures.new_figure(13.2, 3.9)
    figure.suptitle("XOR = AND(OR, NAND), each unit taught its own gate by the perceptron's rule")
    figure.get_layout_engine().set(w_pad=0.12)
    first, second, joint, inside = figure.subplots(1, 4)

    def panel(axes: Any, of: gates.Table, outputs: Any, lines: np.ndarray, title: str) -> None:
        axes.imshow(shade(np.asarray(outputs)), extent=box, origin="lower", aspect="auto")
        for weights in lines:
            axes.plot(*segment(weights, box), color="#222222", linewidth=1.5)
        points(axes, of, 130)
        frame_of(axes, of, box)
        axes.set_title(title, fontsize=9)

    for axes, weights, name in zip((first, second), both.hidden, ("or", "nand"), strict=True):
        panel(axes, gates.gate(name), rows @ weights, weights[None], f"hidden unit {name.upper()}")
    panel(
        joint,
        table,
        unit.two_layers(jnp.asarray(both.hidden), jnp.asarray(both.output), jnp.asarray(rows), f),
        both.hidden,
        "both layers: XOR",
    )
    hidden = np.stack([np.asarray(f(jnp.asarray(table.x @ weights))) for weights in both.hidden], -1)
    turned = gates.table("xor", hidden, table.target, ("OR", "NAND"))
    panel(inside, turned, rows @ both.output, both.output[None], "what the output unit AND sees")
    figures.save(figure, path)
