"""The tabular tasks of gymnasium as Markov decision processes, state for state and action for action."""

import numpy as np

from dlfx.envs.gridworlds import Cell, Outcomes, clip, tabulate
from dlfx.ops.mdp import MDP, build
from dlfx.types import unknown

LAKES = {
    "4x4": ("S...", ".H.H", "...H", "H..G"),
    "8x8": ("S.......", "........", "...H....", ".....H..", "...H....", ".HH...H.", ".H..H.H.", "...H...G"),
}
LAKE_ACTIONS = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}

STANDS: tuple[Cell, ...] = ((0, 0), (0, 4), (4, 0), (4, 3))
TAXI_ACTIONS = {"south": (1, 0), "north": (-1, 0), "east": (0, 1), "west": (0, -1), "pick up": (0, 0), "drop": (0, 0)}
FENCES = frozenset({(0, 1), (1, 1), (3, 0), (4, 0), (3, 2), (4, 2)})  # cells with a fence on their east side


def frozen_lake(map_name: str = "4x4", slippery: bool = True) -> MDP:
    """Cross the ice to the goal, which gives 1; a hole ends the episode with 0. gamma 0.99.

    Args:
      map_name: `4x4` or `8x8`.
      slippery: the direction is the chosen one or one of the two across it, a third each.

    Source: gymnasium, FrozenLake-v1.
    """
    if map_name not in LAKES:
        raise unknown("map", map_name, LAKES)
    layout, arrows, turns = LAKES[map_name], list(LAKE_ACTIONS.values()), (-1, 0, 1) if slippery else (0,)

    def outcomes(cell: Cell, action: int) -> Outcomes:
        moves = [arrows[(action + turn) % 4] for turn in turns]
        entered = [clip(layout, cell[0] + down, cell[1] + right) for down, right in moves]
        return [(1 / len(turns), (row, column), float(layout[row][column] == "G")) for row, column in entered]

    return tabulate(layout, 4, outcomes, gamma=0.99, ends="GH")


def taxi_state(row: int, column: int, passenger: int, destination: int) -> int:
    """The number of a taxi's state: passenger 0 ... 3 at one of `STANDS`, 4 in the taxi."""
    return ((row * 5 + column) * 5 + passenger) * 4 + destination


def taxi() -> MDP:
    """Fetch a passenger at one of four stands and drop them at another: +20; -1 a step, -10 for a wrong pick or drop.

    gamma 0.99. The states whose passenger is at the destination are terminal; all but four of them are never entered.

    Source: Dietterich 2000, Hierarchical Reinforcement Learning with the MAXQ Value Function Decomposition; gymnasium,
    Taxi-v4 (no rain, no fickle passenger).
    """
    transition = np.zeros((500, 6, 500), np.float32)
    reward = np.zeros_like(transition)
    start, terminal = np.zeros(500, np.float32), np.zeros(500, bool)
    for state in range(500):
        row, column, passenger, destination = state // 100, state // 20 % 5, state // 4 % 5, state % 4
        terminal[state] = passenger == destination
        start[state] = (passenger < 4 and not terminal[state]) / 300
        for action in range(6):
            successor, gained = _drive((row, column), passenger, destination, action)
            transition[state, action, successor], reward[state, action, successor] = 1, gained
    return build(transition, reward, 0.99, start, terminal)


def _drive(cell: Cell, passenger: int, destination: int, action: int) -> tuple[int, float]:
    """The successor and the reward of an action of the taxi."""
    gained = -1.0
    if action < 4:
        down, right = list(TAXI_ACTIONS.values())[action]
        fenced = cell in FENCES if right == 1 else (cell[0], cell[1] - 1) in FENCES and right == -1
        if not fenced:
            cell = clip((".....",) * 5, cell[0] + down, cell[1] + right)
    elif action == 4:
        if passenger < 4 and cell == STANDS[passenger]:
            passenger = 4
        else:
            gained = -10.0
    elif passenger == 4 and cell in STANDS:
        passenger = STANDS.index(cell)
        gained = 20.0 if passenger == destination else -1.0
    else:
        gained = -10.0
    return taxi_state(*cell, passenger, destination), gained
