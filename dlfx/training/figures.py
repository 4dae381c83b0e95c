"""Pictures that any experiment can use, written as PNG: learning curves, grids of images, confusion matrices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLORS = {"train": "#4477aa", "valid": "#ccbb44", "test": "#ee6677"}


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of that size in inches, without pyplot's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def save(figure: Any, path: Path) -> None:
    """Writes a figure, making its directory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def curves(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Every metric of a run over its steps, one panel each, one line a split; for a population mean, band and members.

    Args:
      path: of the PNG.
      rows: the lines of `metrics.jsonl`.
      title: above the panels.
    """
    names = list(dict.fromkeys(k for row in rows for k in row if k not in ("step", "split") and "/" not in k))
    if not names:
        return
    figure = new_figure(4.2 * len(names), 3.6)
    figure.suptitle(title)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for split in dict.fromkeys(row["split"] for row in rows):
            line = [row for row in rows if row["split"] == split and row.get(name) is not None]
            if not line:
                continue
            steps, mean = [row["step"] for row in line], np.array([row[name] for row in line])
            color = COLORS.get(split)
            marker = "." if len(line) < 60 else ""
            (drawn,) = axes.plot(steps, mean, label=split, color=color, marker=marker, linewidth=1.4)
            for member in (k for k in line[0] if k.startswith(f"{name}/seed")):
                axes.plot(steps, [row.get(member) for row in line], color=drawn.get_color(), alpha=0.25, linewidth=0.6)
            if f"{name}/std" in line[0]:
                std = np.array([row[f"{name}/std"] for row in line])
                axes.fill_between(steps, mean - std, mean + std, color=drawn.get_color(), alpha=0.2, linewidth=0)
        if name.endswith(("loss", "norm")):
            axes.set_yscale("log")
        axes.set(xlabel="step", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, path)


def image_grid(
    path: Path, images: Sequence[Any] | np.ndarray, titles: Sequence[str], title: str, columns: int = 8
) -> None:
    """Images `[n, H, W]` or `[n, H, W, 1 or 3]`, each on its own scale, with a title above; None leaves a gap."""
    columns = min(columns, len(images))
    lines = -(-len(images) // columns)
    figure = new_figure(max(1.25 * columns, 5.0), 1.45 * lines + 0.5)
    figure.suptitle(title)
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, text in zip(grid.flat, images, titles, strict=False):
        if image is None:
            continue
        image = np.asarray(image, np.float32)
        low, high = image.min(), image.max()
        image = (image - low) / (high - low if high > low else 1)
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        axes.set_title(text, fontsize=8)
    save(figure, path)


def confusion(path: Path, counts: np.ndarray, labels: Sequence[str], title: str) -> None:
    """A confusion matrix `[K, K]`: true classes in rows, predicted in columns, numbers written in for up to 20 classes.

    The diagonal is greyed, so that the colour shows the mistakes.
    """
    classes = len(counts)
    size = max(4.5, 0.45 * classes)
    figure = new_figure(size + 0.8, size)
    axes = figure.subplots()
    mistakes = np.where(np.eye(classes, dtype=bool), np.nan, counts)
    axes.set_facecolor("#e8e8e8")
    worst = max(1.0, float(np.nanmax(mistakes, initial=1.0)))
    figure.colorbar(axes.imshow(mistakes, cmap="Reds", vmin=0, vmax=worst), label="mistakes", shrink=0.8)
    if classes <= 20:
        for (row, column), value in np.ndenumerate(counts):
            if value:
                color = "white" if row != column and value > worst / 2 else "black"
                axes.text(column, row, f"{value:g}", ha="center", va="center", fontsize=8, color=color)
        axes.set(xticks=range(classes), yticks=range(classes), xticklabels=labels, yticklabels=labels)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    save(figure, path)
