"""The loop of rules that learn from every transition: act, observe, update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.policies import Policy, Situation
from dlfx.learners.tabular.schedules import Schedule
from dlfx.learners.tabular.tables import add, look_up, sample, total, uniforms
from dlfx.types import Array, Batch, Environment, Key, Learner, Metrics, Timestep, UserError


class Transition(NamedTuple):
    """One step of experience, and what a rule may want to know with it.

    Attributes:
      state: S, [] int32.
      action: A, [] int32.
      reward: R, [] float32.
      discount: [] float32, what the value of the successor counts: gamma, or 0 where the episode terminated. Where it
        was truncated it is gamma: the successor's value still counts.
      successor: S', [] int32, what the action led to.
      over: [] bool, the episode ended here, in either way.
      next_action: A', [] int32, drawn from the policy at S' before the update. An on-policy rule takes it next.
      next_policy: `[A]`, the policy at S' before the update.
      step_size: alpha, [] float32.
      gamma: [] float32, the discount whether terminated or not.
      key: for a rule that draws.
    """

    state: Array
    action: Array
    reward: Array
    discount: Array
    successor: Array
    over: Array
    next_action: Array
    next_policy: Array
    step_size: Array
    gamma: Array
    key: Key


class Rule(NamedTuple):
    """A learning rule over single transitions, as pure functions of its memory (a pytree of arrays).

    Attributes:
      init: (number of states, number of actions, initial value) to the memory.
      update: (memory, transition) to (memory, the TD error []).
      values: memory to the values, `[S]` in prediction and `[S, A]` in control.
      action_values: (memory, state) to `[A]`, what the policy acts on; None in prediction, where it is given.
      on_policy: the action of the next step is the transition's `next_action`, drawn before the update; otherwise the
        next action is drawn after it.
    """

    init: Callable[[int, int, float], Any]
    update: Callable[[Any, Transition], tuple[Any, Array]]
    values: Callable[[Any], Array]
    action_values: Callable[[Any, Array], Array] | None
    on_policy: bool = False


class State(NamedTuple):
    """Everything that learning changes, and the key that it never changes."""

    memory: Any  # of the rule
    visits: Any  # [S, A] float32, or () where nothing looks at them
    environment: Any
    observation: Array  # [] int32, S
    action: Array  # [] int32, A, already chosen
    episode_return: Array  # [] float32, of the episode at hand, without discount
    episode_length: Array  # [] int32
    last_return: Array  # [] float32, of the last episode that ended; 0 before
    last_length: Array  # [] int32
    step: Array  # [] int32
    key: Key  # []


class Sums(NamedTuple):
    """Sums over the steps of one call."""

    returns: Array
    lengths: Array
    episodes: Array
    errors: Array


def interaction(
    environment: Environment,
    rule: Rule,
    policy: Policy,
    *,
    gamma: float | Array,
    step_size: Schedule,
    initial_value: float = 0.0,
    unroll: int = 100,
) -> Learner:
    """The learner of a rule in an environment: one learner step is `unroll` environment steps.

    The order within a step is that of the textbook. On-policy: take A, observe R and S', choose A' from S', update, go
    on with A'. Off-policy: take A, observe R and S', update, choose the next action. After the end of an episode the
    first action of the next one is chosen after the update.

    Args:
      environment: of state numbers.
      rule: what to learn.
      policy: how to behave.
      gamma: the discount, in [0, 1].
      step_size: alpha; visits are those of the state and action, and in prediction those of the state.
      initial_value: what every value begins with.
      unroll: environment steps in one learner step.

    Returns:
      A learner without batches. Its metrics are means over the environment steps of a learner step: `return` and
      `length` of the episodes that ended in it (of the last one that did, where none did), `episodes`, how many did,
      and `td_error`, the mean of its absolute value.

    Raises:
      UserError: if the observations are no state numbers, or gamma is outside [0, 1].

    Source: Sutton and Barto 2018, sections 6.4 and 6.5.
    """
    check(environment, gamma)
    states, actions = environment.num_states, environment.num_actions
    counts = policy.counts or step_size.counts

    def action_values(memory: Any, state: Array) -> Array:
        return rule.action_values(memory, state) if rule.action_values else jnp.zeros(actions)

    def probabilities(memory: Any, visits: Any, state: Array, time: Array) -> Array:
        counted = look_up(visits, state) if counts else jnp.zeros(actions)
        return policy.probabilities(Situation(state, action_values(memory, state), counted, time))

    def init(key: Key, _: Batch) -> State:
        # 2**31 - 1 is the one count that no step reaches.
        begin, act = jax.random.split(jax.random.fold_in(key, 2**31 - 1))
        memory = rule.init(states, actions, initial_value)
        visits = jnp.zeros((states, actions)) if counts else ()
        world, observation = environment.reset(begin)
        action = sample(probabilities(memory, visits, observation, jnp.int32(0)), uniforms(act))
        nothing, never = jnp.float32(0), jnp.int32(0)
        return State(memory, visits, world, observation, action, nothing, never, nothing, never, never, key)

    def one(carry: tuple[State, Sums], draws: tuple[Array, Array, Key, Key, Array]) -> tuple[tuple[State, Sums], None]:
        state, sums = carry
        following, first, move, chance, time = draws
        memory, visits = state.memory, state.visits
        world, seen = environment.step(move, state.environment, state.action)
        over = seen.terminated | seen.truncated
        if counts:
            visits = add(visits, jnp.float32(1), state.observation, state.action)
        next_policy = probabilities(memory, visits, seen.successor, time)
        next_action = sample(next_policy, following)
        transition = Transition(
            state.observation,
            state.action,
            seen.reward,
            jnp.where(seen.terminated, 0.0, jnp.asarray(gamma, jnp.float32)),
            seen.successor,
            over,
            next_action,
            next_policy,
            step_size.value(time, _visited(visits, state, rule) if counts else jnp.float32(0)),
            jnp.asarray(gamma, jnp.float32),
            chance,
        )
        memory, error = rule.update(memory, transition)
        action = sample(probabilities(memory, visits, seen.observation, time), first)
        if rule.on_policy:
            action = jnp.where(over, action, next_action)
        state = state._replace(memory=memory, visits=visits, environment=world, action=action)
        return _account(state, sums, seen, over, error), None

    def step(state: State, _: Batch) -> tuple[State, Metrics]:
        following, first, move, chance = jax.random.split(jax.random.fold_in(state.key, state.step), 4)
        draws = (
            uniforms(following, unroll),  # all at once: drawing inside the loop costs as much as the rest of a step
            uniforms(first, unroll),
            jax.random.split(move, unroll),
            jax.random.split(chance, unroll),
            state.step * unroll + jnp.arange(unroll),
        )
        zero = jnp.float32(0)
        (state, sums), _ = jax.lax.scan(one, (state, Sums(zero, zero, zero, zero)), draws)
        some, episodes = sums.episodes > 0, jnp.maximum(sums.episodes, 1)
        metrics = {
            "return": jnp.where(some, sums.returns / episodes, state.last_return),
            "length": jnp.where(some, sums.lengths / episodes, state.last_length),
            "episodes": sums.episodes,
            "td_error": sums.errors / unroll,
        }
        return state._replace(step=state.step + 1), metrics

    return Learner(init, step)


def check(environment: Environment, gamma: float | Array) -> None:
    """Raises a UserError for an environment without state numbers, or a discount outside [0, 1]."""
    if not environment.num_states:
        raise UserError(f"{environment.name} does not give state numbers, so no table can hold its values")
    if isinstance(gamma, int | float) and not 0 <= gamma <= 1:
        raise UserError(f"gamma={gamma:g} is no discount; it must be between 0 and 1")


def _visited(visits: Array, state: State, rule: Rule) -> Array:
    """N(s, a) in control, N(s) in prediction."""
    if rule.action_values:
        return look_up(visits, state.observation, state.action)
    return total(look_up(visits, state.observation))


def _account(state: State, sums: Sums, seen: Timestep, over: Array, error: Array) -> tuple[State, Sums]:
    """The books of the episode at hand, and the sums over those that ended."""
    gained, taken = state.episode_return + seen.reward, state.episode_length + 1
    ended = over.astype(jnp.float32)
    sums = Sums(
        sums.returns + ended * gained, sums.lengths + ended * taken, sums.episodes + ended, sums.errors + jnp.abs(error)
    )
    return state._replace(
        observation=seen.observation,
        episode_return=jnp.where(over, 0.0, gained),
        episode_length=jnp.where(over, 0, taken),
        last_return=jnp.where(over, gained, state.last_return),
        last_length=jnp.where(over, taken, state.last_length),
    ), sums
