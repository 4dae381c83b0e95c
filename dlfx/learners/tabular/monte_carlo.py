"""Monte Carlo prediction and on-policy control: the mean of the returns that followed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.episodes import Episode, EpisodeRule, first_visits
from dlfx.learners.tabular.schedules import Schedule
from dlfx.learners.tabular.tables import add, look_up
from dlfx.types import Array


class Memory(NamedTuple):
    """A flat table of values, and how many returns went into each, both `[K]` float32."""

    values: Array
    counts: Array


def update(
    memory: Memory, episode: Episode, places: Array, first_visit: bool, step_size: Schedule
) -> tuple[Memory, Array]:
    """`G = R_t+1 + gamma G` from the last step to the first; `V(place_t) += alpha (G - V(place_t))`.

    Args:
      memory: values and counts.
      episode: the experience.
      places: `[L]` int32, the entry of the table that each step is about.
      first_visit: only where an entry is met for the first time in the episode.
      step_size: alpha; visits are the returns so far with this one, so that `1 / N` gives their mean.

    Returns:
      (memory, the mean absolute error of the updates []).
    """
    firsts = first_visits(places, episode.length, len(memory.values))

    def back(i: int, carry: tuple[Memory, Array, Array]) -> tuple[Memory, Array, Array]:
        (values, counts), following, errors = carry
        t = episode.length - 1 - i
        following = look_up(episode.reward, t) + episode.gamma * following
        place = look_up(places, t)
        counted = look_up(firsts, t).astype(jnp.float32) if first_visit else jnp.float32(1)
        counts = add(counts, counted, place)
        error = counted * (following - look_up(values, place))
        alpha = step_size.value(episode.time + t, look_up(counts, place))
        return Memory(add(values, alpha * error, place), counts), following, errors + jnp.abs(error)

    begin = memory, episode.tail, jnp.float32(0)
    memory, _, errors = jax.lax.fori_loop(0, episode.length, back, begin)
    return memory, errors / (firsts.sum() if first_visit else episode.length)


def monte_carlo_prediction(step_size: Schedule, first_visit: bool = True) -> EpisodeRule:
    """Monte Carlo prediction of V. First-visit returns are independent of each other, every-visit ones more numerous.

    Args:
      step_size: alpha; `schedules.by_visits()` gives the mean of the returns.
      first_visit: otherwise every visit counts.

    Source: Sutton and Barto 2018, section 5.1; Singh and Sutton 1996 on both kinds.
    """
    return EpisodeRule(
        init=lambda states, actions, value: Memory(jnp.full(states, value, jnp.float32), jnp.zeros(states)),
        update=lambda memory, episode: update(memory, episode, episode.state, first_visit, step_size),
        values=lambda memory: memory.values,
        action_values=None,
        visits=lambda memory, state: look_up(memory.counts, state)[None],
    )


def monte_carlo_control(num_actions: int, step_size: Schedule, first_visit: bool = True) -> EpisodeRule:
    """Monte Carlo control of the policy that is followed: with exploring starts, or epsilon-soft.

    Args:
      num_actions: A; the table is kept flat, `[S A]`.
      step_size: alpha; `schedules.by_visits()` gives the mean of the returns.
      first_visit: otherwise every visit counts.

    Source: Sutton and Barto 2018, sections 5.3 (with `exploring_starts` of `episodes`) and 5.4.
    """

    def row(table: Array, state: Array) -> Array:
        return look_up(table, state * num_actions + jnp.arange(num_actions))

    return EpisodeRule(
        init=lambda states, actions, value: Memory(
            jnp.full(states * actions, value, jnp.float32), jnp.zeros(states * actions)
        ),
        update=lambda memory, episode: update(
            memory, episode, episode.state * num_actions + episode.action, first_visit, step_size
        ),
        values=lambda memory: memory.values.reshape(-1, num_actions),
        action_values=lambda memory, state: row(memory.values, state),
        visits=lambda memory, state: row(memory.counts, state),
    )
