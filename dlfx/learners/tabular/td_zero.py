"""TD(0): prediction from one reward and the next state's value."""

import jax.numpy as jnp

from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, look_up
from dlfx.types import Array


def target(v: Array, transition: Transition) -> Array:
    """`R + gamma V(S')`, [], from values `[S]`."""
    return transition.reward + transition.discount * look_up(v, transition.successor)


def update(v: Array, transition: Transition) -> tuple[Array, Array]:
    """`V(S) += alpha (R + gamma V(S') - V(S))`.

    Args:
      v: `[S]`.
      transition: the experience.

    Returns:
      (v, the TD error []).
    """
    error = target(v, transition) - look_up(v, transition.state)
    return add(v, transition.step_size * error, transition.state), error


def td_zero() -> Rule:
    """TD(0). Its memory is the table `[S]`.

    Source: Sutton and Barto 2018, equation 6.2.
    """
    return Rule(
        init=lambda states, actions, value: jnp.full(states, value, jnp.float32),
        update=update,
        values=lambda v: v,
        action_values=None,
    )
