"""The gambler and the car rental of the textbook, as Markov decision processes."""

import math

import numpy as np

from dlfx.ops.mdp import MDP, build

GOAL = 100  # dollars
STAKES = 50
CARS = 20  # the most at one place
MOVES = 5  # the most in a night
DAY = ((3, 3), (4, 2))  # mean requests and mean returns of the two places


def gambler(heads: float = 0.4) -> MDP:
    """Stake on the flips of a coin until the capital is 0 or 100, which gives 1; gamma 1.

    State s is the capital, action a the stake a + 1; never more than the capital, or than is missing. Every capital
    between the ends is as likely to begin with; the book gives no start.

    Args:
      heads: the probability that a flip is won.

    Source: Sutton and Barto 2018, example 4.3.
    """
    transition = np.zeros((GOAL + 1, STAKES, GOAL + 1), np.float32)
    reward = np.zeros_like(transition)
    for capital in range(1, GOAL):
        for action in range(STAKES):
            stake = min(action + 1, capital, GOAL - capital)
            transition[capital, action, capital + stake] = heads
            transition[capital, action, capital - stake] = 1 - heads
    reward[:, :, GOAL] = 1
    terminal = np.isin(np.arange(GOAL + 1), (0, GOAL))
    start = ~terminal / (GOAL - 1)
    return build(transition, reward, 1.0, start, terminal)


def car_rental() -> MDP:
    """Two places that rent cars, and a van to move cars between them by night: $10 a rental, $2 a move; gamma 0.9.

    State `21 n + m`: n and m cars at the first and the second place in the evening. Action a moves a - 5 cars from the
    first to the second; never more than there are, but asking for more costs as much. More than 20 cars at a place are
    given away, also after a move. The reward is the one expected when the next evening's cars are known. Every state
    is as likely to begin with.

    Source: Sutton and Barto 2018, example 4.2.
    """
    size = CARS + 1
    (stay, paid), (stay2, paid2) = (_day(*means) for means in DAY)
    transition = np.zeros((size, size, 2 * MOVES + 1, size, size), np.float32)
    reward = np.zeros_like(transition)
    for n, m, action in np.ndindex(size, size, 2 * MOVES + 1):
        moved = max(min(action - MOVES, n), -m)
        first, second = min(n - moved, CARS), min(m + moved, CARS)
        transition[n, m, action] = np.outer(stay[first], stay2[second])
        reward[n, m, action] = paid[first][:, None] + paid2[second][None, :] - 2 * abs(action - MOVES)
    shape = (size**2, 2 * MOVES + 1, size**2)
    start = np.full(size**2, 1 / size**2)
    return build(transition.reshape(shape), reward.reshape(shape), 0.9, start, np.zeros(size**2, bool))


def _day(requests: float, returns: float) -> tuple[np.ndarray, np.ndarray]:
    """For cars in the morning (row) and in the evening (column): the chance, and the rentals' price expected then."""
    size = CARS + 1
    chance, paid = np.zeros((2, size, size))
    for morning in range(size):
        for rented, rent_chance in enumerate(_capped_poisson(requests, morning)):
            left = morning - rented
            for returned, return_chance in enumerate(_capped_poisson(returns, CARS - left)):
                chance[morning, left + returned] += rent_chance * return_chance
                paid[morning, left + returned] += rent_chance * return_chance * 10 * rented
    return chance, paid / chance


def _capped_poisson(mean: float, most: int) -> np.ndarray:
    """The distribution of min(Poisson, most), `[most + 1]`."""
    chances = np.array([math.exp(-mean) * mean**k / math.factorial(k) for k in range(most + 1)])
    chances[-1] += 1 - chances.sum()
    return chances
