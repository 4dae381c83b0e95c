"""Pictures that any experiment can use: curves, grids of images and confusion matrices as PNG, animations as GIF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlfx.types import UserError

COLORS = {"train": "#4477aa", "valid": "#ccbb44", "test": "#ee6677", "whole": "#228833"}


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
        values = [row[name] for row in rows if row.get(name) is not None]
        if name.endswith(("loss", "norm")) and min(values, default=0) >= 0 < max(values, default=0):
            axes.set_yscale("log")
        axes.set(xlabel="step", title=name)
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, path)


def seed_curves(
    path: Path,
    xs: Sequence[float] | np.ndarray,
    bands: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    title: str,
    xlabel: str,
    ylabel: str,
    means: Mapping[str, np.ndarray] | None = None,
    reference: tuple[str, float] | None = None,
) -> None:
    """Learning curves over seeds: for each label its centre with a band from low to high, and its mean dashed.

    Args:
      path: of the PNG.
      xs: `[points]`.
      bands: label to (centre, low, high), each `[points]`, such as the interquartile mean and its 95 % interval. Where
        they are NaN the curve has a gap.
      title: above the curves.
      xlabel: what xs are.
      ylabel: what the curves are.
      means: label to `[points]`, for those labels that shall show it.
      reference: (label, height) of a horizontal line, such as the return of an optimal policy.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for label, (centre, low, high) in bands.items():
        (drawn,) = axes.plot(xs, centre, label=label, linewidth=1.6)
        axes.fill_between(xs, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)
        if means and label in means:
            axes.plot(xs, means[label], color=drawn.get_color(), linestyle="--", linewidth=0.9)
    if reference:
        axes.axhline(reference[1], label=reference[0], color="black", linestyle=":", linewidth=1.2)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def animation(path: Path, frames: Sequence[np.ndarray] | np.ndarray, frames_per_second: float = 25) -> None:
    """A GIF that repeats without end, its colours undithered from one palette for all frames.

    Args:
      path: of the GIF.
      frames: `[T, H, W, 3]` uint8, at least one. Up to 256 different colours among them are kept exactly.
      frames_per_second: more than 0 and at most 50, which is what viewers still follow; a delay is a whole number of
        hundredths of a second.

    Raises:
      UserError: no frame, or another number of frames per second.
    """
    from PIL import Image

    if not 0 < frames_per_second <= 50:
        raise UserError(f"{frames_per_second:g} frames per second; a GIF has more than 0 and at most 50")
    if not len(frames):
        raise UserError("an animation needs at least one frame")
    codes = np.stack([np.asarray(frame, np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32) for frame in frames])
    seen, pixels = np.unique_counts(codes)
    common = seen[np.argsort(-pixels, kind="stable")]
    # Mostly the commonest colours, not averages: flat areas keep theirs, and only the blends of edges are rounded.
    palette = (
        common if len(common) < 256 else np.concatenate([common[:192], common[192 :: -(-(len(common) - 192) // 64)]])
    )
    channels = palette[:, None] >> np.array([16, 8, 0], np.uint32) & 255
    index = np.zeros(1 << 24, np.uint8)
    for some in np.array_split(seen, -(-len(seen) // 4096)):
        away = (some[:, None, None] >> np.array([16, 8, 0], np.uint32) & 255).astype(np.int32) - channels
        index[some] = (away**2).sum(-1).argmin(-1)
    images, table = [], channels.astype(np.uint8).tobytes()
    for plane in index[codes]:
        images.append(Image.fromarray(plane, "P"))
        images[-1].putpalette(table)
    path.parent.mkdir(parents=True, exist_ok=True)
    delay = 10 * round(100 / frames_per_second)
    # Unless the palette is named, PIL writes it again with every frame.
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], palette=table, duration=delay, loop=0)


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


def mosaic(images: np.ndarray, columns: int, scale: int = 1) -> np.ndarray:
    """Images side by side as one picture, all on the scale [0, 1], with a line of grey between them.

    Args:
      images: `[n, H, W, 1 or 3]`; what lies outside [0, 1] is clipped.
      columns: images in a row; the last row may be short.
      scale: the side of the square that a pixel becomes.

    Returns:
      `[h, w, 3]` uint8.
    """
    images = np.asarray(images, np.float32).repeat(scale, 1).repeat(scale, 2)
    size, height, width, _ = images.shape
    rows = -(-size // columns)
    sheet = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), 128, np.uint8)
    for i, image in enumerate(np.round(255 * images.clip(0, 1)).astype(np.uint8)):
        top, left = i // columns * (height + 1) + 1, i % columns * (width + 1) + 1
        sheet[top : top + height, left : left + width] = image
    return sheet


def picture(path: Path, pixels: np.ndarray) -> None:
    """Writes pixels `[H, W, 3]` uint8 as a PNG, making its directory."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


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
