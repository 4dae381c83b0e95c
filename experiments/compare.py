"""Draws metrics of several finished runs into one figure: interquartile means over seeds with 95 % intervals.

python -m experiments.compare --runs=DIR,DIR --metrics=eval/return --output=FILE.png
python -m experiments.compare --runs=DIR,DIR --labels=DQN,double --metrics=eval/q,eval/discounted --output=FILE.png
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from dlfx.training import rundir
from dlfx.types import UserError
from experiments import common, seeds
from experiments.common import FLAGS, group

with group("Comparison"):
    flags.DEFINE_list("runs", [], "directories of finished runs")
    flags.DEFINE_list("labels", [], "what to call them; by default their directories' names")
    flags.DEFINE_list("metrics", ["eval/return"], "SPLIT/NAME of what to draw, one curve for each run")
    flags.DEFINE_string("output", "comparison.png", "the picture to write")


def main(_: Any) -> None:
    labels = FLAGS.labels or [Path(run).name for run in FLAGS.runs]
    if not FLAGS.runs or len(labels) != len(FLAGS.runs):
        raise UserError(
            f"--runs and --labels must name the same number of runs, not {len(FLAGS.runs)} and {len(labels)}"
        )
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    unit = "steps"
    for run, label in zip(FLAGS.runs, labels, strict=True):
        path = Path(run).expanduser()
        done = rundir.summary_of(path)
        if done is None:
            raise UserError(f"{path} holds no finished run")
        told = done["flags"]
        members = tuple(range(int(told["seed"]), int(told["seed"]) + int(told["num_seeds"])))
        scale = int(told["env_steps"]) / done["steps"] if "env_steps" in told else 1.0
        unit = "environment steps of a seed" if "env_steps" in told else unit
        rows = rundir.read_metrics(path)
        for metric in FLAGS.metrics:
            split, _, name = metric.partition("/")
            xs, values = seeds.by_seed(rows, split, name, members)
            if not len(xs):
                there = sorted({f"{r['split']}/{k}" for r in rows for k in r if "/" not in k} - {"step", "split"})
                raise UserError(f"{path} has no metric {metric!r}; it has {', '.join(there)}")
            curves[f"{label}: {metric}" if len(FLAGS.metrics) > 1 else label] = (xs * scale, values)
    grid = min((xs for xs, _ in curves.values()), key=len)  # the coarsest: the others are read off there
    grid = grid[grid <= min(xs[-1] for xs, _ in curves.values())]
    read = {label: np.stack([np.interp(grid, xs, row) for row in values]) for label, (xs, values) in curves.items()}
    metrics = " and ".join(FLAGS.metrics)
    seeds.curves(Path(FLAGS.output), grid, read, metrics, unit, metrics)
    for label, values in read.items():
        print(
            f"{label}: {values[:, -1].mean():.4f} +- {values[:, -1].std(ddof=min(1, len(values) - 1)):.4f} in the end"
        )
    print(f"picture: {FLAGS.output}")


if __name__ == "__main__":
    common.launch(main)
