"""The tabular worlds by name: tables, environment, and what it takes to draw them."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dlfx.envs import blackjack, gridworlds, pictures, textbook, toy_text
from dlfx.envs.tabular import environment
from dlfx.ops.mdp import MDP
from dlfx.types import Environment, unknown


class World(NamedTuple):
    """A Markov decision process with an environment of it and what figures of it show.

    Attributes:
      name: its name in `TABULAR`.
      mdp: the tables.
      environment: to act in; observations are the numbers of states.
      actions: the names of the actions.
      layout: `[rows, columns]` characters, where the world is a grid; state `row * columns + column`. `.` is free, `S`
        a start, `G` a goal, `#` a wall, `C` the cliff, `H` a hole; A leads to a, and B to b. None where it is no grid.
      arrows: `[A, 2]` int, (to the right, downward) of each action on the grid; None where it is no grid.
    """

    name: str
    mdp: MDP
    environment: Environment
    actions: tuple[str, ...]
    layout: np.ndarray | None = None
    arrows: np.ndarray | None = None


def world(name: str) -> World:
    """The world of that name.

    Raises:
      UserError: if `TABULAR` has no such name.
    """
    if name not in TABULAR:
        raise unknown("world", name, TABULAR)
    return TABULAR[name]()


def grid(
    name: str,
    mdp: MDP,
    layout: Sequence[str],
    actions: Mapping[str, tuple[int, int]] = gridworlds.COMPASS,
    max_steps: int = 0,
) -> World:
    """A world that is a grid: see `World` for the layout; actions are names with (down, right)."""
    kinds = np.array([list(row) for row in layout])
    made = environment(name, mdp, max_steps=max_steps, render=lambda state: pictures.grid(kinds, state))
    return World(name, mdp, made, tuple(actions), kinds, np.array(list(actions.values()))[:, ::-1])


def other(
    name: str, mdp: MDP, actions: Iterable[str], render: Callable[[Any], np.ndarray], max_steps: int = 0
) -> World:
    """A world that is no grid."""
    return World(name, mdp, environment(name, mdp, max_steps=max_steps, render=render), tuple(actions))


def walk(name: str, states: int, left: float, right: float) -> World:
    """A random walk, a grid of one row."""
    sides = {"left": (0, -1), "right": (0, 1)}
    return grid(name, gridworlds.random_walk(states, left, right), gridworlds.walk_line(states), sides)


def lake(name: str, map_name: str, slippery: bool, max_steps: int) -> World:
    """A frozen lake."""
    mdp = toy_text.frozen_lake(map_name, slippery)
    return grid(name, mdp, toy_text.LAKES[map_name], toy_text.LAKE_ACTIONS, max_steps)


def windy(name: str, kings: bool, stochastic: bool) -> World:
    """A windy gridworld."""
    actions = gridworlds.KINGS if kings else gridworlds.COMPASS
    return grid(name, gridworlds.windy(kings, stochastic), gridworlds.WINDY, actions)


def maze(name: str, layout: Sequence[str]) -> World:
    """A maze."""
    return grid(name, gridworlds.maze(layout), layout)


# Two worlds of a changing maze have the same states, so that one can follow the other in the middle of a run.
TABULAR: dict[str, Callable[[], World]] = {
    "gridworld4x4": lambda: grid("gridworld4x4", gridworlds.gridworld4x4(), gridworlds.FOUR),
    "gridworld5x5": lambda: grid("gridworld5x5", gridworlds.gridworld5x5(), gridworlds.FIVE),
    "windy": functools.partial(windy, "windy", kings=False, stochastic=False),
    "windy_king": functools.partial(windy, "windy_king", kings=True, stochastic=False),
    "windy_stochastic": functools.partial(windy, "windy_stochastic", kings=True, stochastic=True),
    "cliff": lambda: grid("cliff", gridworlds.cliff(), gridworlds.CLIFF),
    "cliff_slippery": lambda: grid("cliff_slippery", gridworlds.cliff(slippery=True), gridworlds.CLIFF),
    "dyna_maze": functools.partial(maze, "dyna_maze", gridworlds.DYNA),
    "blocking_maze": functools.partial(maze, "blocking_maze", gridworlds.OPEN_RIGHT),
    "blocking_maze_after": functools.partial(maze, "blocking_maze_after", gridworlds.OPEN_LEFT),
    "shortcut_maze": functools.partial(maze, "shortcut_maze", gridworlds.OPEN_LEFT),
    "shortcut_maze_after": functools.partial(maze, "shortcut_maze_after", gridworlds.OPEN_BOTH),
    "random_walk": functools.partial(walk, "random_walk", 5, 0.0, 1.0),
    "random_walk19": functools.partial(walk, "random_walk19", 19, -1.0, 1.0),
    "gambler": lambda: other(
        "gambler", textbook.gambler(), (f"stake {i + 1}" for i in range(textbook.STAKES)), pictures.gambler
    ),
    "car_rental": lambda: other(
        "car_rental", textbook.car_rental(), (f"move {i:+d}" for i in range(-5, 6)), pictures.car_rental
    ),
    "frozenlake4x4": functools.partial(lake, "frozenlake4x4", "4x4", slippery=True, max_steps=100),
    "frozenlake8x8": functools.partial(lake, "frozenlake8x8", "8x8", slippery=True, max_steps=200),
    "frozenlake4x4_deterministic": functools.partial(
        lake, "frozenlake4x4_deterministic", "4x4", slippery=False, max_steps=100
    ),
    "frozenlake8x8_deterministic": functools.partial(
        lake, "frozenlake8x8_deterministic", "8x8", slippery=False, max_steps=200
    ),
    "taxi": lambda: other("taxi", toy_text.taxi(), toy_text.TAXI_ACTIONS, pictures.taxi, max_steps=200),
    "blackjack": lambda: other("blackjack", blackjack.blackjack(), blackjack.ACTIONS, pictures.blackjack),
}
