"""Expected SARSA: control with the mean over what the policy may do next, and so without the chance in it."""

import jax.numpy as jnp

from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, look_up, total
from dlfx.types import Array


def target(q: Array, transition: Transition) -> Array:
    """`R + gamma sum_a pi(a | S') Q(S', a)`, [], from values `[S, A]`."""
    expected = total(transition.next_policy * look_up(q, transition.successor))
    return transition.reward + transition.discount * expected


def update(q: Array, transition: Transition) -> tuple[Array, Array]:
    """`Q(S, A) += alpha (R + gamma sum_a pi(a | S') Q(S', a) - Q(S, A))`.

    Args:
      q: `[S, A]`.
      transition: the experience.

    Returns:
      (q, the TD error []).
    """
    error = target(q, transition) - look_up(q, transition.state, transition.action)
    return add(q, transition.step_size * error, transition.state, transition.action), error


def expected_sarsa() -> Rule:
    """Expected SARSA. Its memory is the table `[S, A]`.

    Source: Sutton and Barto 2018, equation 6.9.
    """
    return Rule(
        init=lambda states, actions, value: jnp.full((states, actions), value, jnp.float32),
        update=update,
        values=lambda q: q,
        action_values=look_up,
    )
