"""n-step TD: prediction from n rewards and the value n states on."""

import jax.numpy as jnp

from dlfx.learners.tabular import n_step
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.types import Array


def n_step_td(n: int) -> Rule:
    """n-step TD: `V(S_t) += alpha (G_t:t+n - V(S_t))`, see `n_step.update`. With n = 1 it is TD(0).

    Args:
      n: how many rewards, at least 1.

    Raises:
      UserError: for a smaller n.

    Source: Sutton and Barto 2018, equation 7.2.
    """
    n_step.waiting(jnp.zeros(1), n)

    def update(memory: n_step.Waiting, transition: Transition) -> tuple[n_step.Waiting, Array]:
        return n_step.update(memory, transition, transition.state, transition.successor)

    return Rule(
        init=lambda states, actions, value: n_step.waiting(jnp.full(states, value, jnp.float32), n),
        update=update,
        values=lambda memory: memory.values,
        action_values=None,
    )
