"""A drawing of a network: its layers from left to right, as high as their maps, as wide as they have channels."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlfx.training import figures

COLORS = {"Conv": "#4477aa", "Dense": "#ee6677", "Subsampling": "#ccbb44", "SparseConv": "#66ccee"}
ROW = 26  # layers in a row of the drawing


def draw(path: Path, title: str, image: tuple[int, int, int], layers: Sequence[Any]) -> None:
    """Draws the layers that multiply; norms go with the convolution before them.

    Args:
      path: of the picture.
      title: above it.
      image: (H, W, C) of the input.
      layers: as `experiments.inspect` finds them, in the order in which they run. Those of one block, which have the
        beginning of their names in common, stand on one ground.
    """
    shown = [layer for layer in layers if layer.macs or layer.kind in COLORS]
    rows = [shown[i : i + ROW] for i in range(0, len(shown), ROW)]
    figure = figures.new_figure(1.0 + 0.62 * max(len(row) for row in rows) + 0.8, 3.0 * len(rows) + 0.7)
    figure.suptitle(title)
    for axes, row in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        place = 0.0
        if row is rows[0]:
            place = _box(axes, place, image, "#bbbbbb", "image", "")
        begin, block = place, _block(row[0].name)
        for number, layer in enumerate(row):
            color = COLORS.get(layer.kind, "#228833")
            place = _box(axes, place, layer.shape, color, layer.name, _pair(layer.receptive_field))
            last = number + 1 == len(row)
            after = "" if last else _block(row[number + 1].name)
            if last or after != block:
                if block:
                    axes.axvspan(begin - 0.12, place - 0.18, color="black", alpha=0.05, linewidth=0)
                begin, block = place, after
        axes.set(xlim=(-0.3, max(place, 4)), ylim=(-2.1, 1.45))
        axes.set_axis_off()
    for kind, color in COLORS.items():
        if any(layer.kind == kind for layer in shown):
            figure.axes[0].plot([], [], "s", color=color, label=kind)
    figure.axes[0].legend(loc="upper right", fontsize=7, ncols=4, frameon=False, title="below a layer: what it sees")
    figures.save(figure, path)


def _box(axes: Any, place: float, shape: Sequence[int], color: str, name: str, sees: str) -> float:
    """One layer, and where the next one begins: height for rows and width for channels, on logarithmic scales."""
    rows, channels = (shape[0], shape[-1]) if len(shape) == 3 else (1, shape[-1])
    height, width = 0.25 + 0.19 * math.log2(rows), 0.14 + 0.052 * math.log2(channels)
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((place, -height / 2), width, height, facecolor=color, edgecolor="black", linewidth=0.6))
    size = f"{rows}²x{channels}" if len(shape) == 3 else f"{channels}"
    axes.text(place + width / 2, height / 2 + 0.05, size, fontsize=5.5, ha="center", va="bottom", rotation=90)
    axes.text(place + width / 2, -height / 2 - 0.05, sees, fontsize=5.5, ha="center", va="top")
    axes.text(place + width / 2, -1.12, name, fontsize=5.5, ha="center", va="top", rotation=90, color="0.3")
    return place + width + 0.3


def _block(name: str) -> str:
    """What the layers of one block have in common: all of the name but its last part."""
    return name.rpartition(".")[0]


def _pair(sides: tuple[int, int]) -> str:
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}x{sides[1]}"
