"""SARSA(lambda): SARSA that credits every state and action of the episode so far."""

import jax.numpy as jnp

from dlfx.learners.tabular import sarsa, traces
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import look_up
from dlfx.learners.tabular.traces import Traced
from dlfx.types import Array


def sarsa_lambda(trace_decay: float | Array, kind: str = "accumulating") -> Rule:
    """SARSA(lambda): `Q += alpha (R + gamma Q(S', A') - Q(S, A)) e` with traces e.

    Args:
      trace_decay: lambda, in [0, 1].
      kind: `accumulating` or `replacing` traces.

    Raises:
      UserError: for another lambda or kind.

    Source: Rummery and Niranjan 1994; Sutton and Barto 2018, section 12.7, with a table.
    """
    traces.check(trace_decay, kind)

    def update(memory: Traced, transition: Transition) -> tuple[Traced, Array]:
        place = transition.state, transition.action
        error = sarsa.target(memory.values, transition) - look_up(memory.values, *place)
        decay = traces.decay_of(transition.discount, trace_decay, transition.over)
        return traces.update(memory, place, error, transition.step_size, decay, kind), error

    return Rule(
        init=lambda states, actions, value: traces.traced(jnp.full((states, actions), value, jnp.float32)),
        update=update,
        values=lambda memory: memory.values,
        action_values=traces.action_values,
        on_policy=True,
    )
