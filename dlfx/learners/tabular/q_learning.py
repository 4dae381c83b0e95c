"""Q-learning: off-policy control, whose target is the best action's value whatever the behaviour."""

import jax.numpy as jnp

from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, greatest, look_up
from dlfx.types import Array


def target(q: Array, transition: Transition) -> Array:
    """`R + gamma max_a Q(S', a)`, [], from values `[S, A]`. It asks for no model and for no next action."""
    return transition.reward + transition.discount * greatest(look_up(q, transition.successor))


def update(q: Array, transition: Transition) -> tuple[Array, Array]:
    """`Q(S, A) += alpha (R + gamma max_a Q(S', a) - Q(S, A))`.

    Args:
      q: `[S, A]`.
      transition: the experience.

    Returns:
      (q, the TD error []).
    """
    error = target(q, transition) - look_up(q, transition.state, transition.action)
    return add(q, transition.step_size * error, transition.state, transition.action), error


def q_learning() -> Rule:
    """Q-learning. Its memory is the table `[S, A]`.

    Source: Watkins 1989; Sutton and Barto 2018, equation 6.8.
    """
    return Rule(
        init=lambda states, actions, value: jnp.full((states, actions), value, jnp.float32),
        update=update,
        values=lambda q: q,
        action_values=look_up,
    )
