"""What running episodes have come to, kept inside the state of an agent."""

from typing import NamedTuple

import jax.numpy as jnp

from dlfx.types import Array


class Episodes(NamedTuple):
    """The running episode of each environment, and the last one that it finished."""

    so_far: Array  # [E] rewards
    finished: Array  # [E] return of the last finished episode, 0 before the first
    number: Array  # [] int32, of episodes finished by all


def no_episodes(num_envs: int) -> Episodes:
    """Before the first step."""
    nothing = jnp.zeros(num_envs)
    return Episodes(nothing, nothing, jnp.int32(0))


def after(episodes: Episodes, reward: Array, ended: Array) -> Episodes:
    """After a step with rewards `[E]`, which ended some episodes `[E]`."""
    so_far = episodes.so_far + reward
    finished = jnp.where(ended, so_far, episodes.finished)
    return Episodes(jnp.where(ended, 0, so_far), finished, episodes.number + ended.sum(dtype=jnp.int32))
