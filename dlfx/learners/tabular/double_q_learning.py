"""Double Q-learning: one table chooses the best action, the other says what it is worth; no maximisation bias."""

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, first_best, look_up
from dlfx.types import Array


def target(q: Array, transition: Transition, which: Array) -> Array:
    """`R + gamma Q_other(S', argmax_a Q_which(S', a))`, [], from two tables `[2, S, A]`."""
    chosen = first_best(look_up(q, which, transition.successor))
    return transition.reward + transition.discount * look_up(q, 1 - which, transition.successor, chosen)


def update(q: Array, transition: Transition) -> tuple[Array, Array]:
    """`Q_i(S, A) += alpha (R + gamma Q_1-i(S', argmax_a Q_i(S', a)) - Q_i(S, A))`, i by the toss of a coin.

    Args:
      q: `[2, S, A]`.
      transition: the experience; its key tosses the coin.

    Returns:
      (q, the TD error []).
    """
    which = jax.random.bernoulli(transition.key).astype(jnp.int32)
    place = which, transition.state, transition.action
    error = target(q, transition, which) - look_up(q, *place)
    return add(q, transition.step_size * error, *place), error


def double_q_learning() -> Rule:
    """Double Q-learning. Its memory is two tables `[2, S, A]`; the policy acts on their mean.

    Source: van Hasselt 2010; Sutton and Barto 2018, equation 6.10.
    """
    return Rule(
        init=lambda states, actions, value: jnp.full((2, states, actions), value, jnp.float32),
        update=update,
        values=lambda q: q.mean(0),
        action_values=lambda q, state: (look_up(q[0], state) + look_up(q[1], state)) / 2,
    )
