"""Gridworlds: the lengths of the shortest ways that the textbook tells, and single moves by hand."""

import numpy as np
import pytest

from dlfx.envs import gridworlds
from dlfx.envs.gridworlds import COMPASS, KINGS, OPEN_BOTH, OPEN_LEFT, OPEN_RIGHT
from dlfx.ops.mdp import policy_values, uniform
from dlfx.ops.planning import synchronous


def follow(mdp, policy, limit=100):
    """The states of the greedy path from the start of a process without chance."""
    path = [int(mdp.start.argmax())]
    while not mdp.terminal[path[-1]] and len(path) <= limit:
        path.append(int(mdp.transition[path[-1], policy[path[-1]]].argmax()))
    return path


@pytest.mark.parametrize(
    "mdp, steps",
    [
        (gridworlds.windy(), 15),
        (gridworlds.windy(kings=True), 7),
        (gridworlds.cliff(), 13),
        (gridworlds.maze(), 14),
        (gridworlds.maze(OPEN_RIGHT), 10),
        (gridworlds.maze(OPEN_LEFT), 16),
        (gridworlds.maze(OPEN_BOTH), 10),
    ],
    ids=["windy", "kings", "cliff", "dyna", "open right", "open left", "open both"],
)
def test_the_shortest_way_is_as_long_as_in_the_book(mdp, steps):
    found = synchronous(mdp)
    assert len(follow(mdp, found.policy)) == steps + 1
    value = 0.95 ** (steps - 1) if mdp.gamma < 1 else -steps
    np.testing.assert_allclose(found.values[mdp.start.argmax()], value, rtol=1e-5)


@pytest.mark.parametrize("states, left, right", [(5, 0.0, 1.0), (19, -1.0, 1.0), (4, 2.0, -3.0)])
def test_the_random_walk_is_worth_a_straight_line(states, left, right):
    mdp = gridworlds.random_walk(states, left, right)
    line = left + (right - left) * np.arange(states + 2) / (states + 1)
    np.testing.assert_allclose(policy_values(mdp, uniform(mdp))[1:-1], line[1:-1], atol=1e-5)
    assert mdp.start.sum() == mdp.start[(states + 1) // 2] == 1


def go(mdp, columns, cell, action):
    """Where certainty leads, and its reward."""
    state = cell[0] * columns + cell[1]
    successor = mdp.transition[state, action].argmax()
    assert mdp.transition[state, action, successor] == 1
    return divmod(successor, columns), mdp.reward[state, action, successor]


def test_the_wind_of_the_column_that_is_left_blows_upward():
    mdp, up, right, down, left = gridworlds.windy(), *range(4)
    assert list(COMPASS) == ["up", "right", "down", "left"]
    assert go(mdp, 10, (3, 0), right) == ((3, 1), -1)
    assert go(mdp, 10, (3, 2), right) == ((3, 3), -1)  # no wind yet in column 2
    assert go(mdp, 10, (3, 3), right) == ((2, 4), -1)
    assert go(mdp, 10, (3, 6), right) == ((1, 7), -1)
    assert go(mdp, 10, (3, 8), left) == ((2, 7), -1)
    assert go(mdp, 10, (1, 7), down) == ((0, 7), -1)
    assert go(mdp, 10, (0, 6), up) == ((0, 6), -1)
    kings = gridworlds.windy(kings=True)
    assert go(kings, 10, (3, 3), list(KINGS).index("down-right")) == ((3, 4), -1)


def test_a_stochastic_wind_varies_by_one_where_there_is_any():
    mdp = gridworlds.windy(kings=True, stochastic=True)
    spread = mdp.transition[3 * 10 + 6, 1].reshape(7, 10)  # to the right in a wind of two
    np.testing.assert_allclose(spread[:, 7], [1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0], atol=1e-6)
    assert go(mdp, 10, (3, 0), 1) == ((3, 1), -1)


def test_the_cliff_leads_back_to_the_start_and_walls_and_edges_nowhere():
    cliff, maze = gridworlds.cliff(), gridworlds.maze()
    assert go(cliff, 12, (2, 5), 2) == ((3, 0), -100) and go(cliff, 12, (3, 0), 1) == ((3, 0), -100)
    assert go(cliff, 12, (2, 11), 2) == ((3, 11), -1) and cliff.terminal[47] and cliff.start[36] == 1
    assert go(maze, 9, (2, 1), 1) == ((2, 1), 0) and go(maze, 9, (2, 0), 3) == ((2, 0), 0)
    assert go(maze, 9, (1, 8), 0) == ((0, 8), 1) and go(maze, 9, (2, 0), 0) == ((1, 0), 0)
    assert maze.transition[~maze.terminal][..., [2 * 9 + 2, 7]].sum() == 0  # nothing enters a wall


def test_the_jumps_and_the_edges_of_the_5x5_gridworld():
    mdp = gridworlds.gridworld5x5()
    for action in range(4):
        assert go(mdp, 5, (0, 1), action) == ((4, 1), 10) and go(mdp, 5, (0, 3), action) == ((2, 3), 5)
    assert go(mdp, 5, (0, 0), 0) == ((0, 0), -1) and go(mdp, 5, (0, 0), 1) == ((0, 1), 0)
    assert not mdp.terminal.any()


def test_the_mazes_before_and_after_share_their_states():
    before, after = gridworlds.maze(OPEN_LEFT), gridworlds.maze(OPEN_BOTH)
    differs = (before.transition != after.transition).any((1, 2))
    # Only the opened cell and those above and below it.
    assert set(np.flatnonzero(differs)) == {2 * 9 + 8, 3 * 9 + 8, 4 * 9 + 8}
    np.testing.assert_array_equal(before.start, after.start)
