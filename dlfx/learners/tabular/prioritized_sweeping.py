"""Prioritised sweeping: planning where the values have most to change, and from there backwards."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular import q_learning
from dlfx.learners.tabular.dyna_q import check_planning
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, greatest, look_up, put
from dlfx.types import Array, UserError


class Memory(NamedTuple):
    """The values, the model and the queue.

    Attributes:
      q: `[S, A]`.
      reward: `[S, A]`.
      successor: `[S, A]` int32.
      discount: `[S, A]`, gamma, or 0 where the episode terminated.
      tried: `[S, A]` bool.
      priority: `[S, A]`, 0 for what is not in the queue.
    """

    q: Array
    reward: Array
    successor: Array
    discount: Array
    tried: Array
    priority: Array


def prioritized_sweeping(planning_steps: int, threshold: float) -> Rule:
    """Prioritised sweeping for deterministic worlds: real steps only feed the model and the queue.

    `P(s, a) = |r + gamma max_b Q(s', b) - Q(s, a)|`; pairs with P above the threshold wait in the queue. Each planning
    step updates the first of it, and queues the pairs that the model says lead to its state.

    Args:
      planning_steps: n, the largest number of updates after each real step.
      threshold: theta, above which a change is worth making.

    Raises:
      UserError: if n is below 1 or theta negative, or when the learner begins if n is more than the model can hold.

    Source: Moore and Atkeson 1993; Sutton and Barto 2018, section 8.4.
    """
    if planning_steps < 1:
        raise UserError(f"planning_steps={planning_steps}: prioritised sweeping learns by planning alone, at least 1")
    if threshold < 0:
        raise UserError(f"threshold={threshold:g} is negative; priorities are not")

    def init(states: int, actions: int, value: float) -> Memory:
        check_planning(planning_steps, states, actions)
        zeros = jnp.zeros((states, actions), jnp.float32)
        return Memory(zeros + value, zeros, zeros.astype(jnp.int32), zeros, zeros.astype(bool), zeros)

    def urgent(error: Array) -> Array:
        size = jnp.abs(error)
        return jnp.where(size > threshold, size, 0.0)

    def update(memory: Memory, transition: Transition) -> tuple[Memory, Array]:
        state, action = transition.state, transition.action
        error = q_learning.target(memory.q, transition) - look_up(memory.q, state, action)
        waiting = jnp.maximum(look_up(memory.priority, state, action), urgent(error))
        memory = Memory(
            memory.q,
            put(memory.reward, transition.reward, state, action),
            put(memory.successor, transition.successor, state, action),
            put(memory.discount, transition.discount, state, action),
            put(memory.tried, jnp.bool_(True), state, action),
            put(memory.priority, waiting, state, action),
        )

        def plan(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            q, priority = carry
            first = priority.argmax()
            state, action = jnp.unravel_index(first, priority.shape)
            due = look_up(priority, state, action) > 0
            after = greatest(look_up(q, look_up(memory.successor, state, action)))
            aim = look_up(memory.reward, state, action) + look_up(memory.discount, state, action) * after
            q = add(q, due * transition.step_size * (aim - look_up(q, state, action)), state, action)
            priority = put(priority, jnp.float32(0), state, action)
            error = memory.reward + memory.discount * greatest(look_up(q, state)) - q
            leads_here = memory.tried & (memory.successor == state) & due
            return q, jnp.where(leads_here, jnp.maximum(priority, urgent(error)), priority)

        q, priority = jax.lax.fori_loop(0, planning_steps, plan, (memory.q, memory.priority))
        return memory._replace(q=q, priority=priority), error

    return Rule(init, update, values=lambda memory: memory.q, action_values=lambda m, state: look_up(m.q, state))
