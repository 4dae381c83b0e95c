"""n-step SARSA: on-policy control from n rewards and the value of the action n steps on."""

import jax.numpy as jnp

from dlfx.learners.tabular import n_step
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import look_up
from dlfx.types import Array


def n_step_sarsa(num_actions: int, n: int) -> Rule:
    """n-step SARSA: `Q(S_t, A_t) += alpha (G_t:t+n - Q(S_t, A_t))`, see `n_step.update`. With n = 1 it is SARSA.

    Args:
      num_actions: A; the table is kept flat, `[S A]`.
      n: how many rewards, at least 1.

    Raises:
      UserError: for a smaller n.

    Source: Sutton and Barto 2018, equation 7.5.
    """
    n_step.waiting(jnp.zeros(1), n)

    def update(memory: n_step.Waiting, transition: Transition) -> tuple[n_step.Waiting, Array]:
        place = transition.state * num_actions + transition.action
        following = transition.successor * num_actions + transition.next_action
        return n_step.update(memory, transition, place, following)

    def action_values(memory: n_step.Waiting, state: Array) -> Array:
        return look_up(memory.values, state * num_actions + jnp.arange(num_actions))

    return Rule(
        init=lambda states, actions, value: n_step.waiting(jnp.full(states * actions, value, jnp.float32), n),
        update=update,
        values=lambda memory: memory.values.reshape(-1, num_actions),
        action_values=action_values,
        on_policy=True,
    )
