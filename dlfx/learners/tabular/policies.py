"""Policies: the probabilities of the actions in a situation. Equal maxima share their probability."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.schedules import Schedule
from dlfx.learners.tabular.tables import greatest, look_up, total
from dlfx.types import Array


class Situation(NamedTuple):
    """What a policy may look at.

    Attributes:
      state: [] int32.
      values: `[A]`, the action values of the state.
      visits: `[A]` float32, how often each action was taken in the state; zeros unless the policy counts.
      time: [] int32, the environment steps so far.
    """

    state: Array
    values: Array
    visits: Array
    time: Array


class Policy(NamedTuple):
    """A policy.

    Attributes:
      probabilities: a situation to the probabilities `[A]` of the actions.
      counts: whether visits are looked at.
    """

    probabilities: Callable[[Situation], Array]
    counts: bool = False


def best(values: Array) -> Array:
    """`[A]`: the uniform distribution over the actions of greatest value."""
    ties = (values == greatest(values)).astype(jnp.float32)
    return ties / total(ties)


def greedy() -> Policy:
    """The action of greatest value. It explores where values start above what they can be.

    Source: Sutton and Barto 2018, section 2.6 on optimistic initial values.
    """
    return Policy(lambda at: best(at.values))


def epsilon_greedy(epsilon: Schedule) -> Policy:
    """`pi(a | s) = eps / A + (1 - eps) [a is best] / (number of best actions)`.

    Args:
      epsilon: the chance of exploring; visits are those of the state.

    Source: Sutton and Barto 2018, section 2.2 and equation 6.7's behaviour.
    """

    def probabilities(at: Situation) -> Array:
        chance = epsilon.value(at.time, total(at.visits))
        return chance / at.values.shape[0] + (1 - chance) * best(at.values)

    return Policy(probabilities, epsilon.counts)


def softmax(temperature: Schedule) -> Policy:
    """`pi(a | s) = exp(Q(s, a) / temperature) / sum_b exp(Q(s, b) / temperature)`.

    Source: Sutton and Barto 2018, equation 2.11 with preferences Q / temperature.
    """

    def probabilities(at: Situation) -> Array:
        scaled = (at.values - greatest(at.values)) / temperature.value(at.time, total(at.visits))
        weights = jnp.exp(scaled)
        return weights / total(weights)

    return Policy(probabilities, temperature.counts)


def upper_confidence(confidence: float) -> Policy:
    """Greedy in `Q(s, a) + c sqrt(ln N(s) / N(s, a))`; an action not tried yet comes first.

    Args:
      confidence: c, at least 0.

    Source: Sutton and Barto 2018, equation 2.10, with the visits of the state for time.
    """

    def probabilities(at: Situation) -> Array:
        tried = jnp.maximum(at.visits, 1.0)
        bonus = confidence * jnp.sqrt(jnp.log(jnp.maximum(total(at.visits), 1.0)) / tried)
        return best(jnp.where(at.visits > 0, at.values + bonus, jnp.inf))

    return Policy(probabilities, counts=True)


def given(table: jax.typing.ArrayLike) -> Policy:
    """A fixed policy `pi(a | s)`, `[S, A]`: what prediction is about."""
    fixed = jnp.asarray(table, jnp.float32)
    return Policy(lambda at: look_up(fixed, at.state))
