"""The loop of Monte Carlo rules: play an episode to its end, then learn from all of it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.interaction import check
from dlfx.learners.tabular.policies import Policy, Situation
from dlfx.learners.tabular.tables import look_up, pick, put, sample, total, uniforms
from dlfx.types import Array, Batch, Environment, Key, Learner, Metrics, UserError


class Episode(NamedTuple):
    """An episode of T steps, in arrays as long as the longest one, L; what lies behind T is to be left alone.

    Attributes:
      state: `[L]` int32.
      action: `[L]` int32.
      reward: `[L]`.
      probability: `[L]`, of the action under the behaviour.
      length: [] int32, T.
      tail: [], what is expected after the last step: 0 if the episode terminated, a value if it was truncated.
      gamma: [], the discount.
      time: [] int32, the environment steps before it.
    """

    state: Array
    action: Array
    reward: Array
    probability: Array
    length: Array
    tail: Array
    gamma: Array
    time: Array


class EpisodeRule(NamedTuple):
    """A learning rule over whole episodes, as pure functions of its memory.

    Attributes:
      init: (number of states, number of actions, initial value) to the memory.
      update: (memory, episode) to (memory, the mean absolute error [] of the values before).
      values: memory to the values, `[S]` in prediction and `[S, A]` in control.
      action_values: (memory, state) to `[A]`; None in prediction.
      visits: (memory, state) to `[A]`, how often each action counted so far; zeros in prediction.
    """

    init: Callable[[int, int, float], Any]
    update: Callable[[Any, Episode], tuple[Any, Array]]
    values: Callable[[Any], Array]
    action_values: Callable[[Any, Array], Array] | None
    visits: Callable[[Any, Array], Array]


class State(NamedTuple):
    """Everything that learning changes, and the key that it never changes."""

    memory: Any  # of the rule
    time: Array  # [] int32, environment steps so far
    step: Array  # [] int32, episodes so far
    key: Key  # []


def episodes(
    environment: Environment,
    rule: EpisodeRule,
    policy: Policy,
    *,
    gamma: float | Array,
    initial_value: float = 0.0,
    exploring_starts: bool = False,
) -> Learner:
    """The learner of a Monte Carlo rule: one learner step is one episode.

    Args:
      environment: of state numbers, with a limit of steps, as an episode must fit into memory.
      rule: what to learn.
      policy: how to behave.
      gamma: the discount, in [0, 1].
      initial_value: what every value begins with.
      exploring_starts: the first action of an episode is any, with equal chances. The environment's part is to begin
        in any state.

    Returns:
      A learner without batches, with the metrics `return`, `length`, `episodes` (1) and `td_error`, the mean absolute
      difference between returns and values.

    Raises:
      UserError: if the environment has no state numbers or no limit of steps, or gamma is outside [0, 1].

    Source: Sutton and Barto 2018, chapter 5.
    """
    check(environment, gamma)
    if not environment.max_steps:
        raise UserError(
            f"{environment.name} sets no limit of steps, and Monte Carlo needs whole episodes: set max_steps"
        )
    states, actions, limit = environment.num_states, environment.num_actions, environment.max_steps

    def behaviour(memory: Any, state: Array, time: Array) -> Array:
        values = rule.action_values(memory, state) if rule.action_values else jnp.zeros(actions)
        return policy.probabilities(Situation(state, values, rule.visits(memory, state), time))

    def init(key: Key, _: Batch) -> State:
        return State(rule.init(states, actions, initial_value), jnp.int32(0), jnp.int32(0), key)

    def play(memory: Any, key: Key, before: Array) -> tuple[Episode, Array]:
        def going(carry: tuple[Any, ...]) -> Array:
            return ~carry[-1]

        def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            world, state, episode, _ = carry
            t = episode.length
            move, act = jax.random.split(jax.random.fold_in(key, t))
            chances, u = behaviour(memory, state, before + t), uniforms(act)
            action = sample(chances, u)
            if exploring_starts:
                action = jnp.where(t == 0, pick(u, actions), action)
            world, seen = environment.step(move, world, action)
            after = behaviour(memory, seen.successor, before + t)
            if rule.action_values:
                expected = total(after * rule.action_values(memory, seen.successor))
            else:
                expected = look_up(rule.values(memory), seen.successor)
            episode = episode._replace(
                state=put(episode.state, state, t),
                action=put(episode.action, action, t),
                reward=put(episode.reward, seen.reward, t),
                probability=put(episode.probability, look_up(chances, action), t),
                length=t + 1,
                tail=jnp.where(seen.truncated, expected, 0.0),
            )
            return world, seen.observation, episode, seen.terminated | seen.truncated

        world, state = environment.reset(jax.random.fold_in(key, 2**31 - 1))
        numbers, zeros = jnp.zeros(limit, jnp.int32), jnp.zeros(limit, jnp.float32)
        blank = Episode(
            numbers, numbers, zeros, zeros, jnp.int32(0), jnp.float32(0), jnp.asarray(gamma, jnp.float32), before
        )
        *_, episode, _ = jax.lax.while_loop(going, one, (world, state, blank, jnp.bool_(False)))
        return episode, jnp.where(jnp.arange(limit) < episode.length, episode.reward, 0).sum()

    def step(state: State, _: Batch) -> tuple[State, Metrics]:
        episode, gained = play(state.memory, jax.random.fold_in(state.key, state.step), state.time)
        memory, error = rule.update(state.memory, episode)
        length = episode.length.astype(jnp.float32)
        metrics = {"return": gained, "length": length, "episodes": jnp.float32(1), "td_error": error}
        return State(memory, state.time + episode.length, state.step + 1, state.key), metrics

    return Learner(init, step)


def first_visits(places: Array, length: Array, size: int) -> Array:
    """`[L]` bool: whether the entry `places[t]` of a table of that size is met at t for the first time."""
    times = jnp.arange(len(places))
    earliest = jnp.full(size, len(places)).at[jnp.where(times < length, places, size)].min(times, mode="drop")
    return (earliest[places] == times) & (times < length)
