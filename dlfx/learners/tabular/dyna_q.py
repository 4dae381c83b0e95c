"""Dyna-Q and Dyna-Q+: Q-learning from experience, and again from what a learned model remembers of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular import q_learning
from dlfx.learners.tabular.interaction import Rule, Transition
from dlfx.learners.tabular.tables import add, greatest, look_up, pick, put, sample, uniforms
from dlfx.types import Array, UserError


class Memory(NamedTuple):
    """The values, and the model: what every state and action last led to.

    Attributes:
      q: `[S, A]`.
      reward: `[S, A]`.
      successor: `[S, A]` int32.
      goes_on: `[S, A]`, 1 where the episode did not terminate.
      tried: `[S, A]`, 1 where the action was taken at least once.
      last: `[S, A]` int32, when it was last taken.
      seen: `[S]` int32, the states visited so far, in order.
      known: [] int32, how many they are.
      time: [] int32, real steps.
    """

    q: Array
    reward: Array
    successor: Array
    goes_on: Array
    tried: Array
    last: Array
    seen: Array
    known: Array
    time: Array


def empty(states: int, actions: int, value: float) -> Memory:
    """Nothing known. An action not tried is thought to lead back to its state without reward."""
    nothing, never = jnp.zeros((states, actions), jnp.float32), jnp.zeros((states, actions), jnp.int32)
    back = never + jnp.arange(states, dtype=jnp.int32)[:, None]
    seen, zero = jnp.zeros(states, jnp.int32), jnp.int32(0)
    return Memory(nothing + value, nothing, back, nothing + 1, nothing, never, seen, zero, zero)


def remember(memory: Memory, transition: Transition) -> Memory:
    """The model with this transition in it."""
    state, action = transition.state, transition.action
    fresh = greatest(look_up(memory.tried, state)) == 0
    end = jnp.minimum(memory.known, len(memory.seen) - 1)
    time = memory.time + 1
    return Memory(
        memory.q,
        put(memory.reward, transition.reward, state, action),
        put(memory.successor, transition.successor, state, action),
        put(memory.goes_on, (transition.discount > 0).astype(jnp.float32), state, action),
        put(memory.tried, jnp.float32(1), state, action),
        put(memory.last, time, state, action),
        put(memory.seen, jnp.where(fresh, state, look_up(memory.seen, end)), end),
        memory.known + fresh,
        time,
    )


def dyna_q(planning_steps: int, curiosity: float = 0.0, untried: bool = False) -> Rule:
    """Dyna-Q: after every real step, one step of Q-learning and `planning_steps` more on the model.

    Planning takes a visited state by chance, then one of the actions tried there, or any for Dyna-Q+. Dyna-Q+ adds
    `kappa sqrt(tau)` to the model's reward, tau the real steps since the action was last taken.

    Args:
      planning_steps: n, updates from the model after each real step.
      curiosity: kappa; 0 is Dyna-Q.
      untried: plan also with actions never tried in a visited state, thought to lead back to it with reward 0.

    Raises:
      UserError: if n is negative, or when the learner begins if n is more than the pairs that the model can hold.

    Source: Sutton 1990; Sutton and Barto 2018, section 8.2 and for Dyna-Q+ section 8.3.
    """
    if planning_steps < 0:
        raise UserError(f"planning_steps={planning_steps} is negative; 0 is plain Q-learning")

    def init(states: int, actions: int, value: float) -> Memory:
        check_planning(planning_steps, states, actions)
        return empty(states, actions, value)

    def update(memory: Memory, transition: Transition) -> tuple[Memory, Array]:
        q, error = q_learning.update(memory.q, transition)
        memory = remember(memory._replace(q=q), transition)

        def plan(q: Array, u: Array) -> tuple[Array, None]:
            state = look_up(memory.seen, pick(u[0], memory.known))
            tried = look_up(memory.tried, state)
            action = sample(jnp.ones_like(tried) if untried else tried, u[1])
            since = memory.time - look_up(memory.last, state, action)
            reward = look_up(memory.reward, state, action) + curiosity * jnp.sqrt(since.astype(jnp.float32))
            after = greatest(look_up(q, look_up(memory.successor, state, action)))
            aim = reward + transition.gamma * look_up(memory.goes_on, state, action) * after
            change = transition.step_size * (aim - look_up(q, state, action))
            return add(q, change, state, action), None

        if planning_steps:
            q, _ = jax.lax.scan(plan, q, uniforms(transition.key, planning_steps, 2))
        return memory._replace(q=q), error

    return Rule(init, update, values=lambda memory: memory.q, action_values=lambda m, state: look_up(m.q, state))


def dyna_q_plus(planning_steps: int, curiosity: float) -> Rule:
    """Dyna-Q+: Dyna-Q that is curious about actions it has not taken for long, so that it notices a changed world.

    Args:
      planning_steps: see `dyna_q`.
      curiosity: kappa.

    Source: Sutton and Barto 2018, section 8.3.
    """
    return dyna_q(planning_steps, curiosity, untried=True)


def check_planning(planning_steps: int, states: int, actions: int) -> None:
    """Raises a UserError if there are more planning steps than pairs in the model."""
    if planning_steps > states * actions:
        raise UserError(
            f"planning_steps={planning_steps} is more than the model can hold: {states} states times {actions} "
            f"actions are {states * actions} pairs"
        )
