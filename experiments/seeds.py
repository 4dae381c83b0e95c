"""Metrics of a run seed by seed, from the lines of `metrics.jsonl`, and their curves with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlfx.metrics import returns
from dlfx.training import figures


def by_seed(
    rows: Sequence[Mapping[str, Any]], split: str, name: str, seeds: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(steps `[points]`, values `[seeds, points]`) of a metric from the lines of `metrics.jsonl`."""
    rows = [row for row in rows if row["split"] == split and row.get(name) is not None]
    keys = [name] if len(seeds) == 1 else [f"{name}/seed{seed}" for seed in seeds]
    return np.array([row["step"] for row in rows]), np.array([[row[key] for row in rows] for key in keys], float)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The interquartile mean of `[seeds, points]` with its 95 % bootstrap interval."""
    return returns.interquartile_mean(values), *returns.bootstrap_interval(values)


def curves(path: Path, xs: np.ndarray, values: Mapping[str, np.ndarray], title: str, xlabel: str, ylabel: str) -> None:
    """Draws interquartile mean, 95 % bootstrap interval and mean of each label's values `[seeds, points]`."""
    if not len(xs):
        return
    seeds = len(next(iter(values.values())))
    bands = {label: band(of) for label, of in values.items()}
    means = {label: returns.mean(of) for label, of in values.items()}
    if seeds > 1:
        title = f"{title}\ninterquartile mean of {seeds} seeds, 95 % interval; mean dashed"
    figures.seed_curves(path, xs, bands, title, xlabel, ylabel, means)
