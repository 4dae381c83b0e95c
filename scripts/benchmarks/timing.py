"""Rates of alternatives on a machine that others use too: A B A B in one process, medians and ranges."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np


class Side(NamedTuple):
    """One of the things compared.

    Attributes:
      name: what the results are called.
      amount: what one call does, in the unit of the rate.
      call: does it, and returns when it is done.
    """

    name: str
    amount: int
    call: Callable[[], Any]


def rate(side: Side, seconds: float) -> float:
    """Amounts per second over as many calls as fill that time, at least one."""
    calls, began = 0, time.perf_counter()
    while True:
        side.call()
        calls += 1
        taken = time.perf_counter() - began
        if taken >= seconds:
            return calls * side.amount / taken


def interleave(sides: Sequence[Side], seconds: float, rounds: int) -> dict[str, np.ndarray]:
    """The rates `[rounds]` of each side by name; in every round each has its turn, so that all meet the same load."""
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            rates[side.name].append(rate(side, seconds))
    return {name: np.asarray(values) for name, values in rates.items()}


def compare(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """How many times b's rate a's is: (ratio of the medians, least and greatest ratio of a round), from `[rounds]`."""
    by_round = a / b
    return float(np.median(a) / np.median(b)), float(by_round.min()), float(by_round.max())


def words(rates: np.ndarray) -> str:
    """The median of rates and how far they range: half the range, as a part of the median."""
    median = float(np.median(rates))
    number = f"{median:,.0f}" if median >= 100 else f"{median:.2f}"
    return f"{number} ±{50 * (rates.max() - rates.min()) / median:.0f}%"
