"""TD(lambda): prediction that credits every state visited so far in the episode."""

import jax.numpy as jnp

from dlfx.learners.tabular import td_zero, traces
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import look_up
from dlfx.learners.tabular.traces import Traced
from dlfx.types import Array


def td_lambda(trace_decay: float | Array, kind: str = "accumulating") -> Rule:
    """TD(lambda), the backward view: `V += alpha (R + gamma V(S') - V(S)) e` with traces e.

    With 0 it is TD(0), with 1 and accumulating traces a Monte Carlo method that learns within the episode.

    Args:
      trace_decay: lambda, in [0, 1].
      kind: `accumulating` or `replacing` traces.

    Raises:
      UserError: for another lambda or kind.

    Source: Sutton and Barto 2018, section 12.2.
    """
    traces.check(trace_decay, kind)

    def update(memory: Traced, transition: Transition) -> tuple[Traced, Array]:
        error = td_zero.target(memory.values, transition) - look_up(memory.values, transition.state)
        decay = traces.decay_of(transition.discount, trace_decay, transition.over)
        return traces.update(memory, (transition.state,), error, transition.step_size, decay, kind), error

    return Rule(
        init=lambda states, actions, value: traces.traced(jnp.full(states, value, jnp.float32)),
        update=update,
        values=lambda memory: memory.values,
        action_values=None,
    )
