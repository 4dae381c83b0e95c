"""The curves of two players, from the lines of `metrics.jsonl`."""

from pathlib import Path
from typing import Any

from dlfx.training import figures
from experiments import seeds


def curves(path: Path, rows: list[dict[str, Any]], run_seeds: tuple[int, ...], probabilities: bool) -> None:
    """The losses of both players, and what the critic says of real and generated examples, over the steps."""
    figure = figures.new_figure(10.5, 3.8)
    left, right = figure.subplots(1, 2)
    lines = (
        (left, "critic_loss", "critic", "#4477aa"),
        (left, "generator_loss", "generator", "#ee6677"),
        (right, "d_real", "D(x), real", "#4477aa"),
        (right, "d_fake", "D(G(z)), generated", "#ee6677"),
    )
    for axes, name, label, color in lines:
        steps, values = seeds.by_seed(rows, "train", name, run_seeds)
        if not len(steps):
            continue
        axes.plot(steps, values.mean(0), color=color, label=label, linewidth=1.4)
        if len(values) > 1:
            axes.plot(steps, values.T, color=color, alpha=0.25, linewidth=0.6)
    if probabilities:
        right.axhline(0.5, color="black", linestyle=":", linewidth=1, label="equilibrium, 1/2")
        right.set_ylim(0, 1)
    else:
        (steps, real), (_, fake) = (seeds.by_seed(rows, "train", name, run_seeds) for name in ("d_real", "d_fake"))
        right.plot(steps, (real - fake).mean(0), color="black", linestyle="--", linewidth=1, label="their difference")
    members = f", mean of {len(run_seeds)} seeds" if len(run_seeds) > 1 else ""
    left.set(xlabel="step", ylabel="loss", title=f"losses of the players{members}")
    ylabel = "probability of being real" if probabilities else "output of the critic"
    right.set(xlabel="step", ylabel=ylabel, title=f"what the critic says{members}")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figures.save(figure, path)
