"""Temporal-difference errors of single transitions, with the textbook's indices; the caller vmaps them.

A transition goes from time t-1 to t: `q_tm1, a_tm1, r_t, discount_t, q_t`. `discount_t` is gamma within an episode
and 0 where it terminated; a truncated episode keeps gamma. Targets are constants to differentiation.
"""

import jax
import jax.numpy as jnp

from dlfx.types import Array


def double_q_learning(
    q_tm1: Array, a_tm1: Array, r_t: Array, discount_t: Array, q_t_value: Array, q_t_selector: Array
) -> Array:
    """The error r_t + discount_t q_t_value[argmax q_t_selector] - q_tm1[a_tm1] (van Hasselt et al. 2016, eq. 4).

    One set of values selects the action, another one judges it: that takes away the bias of the maximum. With the same
    values for both it is the error of Q-learning, r_t + discount_t max_a q_t[a] - q_tm1[a_tm1] (Watkins 1989).
    """
    return jax.lax.stop_gradient(r_t + discount_t * q_t_value[q_t_selector.argmax()]) - q_tm1[a_tm1]


def categorical_projection(atoms_t: Array, probs_t: Array, atoms: Array) -> Array:
    """A distribution on shifted atoms, carried over to evenly spaced ones (Bellemare et al. 2017, eq. 7).

    Each atom's mass is split between its two neighbours in proportion to nearness; what lies outside goes to the ends.

    Args:
      atoms_t: `[K]` where the mass lies, r_t + discount_t atoms.
      probs_t: `[K]` the mass there.
      atoms: `[K]` evenly spaced, increasing.

    Returns:
      `[K]` the mass on `atoms`.
    """
    spacing = atoms[1] - atoms[0]
    distance = jnp.abs(jnp.clip(atoms_t, atoms[0], atoms[-1])[None, :] - atoms[:, None]) / spacing
    return jnp.clip(1 - distance, 0, 1) @ probs_t


def categorical_q_learning(
    logits_tm1: Array, a_tm1: Array, r_t: Array, discount_t: Array, logits_t: Array, q_t_selector: Array, atoms: Array
) -> Array:
    """The cross-entropy between the projected target distribution and that of the action taken, [] (C51).

    Args:
      logits_tm1: `[A, K]` over the atoms, before the transition.
      a_tm1: [] the action taken there.
      r_t: [] reward.
      discount_t: [] discount of what follows.
      logits_t: `[A, K]` after it, of the target network.
      q_t_selector: `[A]` values that choose the action after it (the target's own, or the online network's: double).
      atoms: `[K]` returns that the logits speak of.
    """
    target = jax.nn.softmax(logits_t[q_t_selector.argmax()])
    target = jax.lax.stop_gradient(categorical_projection(r_t + discount_t * atoms, target, atoms))
    return -jnp.dot(target, jax.nn.log_softmax(logits_tm1[a_tm1]))


def quantile_q_learning(
    quantiles_tm1: Array,
    a_tm1: Array,
    r_t: Array,
    discount_t: Array,
    quantiles_t: Array,
    q_t_selector: Array,
    huber_delta: float = 1.0,
) -> Array:
    """The quantile Huber loss, sum over quantiles of the mean over targets, [] (Dabney et al. 2018, eq. 10; QR-DQN).

    Args:
      quantiles_tm1: `[A, K]` estimates at the levels (2 i + 1) / 2 K, before the transition.
      a_tm1: [] the action taken there.
      r_t: [] reward.
      discount_t: [] discount of what follows.
      quantiles_t: `[A, K]` after it, of the target network.
      q_t_selector: `[A]` values that choose the action after it.
      huber_delta: where the square turns into a line; 0 gives the plain quantile loss.
    """
    estimate = quantiles_tm1[a_tm1]
    levels = (jnp.arange(estimate.shape[0]) + 0.5) / estimate.shape[0]
    target = jax.lax.stop_gradient(r_t + discount_t * quantiles_t[q_t_selector.argmax()])
    error = target[None, :] - estimate[:, None]  # [quantile, target]
    size = huber(error, huber_delta) / huber_delta if huber_delta else jnp.abs(error)
    weight = jnp.abs(levels[:, None] - (jax.lax.stop_gradient(error) < 0))
    return (weight * size).mean(1).sum()


def huber(error: Array, delta: float) -> Array:
    """error^2 / 2 within delta of 0, and the tangent's line beyond it (Huber 1964). Any shape."""
    size = jnp.abs(error)
    near = jnp.minimum(size, delta)
    return 0.5 * near**2 + delta * (size - near)


def n_step_return(rewards: Array, terminated: Array, ended: Array, gamma: float) -> tuple[Array, Array, Array]:
    """What n successive steps give up to the end of their episode (Sutton and Barto 2018, eq. 7.1).

    Args:
      rewards: `[n]`.
      terminated: `[n]` whether the task ended there.
      ended: `[n]` whether the episode ended there, terminated or truncated.
      gamma: the discount.

    Returns:
      The discounted sum of rewards up to the first end, [];
      the discount of the value that follows, gamma^m after m steps, 0 after a termination, [];
      the index m - 1 of the last step taken, whose successor that value belongs to, [].
    """
    n = rewards.shape[0]
    going = jnp.cumprod(jnp.concatenate([jnp.ones(1), 1.0 - ended[:-1]]))  # whether step i still belongs to it
    last = going.sum().astype(jnp.int32) - 1
    powers = gamma ** jnp.arange(n)
    discount = gamma * powers[last] * (1.0 - terminated[last])
    return (going * powers * rewards).sum(), discount, last
