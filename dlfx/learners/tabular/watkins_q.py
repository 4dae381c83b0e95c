"""Watkins's Q(lambda): Q-learning with traces, which are cut wherever the behaviour explores."""

import jax.numpy as jnp

from dlfx.learners.tabular import q_learning, traces
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import greatest, look_up
from dlfx.learners.tabular.traces import Traced
from dlfx.types import Array


def watkins_q(trace_decay: float | Array, kind: str = "accumulating") -> Rule:
    """Watkins's Q(lambda): `Q += alpha (R + gamma max_a Q(S', a) - Q(S, A)) e`.

    After an action A' that is not among the best ones the traces are 0, as what follows says nothing about the greedy
    policy. A' is therefore drawn before the update; the target does not depend on it.

    Args:
      trace_decay: lambda, in [0, 1].
      kind: `accumulating` or `replacing` traces.

    Raises:
      UserError: for another lambda or kind.

    Source: Watkins 1989; Sutton and Barto 2018, section 12.10.
    """
    traces.check(trace_decay, kind)

    def update(memory: Traced, transition: Transition) -> tuple[Traced, Array]:
        place, row = (transition.state, transition.action), look_up(memory.values, transition.successor)
        error = q_learning.target(memory.values, transition) - look_up(memory.values, *place)
        explored = look_up(memory.values, transition.successor, transition.next_action) < greatest(row)
        decay = traces.decay_of(transition.discount, trace_decay, transition.over | explored)
        return traces.update(memory, place, error, transition.step_size, decay, kind), error

    return Rule(
        init=lambda states, actions, value: traces.traced(jnp.full((states, actions), value, jnp.float32)),
        update=update,
        values=lambda memory: memory.values,
        action_values=traces.action_values,
        on_policy=True,
    )
