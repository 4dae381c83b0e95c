"""Whole episodes under a fixed policy: many at once for their returns, or one in full to look at."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.types import Array, Environment, Key, Timestep

Policy = Callable[[Key, Array], tuple[Array, Array]]  # key, observations [N, *obs] to (actions [N], their values [N])


class Episodes(NamedTuple):
    """What N episodes came to, one entry each.

    Attributes:
      returns: `[N]` sums of rewards.
      discounted: `[N]` returns discounted by gamma.
      lengths: `[N]` int32 steps.
      terminated: `[N]` bool; false where a time limit ended it.
      values: `[N]` what the policy expected of its first action.
    """

    returns: Array
    discounted: Array
    lengths: Array
    terminated: Array
    values: Array


def play(env: Environment, policy: Policy, key: Key, count: int, max_steps: int, gamma: float = 1.0) -> Episodes:
    """Plays N episodes side by side to their ends.

    Args:
      env: the environment.
      policy: chooses the actions and says what it expects of them.
      key: of the episodes.
      count: N.
      max_steps: after so many steps an episode that is not over counts as truncated.
      gamma: for `discounted`.
    """

    def one(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        time, states, observation, over, so_far = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        action, value = policy(act_key, observation)
        states, then = jax.vmap(env.step)(jax.random.split(env_key, count), states, action)
        going = ~over
        so_far = Episodes(
            so_far.returns + going * then.reward,
            so_far.discounted + going * gamma**time * then.reward,
            so_far.lengths + going,
            so_far.terminated | (going & then.terminated),
            jnp.where(time == 0, value, so_far.values),
        )
        return time + 1, states, then.observation, over | then.terminated | then.truncated, so_far

    states, observation = jax.vmap(env.reset)(jax.random.split(jax.random.fold_in(key, 2**31 - 1), count))
    nothing, never = jnp.zeros(count), jnp.zeros(count, bool)
    begin = (jnp.int32(0), states, observation, never, Episodes(nothing, nothing, jnp.int32(nothing), never, nothing))
    return jax.lax.while_loop(lambda c: (c[0] < max_steps) & ~c[3].all(), one, begin)[-1]


class Recording(NamedTuple):
    """One episode step by step, in NumPy arrays; T steps.

    Attributes:
      states: the states of the environment `[T, ...]` that actions were taken in.
      observations: `[T, *obs]` that actions were chosen on.
      actions: `[T]`.
      rewards: `[T]`.
      values: `[T]` what the policy expected.
      terminated: whether the task ended it.
    """

    states: Any
    observations: Array
    actions: Array
    rewards: Array
    values: Array
    terminated: bool


def record(env: Environment, policy: Policy, key: Key, max_steps: int) -> Recording:
    """Plays one episode and keeps its every step, up to `max_steps`. Not to be traced."""

    def one(carry: tuple[Any, Array], time: Array) -> tuple[tuple[Any, Array], Any]:
        state, observation = carry
        act_key, env_key = jax.random.split(jax.random.fold_in(key, time))
        action, value = policy(act_key, observation[None])
        following, then = env.step(env_key, state, action[0])
        return (following, then.observation), (state, observation, action[0], value[0], then)

    def whole(key: Key) -> Any:
        start = env.reset(jax.random.fold_in(key, 2**31 - 1))
        return jax.lax.scan(one, start, jnp.arange(max_steps))[1]

    states, observations, actions, values, then = jax.tree.map(jax.device_get, jax.jit(whole)(key))
    over = then.terminated | then.truncated
    length = int(over.argmax()) + 1 if over.any() else max_steps
    kept: tuple[Any, Array, Array, Array, Timestep] = jax.tree.map(
        lambda x: x[:length], (states, observations, actions, values, then)
    )
    states, observations, actions, values, then = kept
    return Recording(states, observations, actions, then.reward, values, bool(then.terminated[-1]))
