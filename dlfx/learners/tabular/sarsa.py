"""SARSA: on-policy control, whose target is the value of the action that will be taken."""

import jax.numpy as jnp

from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, look_up
from dlfx.types import Array


def target(q: Array, transition: Transition) -> Array:
    """`R + gamma Q(S', A')`, [], from values `[S, A]`; A' is the action that is really taken next."""
    return transition.reward + transition.discount * look_up(q, transition.successor, transition.next_action)


def update(q: Array, transition: Transition) -> tuple[Array, Array]:
    """`Q(S, A) += alpha (R + gamma Q(S', A') - Q(S, A))`.

    Args:
      q: `[S, A]`.
      transition: the experience.

    Returns:
      (q, the TD error []).
    """
    error = target(q, transition) - look_up(q, transition.state, transition.action)
    return add(q, transition.step_size * error, transition.state, transition.action), error


def sarsa() -> Rule:
    """SARSA. Its memory is the table `[S, A]`.

    Source: Rummery and Niranjan 1994; Sutton and Barto 2018, equation 6.7.
    """
    return Rule(
        init=lambda states, actions, value: jnp.full((states, actions), value, jnp.float32),
        update=update,
        values=lambda q: q,
        action_values=look_up,
        on_policy=True,
    )
