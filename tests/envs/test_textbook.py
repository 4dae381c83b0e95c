"""The gambler and the car rental, against the published results and other ways to them."""

import numpy as np
import pytest
import scipy.stats

from dlfx.envs import textbook
from dlfx.ops.mdp import best_actions, q_values
from dlfx.ops.planning import VALUE_ITERATION, policy_iteration, synchronous


@pytest.mark.parametrize("sweep", VALUE_ITERATION)
def test_the_gambler_of_the_book(sweep):
    mdp = textbook.gambler(0.4)
    found = VALUE_ITERATION[sweep](mdp, tolerance=1e-7)
    np.testing.assert_allclose(found.values[np.array([25, 50, 75])], [0.16, 0.4, 0.64], atol=1e-5)
    best = best_actions(q_values(mdp, found.values), 1e-5)
    assert all(best[capital, min(capital, 100 - capital) - 1] for capital in range(1, 100))


def test_the_gamblers_value_is_that_of_bold_play():
    """`v(s) = 0.4 v(2 s)` up to the middle, `0.4 + 0.6 v(2 s - 100)` above it; forty flips in a row are rare."""

    def bold(capital, depth=40):
        if capital in (0, 100) or depth == 0:
            return float(capital == 100)
        if capital <= 50:
            return 0.4 * bold(2 * capital, depth - 1)
        return 0.4 + 0.6 * bold(2 * capital - 100, depth - 1)

    values = synchronous(textbook.gambler(0.4), tolerance=0).values
    np.testing.assert_allclose(values[1:-1], [bold(capital) for capital in range(1, 100)], atol=1e-5)


def test_a_stake_is_never_more_than_there_is_or_is_missing():
    mdp = textbook.gambler(0.25)
    for capital, action, won, lost in ((10, 2, 13, 7), (10, 49, 20, 0), (95, 49, 100, 90), (50, 49, 100, 0)):
        assert mdp.transition[capital, action, won] == 0.25 and mdp.transition[capital, action, lost] == 0.75
        assert mdp.reward[capital, action, won] == (won == 100) and mdp.reward[capital, action, lost] == 0


def rental_by_enumeration(values, n, m, moved):
    """The value of moving cars, by going through rentals and returns up to a few dozen: no tables."""
    n, m = min(n - moved, 20), min(m + moved, 20)
    many = np.arange(40)
    sides = []
    for cars, requests, returns in ((n, 3, 3), (m, 4, 2)):
        rented = np.minimum(many, cars)
        evening = np.minimum(cars - rented[:, None] + many[None, :], 20)
        chance = scipy.stats.poisson.pmf(many, requests)[:, None] * scipy.stats.poisson.pmf(many, returns)[None, :]
        sides.append((np.bincount(evening.ravel(), chance.ravel(), 21), 10 * (chance.sum(1) * rented).sum()))
    (first, paid), (second, paid2) = sides
    return paid + paid2 - 2 * abs(moved) + 0.9 * first @ values @ second


def test_the_car_rental_of_the_book():
    mdp, nothing = textbook.car_rental(), np.full(441, textbook.MOVES)
    found = policy_iteration(mdp, nothing)
    assert found.iterations == 4
    assert (policy_iteration(mdp, nothing, limit=3).policy != found.policy).any()
    values, policy = np.float64(found.values).reshape(21, 21), np.asarray(found.policy).reshape(21, 21) - 5
    assert (policy.min(), policy.max()) == (-4, 5)
    np.testing.assert_allclose((values.min(), values[0, 0]), (421.4, 421.4), atol=0.1)
    # Optimality, equation 4.1, in every state by enumeration.
    for n, m in [(0, 0), (20, 0), (0, 20), (20, 20), (7, 1), (3, 15), (12, 8), (1, 10)]:
        moves = {moved: rental_by_enumeration(values, n, m, moved) for moved in range(max(-5, -m), min(5, n) + 1)}
        np.testing.assert_allclose(values[n, m], max(moves.values()), atol=0.02)
        assert moves[policy[n, m]] >= max(moves.values()) - 0.02


def test_policy_iteration_of_the_car_rental_in_numpy():
    """The classic loop in double precision, from scipy's distributions, ends in the same policy."""
    mdp, many = textbook.car_rental(), np.arange(40)

    def day(requests, returns):
        chance, paid = np.zeros((21, 21)), np.zeros(21)
        for cars in range(21):
            rented = np.minimum(many, cars)
            evening = np.minimum(cars - rented[:, None] + many[None, :], 20)
            joint = np.outer(scipy.stats.poisson.pmf(many, requests), scipy.stats.poisson.pmf(many, returns))
            chance[cars], paid[cars] = np.bincount(evening.ravel(), joint.ravel(), 21), 10 * (joint.sum(1) @ rented)
        return chance, paid

    (first, paid), (second, paid2) = day(3, 3), day(4, 2)
    policy, improvements = np.zeros((21, 21), int), -1
    n, m = np.indices((21, 21))
    changed = True
    while changed:
        improvements += 1
        after_n, after_m = np.minimum(n - policy, 20), np.minimum(m + policy, 20)
        chain = (first[after_n][..., :, None] * second[after_m][..., None, :]).reshape(441, 441)
        gained = (paid[after_n] + paid2[after_m] - 2 * abs(policy)).ravel()
        values = np.linalg.solve(np.eye(441) - 0.9 * chain, gained).reshape(21, 21)
        expected = first @ values @ second.T  # by morning
        q = np.full((11, 21, 21), -np.inf)
        for i, moved in enumerate(range(-5, 6)):
            allowed = (moved <= n) & (-moved <= m)
            mornings = np.clip(n - moved, 0, 20), np.clip(m + moved, 0, 20)
            q[i][allowed] = (paid[:, None] + paid2 + 0.9 * expected)[mornings][allowed] - 2 * abs(moved)
        better = q.argmax(0) - 5
        changed, policy = (better != policy).any(), better
    found = policy_iteration(mdp, np.full(441, 5))
    assert improvements == found.iterations == 4
    np.testing.assert_array_equal(np.asarray(found.policy).reshape(21, 21) - 5, policy)
    np.testing.assert_allclose(np.asarray(found.values).reshape(21, 21), values, atol=0.01)
