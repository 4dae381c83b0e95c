"""Blackjack against an infinite deck, as a Markov decision process."""

import functools
from typing import NamedTuple

import numpy as np

from dlfx.ops.mdp import MDP, build

CARDS = {card: (4 if card == 10 else 1) / 13 for card in range(1, 11)}  # 1 is the ace; jack, queen and king are tens
ENDS = {"lose": -1.0, "draw": 0.0, "win": 1.0, "natural": 1.5}  # the terminal states and the reward of entering them
ACTIONS = ("stick", "hit")


class Hand(NamedTuple):
    """What the player sees, and whether it is an ace and a ten dealt at once, which looks like any other 21.

    Attributes:
      total: the player's sum, an ace counted as 11 where `soft`.
      dealer: the dealer's card, 1 ... 10.
      soft: whether the player has an ace counted as 11, a usable one.
      natural: whether the 21 was dealt.
    """

    total: int
    dealer: int
    soft: bool
    natural: bool = False


HANDS = tuple(
    [Hand(total, dealer, False) for total in range(4, 22) for dealer in range(1, 11)]
    + [Hand(total, dealer, True) for total in range(12, 22) for dealer in range(1, 11)]
    + [Hand(21, dealer, True, True) for dealer in range(1, 11)]
)  # by number of state; the ends come after them
NUMBERS = {hand: number for number, hand in enumerate(HANDS)}


def blackjack(sab: bool = True, natural: bool = False) -> MDP:
    """Draw cards towards 21 without going over; the dealer then draws to 17. +1 for a win, -1 for a loss; gamma 1.

    A state is a `Hand`, numbered as in `HANDS`; then come the four ends. Action 0 is stick, 1 is hit.

    Args:
      sab: the rules of the book: a natural beats every hand of the dealer but another natural.
      natural: without `sab`, a natural that wins pays 1.5, but only draws against any other 21.

    Source: Sutton and Barto 2018, example 5.1; gymnasium, Blackjack-v1.
    """
    states = len(HANDS) + len(ENDS)
    end = {name: len(HANDS) + i for i, name in enumerate(ENDS)}
    transition = np.zeros((states, 2, states))
    start = np.zeros(states)
    for state, hand in enumerate(HANDS):
        for card, chance in CARDS.items():
            drawn = _take(hand, card)
            transition[state, 1, end["lose"] if drawn is None else NUMBERS[drawn]] += chance
        for name, chance in _showdown(hand, sab, natural).items():
            transition[state, 0, end[name]] += chance
    for first, chance in CARDS.items():
        for second, again in CARDS.items():
            ace = 1 in (first, second)
            total = first + second + 10 * ace
            for dealer, shown in CARDS.items():
                start[NUMBERS[Hand(total, dealer, ace, total == 21)]] += chance * again * shown
    reward = np.zeros_like(transition)
    for name, gained in ENDS.items():
        reward[:, :, end[name]] = gained
    return build(transition, reward, 1.0, start, np.arange(states) >= len(HANDS))


def _take(hand: Hand, card: int) -> Hand | None:
    """The hand with one more card; None above 21."""
    total, soft = hand.total + card, hand.soft
    if card == 1 and total + 10 <= 21 and not soft:
        total, soft = total + 10, True
    if total > 21 and soft:
        total, soft = total - 10, False
    return Hand(total, hand.dealer, soft) if total <= 21 else None


@functools.cache
def _dealer(total: int, soft: bool, cards: int) -> dict[tuple[int, bool], float]:
    """The chances of the dealer's final (sum, natural) from a sum so far; a sum of 0 is above 21."""
    if total >= 17:
        return {(total, total == 21 and cards == 2): 1.0}
    chances: dict[tuple[int, bool], float] = {}
    for card, chance in CARDS.items():
        drawn = _take(Hand(total, 0, soft), card)
        further = {(0, False): 1.0} if drawn is None else _dealer(drawn.total, drawn.soft, cards + 1)
        for final, part in further.items():
            chances[final] = chances.get(final, 0.0) + chance * part
    return chances


def _showdown(hand: Hand, sab: bool, natural: bool) -> dict[str, float]:
    """The chances of the ends once the player sticks."""
    chances = dict.fromkeys(ENDS, 0.0)
    shown = 11 if hand.dealer == 1 else hand.dealer
    for (total, dealt), chance in _dealer(shown, hand.dealer == 1, 1).items():
        outcome = "win" if hand.total > total else "draw" if hand.total == total else "lose"
        if hand.natural and sab and not dealt:
            outcome = "win"
        elif hand.natural and natural and not sab and outcome == "win":
            outcome = "natural"
        chances[outcome] += chance
    return chances
