"""Gridworlds as Markov decision processes, from a map of characters and the arrows of the actions."""

from collections.abc import Callable, Sequence

import numpy as np

from dlfx.ops.mdp import MDP, build

Cell = tuple[int, int]
Outcomes = list[tuple[float, Cell, float]]  # probability, cell entered, reward

# (down, right) of each action; the order is also that of the actions' names.
COMPASS = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
KINGS = COMPASS | {"up-right": (-1, 1), "down-right": (1, 1), "down-left": (1, -1), "up-left": (-1, -1)}

FOUR = ("G...", "....", "....", "...G")
FIVE = (".A.B.", ".....", "...b.", ".....", ".a...")
WINDY = ("..........", "..........", "..........", "S......G..", "..........", "..........", "..........")
WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
CLIFF = ("............", "............", "............", "SCCCCCCCCCCG")
DYNA = (".......#G", "..#....#.", "S.#....#.", "..#......", ".....#...", ".........")
OPEN_RIGHT = ("........G", ".........", ".........", "########.", ".........", "...S.....")
OPEN_LEFT = ("........G", ".........", ".........", ".########", ".........", "...S.....")
OPEN_BOTH = ("........G", ".........", ".........", ".#######.", ".........", "...S.....")


def walk_line(states: int) -> tuple[str, ...]:
    """The map of a random walk: the inner states between two ends."""
    return ("G" + "." * states + "G",)


def tabulate(
    layout: Sequence[str], num_actions: int, outcomes: Callable[[Cell, int], Outcomes], gamma: float, ends: str = "G"
) -> MDP:
    """A gridworld from what each action does in each cell; state `row * columns + column`.

    Args:
      layout: rows of characters. `S`: a start, every free cell if there is none; `#` and `C`: a wall and a cliff, cells
        that nothing ever enters. They count as terminal, so that no method spends its time on their values.
      num_actions: how many actions there are.
      outcomes: (cell, action) to a list of (probability, cell entered, reward); asked of the free cells.
      gamma: the discount.
      ends: the characters of the cells that end an episode.
    """
    kinds = np.array([list(row) for row in layout])
    rows, columns = kinds.shape
    states = rows * columns
    transition, gained = np.zeros((2, states, num_actions, states))
    terminal = np.isin(kinds, [*ends, "#", "C"]).reshape(-1)
    for state in np.flatnonzero(~terminal):
        for action in range(num_actions):
            for probability, (row, column), reward in outcomes((state // columns, state % columns), action):
                transition[state, action, row * columns + column] += probability
                gained[state, action, row * columns + column] += probability * reward
    reward = np.divide(gained, transition, out=np.zeros_like(gained), where=transition > 0)
    start = (kinds == "S").reshape(-1) if (kinds == "S").any() else ~terminal
    return build(transition, reward, gamma, start / start.sum(), terminal)


def clip(layout: Sequence[str], down: int, right: int) -> Cell:
    """The cell of the grid nearest to (row `down`, column `right`)."""
    return min(max(down, 0), len(layout) - 1), min(max(right, 0), len(layout[0]) - 1)


def gridworld4x4() -> MDP:
    """Sixteen cells, two opposite corners terminal, -1 a step, gamma 1; starts anywhere.

    Source: Sutton and Barto 2018, example 4.1.
    """
    return tabulate(FOUR, 4, _walking(FOUR, -1.0, -1.0), gamma=1.0)


def gridworld5x5() -> MDP:
    """A continuing task: -1 for bumping into the edge; any action in A leads to a with +10, in B to b with +5.

    Source: Sutton and Barto 2018, example 3.5.
    """
    arrows = list(COMPASS.values())
    jumps = {(0, 1): ((4, 1), 10.0), (0, 3): ((2, 3), 5.0)}

    def outcomes(cell: Cell, action: int) -> Outcomes:
        if cell in jumps:
            return [(1.0, *jumps[cell])]
        entered = clip(FIVE, cell[0] + arrows[action][0], cell[1] + arrows[action][1])
        return [(1.0, entered, -1.0 if entered == cell else 0.0)]

    return tabulate(FIVE, 4, outcomes, gamma=0.9, ends="")


def windy(kings: bool = False, stochastic: bool = False) -> MDP:
    """A crosswind blows upward, as strong as the column that is left has it; -1 a step, gamma 1; 15 steps at best.

    Args:
      kings: eight moves instead of four; then the shortest way takes 7 steps.
      stochastic: where there is wind, it is one weaker, as given, or one stronger, a third each.

    Source: Sutton and Barto 2018, example 6.5, exercises 6.9 (kings) and 6.10 (stochastic).
    """
    arrows = list((KINGS if kings else COMPASS).values())

    def outcomes(cell: Cell, action: int) -> Outcomes:
        wind = WIND[cell[1]]
        gusts = (wind - 1, wind, wind + 1) if stochastic and wind else (wind,)
        down, right = arrows[action]
        return [(1 / len(gusts), clip(WINDY, cell[0] + down - gust, cell[1] + right), -1.0) for gust in gusts]

    return tabulate(WINDY, len(arrows), outcomes, gamma=1.0)


def maze(layout: Sequence[str] = DYNA) -> MDP:
    """A maze: +1 on reaching the goal, 0 otherwise, gamma 0.95; moves into walls and edges lead nowhere.

    Args:
      layout: `DYNA`, shortest way 14 steps. `OPEN_RIGHT`, 10 steps, then `OPEN_LEFT`, 16: the blocking maze.
        `OPEN_LEFT`, then `OPEN_BOTH`, 10: the shortcut maze. These three share their states' numbers.

    Source: Sutton and Barto 2018, examples 8.1, 8.2 and 8.3.
    """
    return tabulate(layout, 4, _walking(layout, 0.0, 1.0), gamma=0.95)


def cliff(slippery: bool = False) -> MDP:
    """Cliff walking: -1 a step; off the cliff -100 and back to the start. The shortest way takes 13 steps.

    Args:
      slippery: the direction is the chosen one or one of the two across it, a third each, as gymnasium's
        CliffWalkingSlippery-v1 has it.

    Source: Sutton and Barto 2018, example 6.6.
    """
    arrows, turns = list(COMPASS.values()), ((-1, 0, 1) if slippery else (0,))

    def outcomes(cell: Cell, action: int) -> Outcomes:
        found: Outcomes = []
        for turn in turns:
            down, right = arrows[(action + turn) % 4]
            entered = clip(CLIFF, cell[0] + down, cell[1] + right)
            fell = CLIFF[entered[0]][entered[1]] == "C"
            found.append((1 / len(turns), (3, 0) if fell else entered, -100.0 if fell else -1.0))
        return found

    return tabulate(CLIFF, 4, outcomes, gamma=1.0)


def random_walk(states: int = 5, left: float = 0.0, right: float = 1.0) -> MDP:
    """A walk on a line from the middle until it leaves at an end; only leaving is rewarded.

    Under the random policy `v(i) = left + (right - left) i / (states + 1)`, i = 1 ... states.

    Args:
      states: inner states 1 ... states; 0 and states + 1 are the terminal ends. Actions: 0 is left, 1 is right.
      left: the reward of leaving on the left.
      right: the reward of leaving on the right.

    Source: Sutton and Barto 2018, example 6.2 (five states, 0 and 1) and 7.1 (nineteen states, -1 and 1).
    """
    rewards = {0: left, states + 1: right}

    def outcomes(cell: Cell, action: int) -> Outcomes:
        column = cell[1] + (1 if action else -1)
        return [(1.0, (0, column), rewards.get(column, 0.0))]

    mdp = tabulate(walk_line(states), 2, outcomes, gamma=1.0)
    return mdp._replace(start=np.eye(states + 2, dtype=np.float32)[(states + 1) // 2])


def _walking(layout: Sequence[str], step: float, goal: float) -> Callable[[Cell, int], Outcomes]:
    """Moves in the four directions of the compass that stop at edges and walls."""
    arrows = list(COMPASS.values())

    def outcomes(cell: Cell, action: int) -> Outcomes:
        entered = clip(layout, cell[0] + arrows[action][0], cell[1] + arrows[action][1])
        kind = layout[entered[0]][entered[1]]
        return [(1.0, cell if kind == "#" else entered, goal if kind == "G" else step)]

    return outcomes
