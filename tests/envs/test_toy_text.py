"""The tables of gymnasium's toy texts, entry by entry, and blackjack by the statistics of play."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.envs import blackjack, gridworlds, toy_text
from dlfx.envs.tabular import environment
from dlfx.ops.mdp import policy_values
from dlfx.ops.planning import synchronous
from dlfx.types import UserError

gymnasium = pytest.importorskip("gymnasium")


@pytest.mark.parametrize(
    "make, name, options, states",
    [
        (lambda: toy_text.frozen_lake("4x4"), "FrozenLake-v1", {"map_name": "4x4"}, 11),
        (lambda: toy_text.frozen_lake("8x8"), "FrozenLake-v1", {"map_name": "8x8"}, 53),
        (lambda: toy_text.frozen_lake("4x4", False), "FrozenLake-v1", {"map_name": "4x4", "is_slippery": False}, 11),
        (lambda: toy_text.frozen_lake("8x8", False), "FrozenLake-v1", {"map_name": "8x8", "is_slippery": False}, 53),
        (gridworlds.cliff, "CliffWalking-v1", {}, 37),
        (lambda: gridworlds.cliff(slippery=True), "CliffWalkingSlippery-v1", {}, 37),
        (toy_text.taxi, "Taxi-v4", {}, 400),
    ],
)
def test_every_entry_is_that_of_gymnasium(make, name, options, states):
    mdp, other = make(), gymnasium.make(name, **options).unwrapped
    np.testing.assert_allclose(mdp.start, other.initial_state_distrib, atol=1e-7)
    todo = list(np.flatnonzero(mdp.start))
    seen = set(todo)
    while todo:
        state = todo.pop()
        for action, outcomes in other.P[state].items():
            probability, gained = np.zeros((2, len(other.P)))
            for chance, successor, reward, terminated in outcomes:
                probability[successor] += chance
                gained[successor] += chance * reward
                assert terminated == mdp.terminal[successor]
                if not terminated and successor not in seen:
                    seen.add(successor)
                    todo.append(successor)
            np.testing.assert_allclose(mdp.transition[state, action], probability, atol=1e-6)
            np.testing.assert_allclose(mdp.transition[state, action] * mdp.reward[state, action], gained, atol=1e-5)
    assert len(seen) == states and mdp.transition.shape == (len(other.P), len(other.P[0]), len(other.P))


def test_an_unknown_map_is_refused():
    with pytest.raises(UserError, match="unknown map '4x5'; did you mean 4x4"):
        toy_text.frozen_lake("4x5")


def test_the_best_mean_return_of_the_taxi():
    """7.93 over all starts, as found by others; gymnasium's 8.46 counts the starts otherwise."""
    mdp = toy_text.taxi()._replace(gamma=np.float32(1))
    np.testing.assert_allclose((synchronous(mdp).values * mdp.start).sum(), 7.93, atol=1e-3)
    assert toy_text.taxi_state(3, 1, 4, 2) == gymnasium.make("Taxi-v4").unwrapped.encode(3, 1, 4, 2)


def threshold(total: int) -> np.ndarray:
    """Hit below a sum, [S] int32."""
    return np.array([hand.total < total for hand in blackjack.HANDS] + [False] * len(blackjack.ENDS), np.int32)


@pytest.mark.parametrize("sab, natural", [(True, False), (False, False), (False, True)])
def test_blackjack_is_gymnasiums_by_mean_return_and_bust_rate(sab, natural):
    mdp = blackjack.blackjack(sab, natural)
    other, games = gymnasium.make("Blackjack-v1", sab=sab, natural=natural).unwrapped, 6000
    observation, _ = other.reset(seed=1)
    returns, busts, naturals = np.zeros(games), np.zeros(games), np.zeros(games)
    for game in range(games):
        over = False
        while not over:
            hit = int(observation[0] < 18)
            observation, returns[game], over, _, _ = other.step(hit)
        busts[game], naturals[game] = observation[0] > 21, returns[game] == 1.5
        observation, _ = other.reset()
    values = policy_values(mdp, threshold(18))
    np.testing.assert_allclose((values * mdp.start).sum(), returns.mean(), atol=4 * returns.std() / games**0.5)

    def chance(action: int, end: str) -> float:
        """Of coming to an end by an action: the value of a process that pays for that alone."""
        paid = np.zeros_like(mdp.reward)
        paid[:, action, len(blackjack.HANDS) + list(blackjack.ENDS).index(end)] = 1
        return float((policy_values(mdp._replace(reward=paid), threshold(18)) * mdp.start).sum())

    for exact, seen in ((chance(1, "lose"), busts), (chance(0, "natural"), naturals)):
        assert abs(exact - seen.mean()) <= 4 * (exact * (1 - exact) / games) ** 0.5
    assert (chance(0, "natural") > 0.03) == natural


def test_only_a_natural_of_the_dealer_draws_against_one():
    book, casino = blackjack.blackjack(), blackjack.blackjack(sab=False, natural=True)
    draw, win, paid = (len(blackjack.HANDS) + list(blackjack.ENDS).index(end) for end in ("draw", "win", "natural"))
    for dealer in range(1, 11):
        natural, other = (blackjack.NUMBERS[blackjack.Hand(21, dealer, True, dealt)] for dealt in (True, False))
        tie = {1: 4 / 13, 10: 1 / 13}.get(dealer, 0)
        np.testing.assert_allclose(book.transition[natural, 0, [draw, win]], [tie, 1 - tie], atol=1e-6)
        np.testing.assert_array_equal(casino.transition[natural, 0, draw], casino.transition[other, 0, draw])
        assert (
            casino.transition[natural, 0, paid] == casino.transition[other, 0, win] and casino.reward[0, 0, paid] == 1.5
        )
        np.testing.assert_allclose(book.start[natural], 8 / 169 * (4 if dealer == 10 else 1) / 13, rtol=1e-5)


def test_playing_blackjack_has_the_exact_value_for_its_mean():
    mdp = blackjack.blackjack()
    env, policy = environment("blackjack", mdp), jnp.asarray(threshold(18))

    def step(carry, key):
        state, observation = carry
        state, timestep = jax.vmap(env.step)(jax.random.split(key, 256), state, policy[observation])
        return (state, timestep.observation), timestep

    first = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 256))
    _, seen = jax.jit(lambda first: jax.lax.scan(step, first, jax.random.split(jax.random.key(1), 400)))(first)
    returns = np.asarray(seen.reward)[np.asarray(seen.terminated)]
    exact = float((policy_values(mdp, policy) * mdp.start).sum())
    assert len(returns) > 40_000
    np.testing.assert_allclose(returns.mean(), exact, atol=4 * returns.std() / len(returns) ** 0.5)


def test_the_best_policy_of_blackjack_is_the_published_one():
    """Figure 5.2 of the textbook: the sum from which on to stick, for the dealer's ace, 2, 3, ... 10.

    The first 19 is the notch that Thorp's strategy does not have, as the book remarks.
    """
    mdp = blackjack.blackjack()
    found = synchronous(mdp)
    hits = {hand: bool(found.policy[number]) for hand, number in blackjack.NUMBERS.items()}
    for soft, published in ((False, [17, 13, 13, 12, 12, 12, 17, 17, 17, 17]), (True, [19] + [18] * 7 + [19, 19])):
        for dealer, stick in enumerate(published, start=1):
            for total in range(12, 22):
                assert hits[blackjack.Hand(total, dealer, soft)] == (total < stick), (total, dealer, soft)


def test_the_best_value_of_blackjack_by_recursion():
    """Over hands of cards, not over states, as gymnasium holds them."""
    deck = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10]

    def total(cards):
        return sum(cards) + 10 * (1 in cards and sum(cards) <= 11)

    def dealer(cards, chance, into):
        if total(cards) >= 17:
            into[total(cards) if total(cards) <= 21 else 0] = (
                into.get(total(cards) if total(cards) <= 21 else 0, 0) + chance
            )
            return into
        for card in deck:
            dealer((*cards, card), chance / 13, into)
        return into

    values = synchronous(blackjack.blackjack(sab=False)).values
    for shown in (1, 6):
        final = dealer((shown,), 1.0, {})

        def best(cards, final=final):
            if total(cards) > 21:
                return -1.0
            stick = sum(chance * np.sign(total(cards) - other) for other, chance in final.items())
            return max(stick, sum(best((*cards, card)) for card in deck) / 13) if total(cards) < 21 else stick

        for cards in ((10, 6), (10, 5), (1, 9)):
            hand = blackjack.Hand(total(cards), shown, 1 in cards)
            np.testing.assert_allclose(values[blackjack.NUMBERS[hand]], best(cards), atol=1e-5)
