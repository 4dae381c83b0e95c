"""Advantages of trajectories, and the losses of policies, with the textbook's indices; the caller vmaps."""

import jax
import jax.numpy as jnp

from dlfx.types import Array


def generalized_advantage(
    r_t: Array, discount_t: Array, ended_t: Array, v_tm1: Array, v_t: Array, trace_decay: float
) -> Array:
    """Exponentially weighted sums of TD errors along a trajectory, `[T]` (Schulman et al. 2016, eq. 16).

    A_t = delta_t + discount_t lambda A_{t+1} within an episode, delta_t = r_t + discount_t v_t - v_tm1. With lambda 1
    it is the return minus the baseline, with lambda 0 the TD error. Where an episode ended the sum stops; if it was
    truncated, the value of the state it was cut off in still counts.

    Args:
      r_t: `[T]` rewards.
      discount_t: `[T]` gamma, 0 where the task terminated.
      ended_t: `[T]` bool, terminated or truncated.
      v_tm1: `[T]` values of the states that were acted in.
      v_t: `[T]` values of their successors, before any reset.
      trace_decay: lambda.
    """
    delta = r_t + discount_t * v_t - v_tm1
    carry_on = discount_t * trace_decay * (1.0 - ended_t)

    def back(following: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        here = x[0] + x[1] * following
        return here, here

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, carry_on), reverse=True)[1]


def policy_gradient(logits: Array, action: Array, advantage: Array) -> Array:
    """-advantage log pi(a), [], whose gradient is REINFORCE's (Williams 1992; Sutton and Barto 2018, eq. 13.11).

    Args:
      logits: `[A]` of the policy.
      action: [] the action taken.
      advantage: [] how much better it was than the baseline; a constant to differentiation.
    """
    return -jax.lax.stop_gradient(advantage) * jax.nn.log_softmax(logits)[action]


def clipped_surrogate(logits: Array, action: Array, advantage: Array, log_prob_old: Array, clip: float) -> Array:
    """-min(rho A, clip(rho, 1 - clip, 1 + clip) A), rho = pi(a) / pi_old(a), [] (PPO, Schulman et al. 2017, eq. 7).

    Args:
      logits: `[A]` of the policy now.
      action: [] the action taken.
      advantage: [].
      log_prob_old: [] log-probability of the action when it was taken.
      clip: how far the ratio may go before its gradient vanishes.
    """
    ratio = jnp.exp(jax.nn.log_softmax(logits)[action] - log_prob_old)
    return -jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)


def entropy(logits: Array) -> Array:
    """-sum_a pi(a) log pi(a), [], in nats, of logits `[A]`."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs)
