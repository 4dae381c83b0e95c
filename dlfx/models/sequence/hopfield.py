"""Hopfield's associative memory: patterns of +1 and -1 are the valleys of an energy that recall goes down."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dlfx.types import Array, Key, UserError


class Recalled(NamedTuple):
    """What recall came to.

    Attributes:
      states: `[..., N]`.
      energies: `[sweeps + 1, ...]`, at the beginning and after each sweep; they never rise.
      sweeps: [] int32, how many ran, the last of which changed nothing unless it was cut there.
    """

    states: Array
    energies: Array
    sweeps: Array


def hebbian(patterns: Array) -> Array:
    """Weights that store patterns by Hebb's rule: `w_ij = (1 / N) sum_p x_pi x_pj`, with `w_ii = 0`.

    Args:
      patterns: `[P, N]` of +1 and -1. About 0.138 N random ones can be recalled; far fewer that resemble each other.

    Returns:
      `[N, N]`, symmetric.

    Source: Hopfield 1982, Neural networks and physical systems with emergent collective computational abilities,
    equation 2.
    """
    return _without_diagonal(patterns.T @ patterns / patterns.shape[-1])


def projection(patterns: Array) -> Array:
    """Weights that store up to N patterns whatever they share: `W = X^T (X X^T)^-1 X` with 0 on the diagonal.

    W X^T = X^T before the diagonal, below 1, is taken out: every unit of a stored pattern keeps its sign.

    Args:
      patterns: `[P, N]` of +1 and -1, linearly independent.

    Returns:
      `[N, N]`, symmetric.

    Source: Personnaz, Guyon and Dreyfus 1985, Information storage and retrieval in spin-glass like neural networks.
    """
    return _without_diagonal(jnp.linalg.pinv(patterns) @ patterns)


def energy(weights: Array, states: Array) -> Array:
    """`-1/2 s^T W s` of states `[..., N]`, `[...]`. Source: Hopfield 1982, equation 7."""
    return -0.5 * jnp.einsum("...i,ij,...j->...", states, weights, states)


def update(weights: Array, states: Array, unit: Array | int) -> Array:
    """One unit takes the sign of its input, `s_i <- sign(sum_j w_ij s_j)`, and stays as it is where that is 0.

    Args:
      weights: `[N, N]`.
      states: `[..., N]` of +1 and -1.
      unit: i.

    Source: Hopfield 1982, equation 1, with thresholds of 0.
    """
    field = states @ weights[unit]
    return states.at[..., unit].set(jnp.where(field == 0, states[..., unit], jnp.sign(field)))


def recall(weights: Array, states: Array, key: Key, max_sweeps: int = 100) -> Recalled:
    """Updates all units, one after the other, in sweeps of random order, until a sweep changes nothing.

    Args:
      weights: `[N, N]`, symmetric without diagonal: then the energy never rises, and a state is reached that stays.
      states: `[..., N]` of +1 and -1, all updated in the same order.
      key: of the orders.
      max_sweeps: it stops after so many anyway.

    Raises:
      UserError: for max_sweeps below 1.

    Source: Hopfield 1982.
    """
    if max_sweeps < 1:
        raise UserError(f"max_sweeps {max_sweeps}; it is at least 1")
    before = energy(weights, states)
    energies = jnp.broadcast_to(before, (max_sweeps + 1, *before.shape))

    def moving(carry: tuple[Array, Array, Array, Array]) -> Array:
        sweeps, _, _, changed = carry
        return changed & (sweeps < max_sweeps)

    def sweep(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        sweeps, states, energies, _ = carry
        order = jax.random.permutation(jax.random.fold_in(key, sweeps), weights.shape[0])
        after, _ = lax.scan(lambda s, unit: (update(weights, s, unit), None), states, order)
        later = jnp.arange(max_sweeps + 1).reshape(-1, *[1] * before.ndim) > sweeps
        return sweeps + 1, after, jnp.where(later, energy(weights, after), energies), jnp.any(after != states)

    carry = (jnp.int32(0), states, energies, jnp.bool_(True))
    sweeps, states, energies, _ = lax.while_loop(moving, sweep, carry)
    return Recalled(states, energies, sweeps)


def corrupt(key: Key, patterns: Array, share: float) -> Array:
    """Patterns `[..., N]` with that share of their units, in random places, turned over.

    Raises:
      UserError: for a share outside of 0 to 1.
    """
    if not 0 <= share <= 1:
        raise UserError(f"share {share:g}; it is from 0 to 1")
    ranks = jax.random.uniform(key, patterns.shape).argsort(-1)
    return jnp.where(ranks < round(share * patterns.shape[-1]), -patterns, patterns)


def mean_field(points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """What theory tells of large networks that Hebb's rule filled with random patterns: the loads and overlaps.

    The load is a = P / N and the overlap m the mean of x_i s_i between a pattern x and the state s recalled from it.
    They solve `m = erf(y)` and `sqrt(2 a) = erf(y) / y - (2 / sqrt(pi)) exp(-y^2)`; the largest a, 0.138, is the
    capacity: beyond it no state near a pattern stays.

    Returns:
      The loads `[points]`, rising to the capacity, and the overlaps `[points]`, falling from 1.

    Source: Amit, Gutfreund and Sompolinsky 1985, Storing infinite numbers of patterns in a spin-glass model of neural
    networks; Hertz, Krogh and Palmer 1991, Introduction to the Theory of Neural Computation, section 2.5.
    """
    y = np.linspace(6, 0.5, 20_000)
    m = np.array([math.erf(each) for each in y])  # in double precision, as 1 - m is what matters
    a = (m / y - 2 / np.sqrt(np.pi) * np.exp(-(y**2))) ** 2 / 2
    chosen = np.linspace(0, a.argmax(), points).astype(int)
    return a[chosen], m[chosen]


def _without_diagonal(weights: Array) -> Array:
    return weights * (1 - jnp.eye(len(weights), dtype=weights.dtype))
