"""The curves of two players, from the lines of `metrics.jsonl`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlfx.training import figures

PANELS = {
    "losses": {"critic_loss": "critic", "generator_loss": "generator"},
    "what the critic says": {"d_real": "of the data, D(x)", "d_fake": "of what is generated, D(G(z))"},
}


def curves(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """The losses of both players, and the critic's outputs, over the steps of training; each member a thin line."""
    rows = [row for row in rows if row["split"] == "train"]
    if not rows:
        return
    figure = figures.new_figure(10, 3.6)
    figure.suptitle(title)
    steps = [row["step"] for row in rows]
    for axes, (heading, lines) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for (name, label), color in zip(lines.items(), ("#4477aa", "#ee6677"), strict=True):
            axes.plot(steps, [np.nan if row[name] is None else row[name] for row in rows], label=label, color=color)
            for member in (key for key in rows[0] if key.startswith(f"{name}/seed")):
                axes.plot(steps, [row[member] for row in rows], color=color, alpha=0.25, linewidth=0.6)
        axes.set(xlabel="step", title=heading)
        axes.grid(alpha=0.3)
        axes.legend()
    figures.save(figure, path)
