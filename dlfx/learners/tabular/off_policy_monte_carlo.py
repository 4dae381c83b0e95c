"""Off-policy Monte Carlo control: the greedy policy, learned from the episodes of another by importance sampling."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.learners.tabular.episodes import Episode, EpisodeRule
from dlfx.learners.tabular.tables import add, first_best, look_up
from dlfx.types import Array


class Memory(NamedTuple):
    """The values, the weights that went into each, and how often it was visited: all `[S, A]` float32."""

    q: Array
    weights: Array
    visits: Array


def update(memory: Memory, episode: Episode) -> tuple[Memory, Array]:
    """Weighted importance sampling, from the last step to the first, as long as the actions were greedy.

    `G = R + gamma G`; `C(S, A) += W`; `Q(S, A) += W / C(S, A) (G - Q(S, A))`; stop unless A is the greedy action;
    `W /= b(A | S)`

    Args:
      memory: see `Memory`.
      episode: the experience, with the probabilities b of the behaviour.

    Returns:
      (memory, the mean absolute error of the updates []).
    """

    def back(i: int, carry: tuple[Memory, Array, Array, Array, Array]) -> tuple[Memory, Array, Array, Array, Array]:
        (q, weights, visits), following, weight, errors, updates = carry
        t = episode.length - 1 - i
        state, action = look_up(episode.state, t), look_up(episode.action, t)
        following = look_up(episode.reward, t) + episode.gamma * following
        weights = add(weights, weight, state, action)
        error = following - look_up(q, state, action)
        # Once the weight is 0 nothing changes any more; the guard is for an entry without any weight at all.
        share = weight / jnp.where(weight > 0, look_up(weights, state, action), 1.0)
        q = add(q, share * error, state, action)
        counted = (weight > 0).astype(jnp.float32)
        visits = add(visits, counted, state, action)
        greedy = first_best(look_up(q, state)) == action
        # Beyond 1e30 a weight is as good as infinite: nothing before it in the episodes counts.
        after = jnp.minimum(weight / jnp.maximum(look_up(episode.probability, t), 1e-30), 1e30)
        weight = jnp.where(greedy, after, 0.0)
        return Memory(q, weights, visits), following, weight, errors + counted * jnp.abs(error), updates + counted

    begin = memory, episode.tail, jnp.float32(1), jnp.float32(0), jnp.float32(0)
    memory, _, _, errors, updates = jax.lax.fori_loop(0, episode.length, back, begin)
    return memory, errors / updates


def off_policy_monte_carlo() -> EpisodeRule:
    """Off-policy Monte Carlo control. Only the ends of episodes, after the last action that was not greedy, teach it.

    Source: Sutton and Barto 2018, section 5.7.
    """

    def init(states: int, actions: int, value: float) -> Memory:
        zeros = jnp.zeros((states, actions), jnp.float32)
        return Memory(zeros + value, zeros, zeros)

    return EpisodeRule(
        init=init,
        update=update,
        values=lambda memory: memory.q,
        action_values=lambda memory, state: look_up(memory.q, state),
        visits=lambda memory, state: look_up(memory.visits, state),
    )
