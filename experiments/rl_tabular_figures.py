"""What a table of values looks like: learning curves over seeds, value and policy maps, a greedy episode."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.envs import evaluation
from dlfx.envs.episodes import Clocked
from dlfx.envs.worlds import World
from dlfx.ops.mdp import best_actions
from dlfx.training import figures
from dlfx.types import Array, Key
from experiments import seeds


class Found(NamedTuple):
    """What a run came to.

    Attributes:
      world: that it was learned in.
      values: `[S]` or `[S, A]`, of the first seed.
      truth: `[S]` in prediction, otherwise None.
      rows: the lines of `metrics.jsonl`.
      seeds: of the members.
      block: environment steps in one step of the run; 0 where the step is something else.
    """

    world: World
    values: np.ndarray
    truth: np.ndarray | None
    rows: list[dict[str, Any]]
    seeds: tuple[int, ...]
    block: int


def draw(directory: Path, found: Found, seed: int, limit: int) -> None:
    """Curves with bands, maps of a grid, estimated against true values, and one greedy episode as a GIF."""
    unit = "environment steps of a seed" if found.block else "steps"
    shown = [("train", "return", "return while exploring")]
    shown += [("eval", "return", "greedy return"), ("eval", "rms_loss", "RMS error of the values")]
    for split, name, ylabel in shown:
        steps, values = seeds.by_seed(found.rows, split, name, found.seeds)
        path, title = directory / f"{split}_{name}.png", f"{found.world.name}: {ylabel}"
        seeds.curves(path, steps * max(found.block, 1), {ylabel: values}, title, unit, ylabel)
    if found.truth is not None:
        estimates(directory / "values.png", found)
        return
    states = greedy_episode(directory / "episode.gif", found, seed, limit)
    if found.world.layout is None:
        lists(directory / "values.png", found.world, found.values)
    else:
        maps(directory / "values.png", found.world, found.values, states)


def estimates(path: Path, found: Found) -> None:
    """Estimated values of the first seed beside the true ones, of the states that are not terminal."""
    assert found.truth is not None
    free = np.flatnonzero(~np.asarray(found.world.mdp.terminal))
    axes = (figure := figures.new_figure(6.4, 4.0)).subplots()
    axes.plot(free, found.truth[free], color="black", marker="o", markersize=4, label="true")
    axes.plot(free, found.values[free], marker="x", linestyle="--", label=f"estimated, seed {found.seeds[0]}")
    axes.set(xlabel="state", ylabel="value", title=f"{found.world.name}: values of the uniform policy")
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def greedy_episode(path: Path, found: Found, seed: int, limit: int) -> np.ndarray:
    """Records a greedy episode as a GIF; the states `[T]` that it went through, with the last one."""
    chosen, env = found.values.argmax(-1).astype(np.int32), found.world.environment

    def policy(_: Key, observations: Array) -> tuple[Array, Array]:
        return jnp.asarray(chosen)[observations], jnp.zeros(observations.shape)

    seen = evaluation.record(env, policy, jax.random.key(seed), min(env.max_steps or limit, 200))
    pictures = [env.render(jax.tree.map(lambda x, t=t: x[t], seen.states)) for t in range(len(seen.actions))]
    states = np.asarray(seen.observations)
    if seen.terminated:  # its last state was replaced by the first of the next episode
        ends = np.asarray(found.world.mdp.transition)[states[-1], seen.actions[-1]] > 0
        ends &= np.asarray(found.world.mdp.terminal)
        states = np.append(states, np.flatnonzero(ends)[0])
        pictures.append(env.render(Clocked(states[-1], jnp.int32(0))))
    figures.animation(path, pictures, 5)
    return states


def lists(path: Path, world: World, q: np.ndarray) -> None:
    """The value and the greedy action of every state, by its number, where the world is no grid."""
    free = np.flatnonzero(~np.asarray(world.mdp.terminal))
    figure = figures.new_figure(7.0, 5.2)
    figure.suptitle(f"{world.name}: values and greedy actions of the first seed")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(free, q[free].max(-1), ".", markersize=4)
    above.set(ylabel="max Q(s, a)")
    # The first of those that are equally good: where stakes or moves tie, that is the smallest.
    below.plot(free, np.asarray(best_actions(jnp.asarray(q)))[free].argmax(-1), ".", markersize=4)
    below.set(xlabel="state", ylabel="greedy action")
    if len(world.actions) <= 12:
        below.set_yticks(range(len(world.actions)), world.actions)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figures.save(figure, path)


def maps(path: Path, world: World, q: np.ndarray, states: np.ndarray) -> None:
    """The values `max_a Q(s, a)` as colours, and the greedy actions as arrows with the way of one episode."""
    assert world.layout is not None and world.arrows is not None
    rows, columns = world.layout.shape
    free = ~np.asarray(world.mdp.terminal).reshape(rows, columns)
    figure = figures.new_figure(min(2 * (0.62 * columns + 1.2), 16), 0.62 * rows + 1.6)
    figure.suptitle(f"{world.name}: values and greedy actions of the first seed")
    left, right = figure.subplots(1, 2)
    best = np.where(free, q.max(-1).reshape(rows, columns), np.nan)
    figure.colorbar(left.imshow(best, cmap="viridis"), ax=left, shrink=0.7)
    low, high = np.nanmin(best), np.nanmax(best)
    for (row, column), value in np.ndenumerate(best):
        if free[row, column]:
            color = "white" if value < (low + high) / 2 else "black"
            left.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=6, color=color)
    left.set_title("max Q(s, a)")
    right.imshow(np.where(free, 1.0, 0.75), cmap="gray", vmin=0, vmax=1)
    ties = np.asarray(best_actions(jnp.asarray(q))) & (q.max(-1, keepdims=True) > q.min(-1, keepdims=True))
    for state, action in zip(*np.nonzero(ties & free.reshape(-1, 1)), strict=True):
        row, column = divmod(int(state), columns)
        across, down = 0.36 * world.arrows[action] / np.abs(world.arrows[action]).max()
        right.annotate("", (column + across, row + down), (column, row), arrowprops={"arrowstyle": "->", "lw": 0.9})
    right.plot(states % columns, states // columns, color="#ee6677", linewidth=3, alpha=0.5)
    for axes in (left, right):
        for (row, column), kind in np.ndenumerate(world.layout):
            if kind != "." and (axes is right or not free[row, column]):
                axes.text(column - 0.42, row - 0.2, kind, fontsize=7, color="#aa3377")
        axes.set(xticks=[], yticks=[])
    right.set_title(f"greedy actions, {len(states) - 1} steps of one episode")
    figures.save(figure, path)
