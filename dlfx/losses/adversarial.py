"""Losses of a critic D and a generator G against each other, from logits, and the penalties that smooth a critic."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dlfx.types import Array

Critic = Callable[[Array], Array]  # points `[B, ...]` to logits `[B]`, each point on its own


class Game(NamedTuple):
    """What each player minimises.

    Attributes:
      critic: (logits of real points `[B]`, of generated ones `[B']`) to a scalar.
      generator: logits of generated points `[B']` to a scalar.
      output: what a logit means to the critic: the probability that a point is real, or the number itself.
    """

    critic: Callable[[Array, Array], Array]
    generator: Callable[[Array], Array]
    output: Callable[[Array], Array]


def value(real: Array, fake: Array) -> Array:
    """The value function of the minimax game, which the critic maximises and the generator minimises.

    `V = E log D(x) + E log(1 - D(G(z)))`, D = `sigmoid(logit)`. At the best critic, D = `p / (p + q)`, it is
    `-log 4 + 2 JS(p || q)`: -1.386 where G has found the data, and 0 where the supports are disjoint.

    Args:
      real: logits of real points `[B]`.
      fake: logits of generated points `[B']`.

    Source: Goodfellow et al. 2014, Generative Adversarial Networks (arXiv:1406.2661), equation 1, proposition 1 and
      theorem 1.
    """
    return jax.nn.log_sigmoid(real).mean() + jax.nn.log_sigmoid(-fake).mean()


def minimax_generator(fake: Array) -> Array:
    """The generator's part of the value: `E log(1 - D(G(z)))`. Its gradient vanishes where the critic is sure.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), algorithm 1.
    """
    return jax.nn.log_sigmoid(-fake).mean()


def non_saturating_generator(fake: Array) -> Array:
    """`-E log D(G(z))`: the fixed point of the minimax game, with a gradient also where the critic is sure.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), section 3.
    """
    return -jax.nn.log_sigmoid(fake).mean()


def least_squares_critic(real: Array, fake: Array) -> Array:
    """`1/2 E (D(x) - 1)^2 + 1/2 E D(G(z))^2`, with the logit itself as D.

    Source: Mao et al. 2017, Least Squares Generative Adversarial Networks (arXiv:1611.04076), equation 9.
    """
    return (jnp.square(real - 1).mean() + jnp.square(fake).mean()) / 2


def least_squares_generator(fake: Array) -> Array:
    """`1/2 E (D(G(z)) - 1)^2`. Source: Mao et al. 2017 (arXiv:1611.04076), equation 9."""
    return jnp.square(fake - 1).mean() / 2


def hinge_critic(real: Array, fake: Array) -> Array:
    """`E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))`: points beyond the margin no longer count.

    Source: Miyato et al. 2018, Spectral Normalization for GANs (arXiv:1802.05957), equation 16.
    """
    return jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + fake).mean()


def wasserstein_critic(real: Array, fake: Array) -> Array:
    """`E D(G(z)) - E D(x)`: minus the Wasserstein-1 distance, where D is the best 1-Lipschitz function.

    Source: Arjovsky, Chintala and Bottou 2017, Wasserstein GAN (arXiv:1701.07875), equation 2.
    """
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Array) -> Array:
    """`-E D(G(z))`, which also goes with the hinge.

    Source: Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1; Miyato et al. 2018 (arXiv:1802.05957), equation 17.
    """
    return -fake.mean()


def _number(logit: Array) -> Array:
    return logit


GAMES = {
    "minimax": Game(lambda real, fake: -value(real, fake), minimax_generator, jax.nn.sigmoid),
    "non_saturating": Game(lambda real, fake: -value(real, fake), non_saturating_generator, jax.nn.sigmoid),
    "least_squares": Game(least_squares_critic, least_squares_generator, _number),
    "hinge": Game(hinge_critic, wasserstein_generator, _number),
    "wasserstein": Game(wasserstein_critic, wasserstein_generator, _number),
}
PROBABILITIES = ("minimax", "non_saturating")  # the games whose critic gives the probability of being real


def interpolates(real: Array, fake: Array, weights: Array) -> Array:
    """Points between pairs: `u x + (1 - u) G(z)`.

    Args:
      real: `[B, ...]`.
      fake: `[B, ...]`.
      weights: u in [0, 1], one for each pair, `[B]`.
    """
    u = weights.reshape(-1, *[1] * (real.ndim - 1))
    return u * real + (1 - u) * fake


def squared_slopes(critic: Critic, points: Array) -> Array:
    """The squared norm of the critic's gradient at each point, `[B]`.

    The critic may not mix the points of a batch, as batch norm does: the gradient at a point would mean nothing.
    """
    slopes = jax.grad(lambda x: critic(x).sum())(points)
    return jnp.square(slopes).reshape(len(points), -1).sum(-1)


def gradient_penalty(critic: Critic, points: Array, target: float = 1.0) -> Array:
    """The two-sided penalty that keeps a critic 1-Lipschitz: `E (||grad D(x)|| - target)^2`.

    Args:
      critic: points `[B, ...]` to logits `[B]`.
      points: where to look, such as the interpolates of real and generated points.
      target: the norm wanted.

    Source: Gulrajani et al. 2017, Improved Training of Wasserstein GANs (arXiv:1704.00028), equation 3.
    """
    squares = squared_slopes(critic, points)
    flat = squares == 0  # where the root has no derivative
    norms = jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, squares)))
    return jnp.square(norms - target).mean()


def r1(critic: Critic, real: Array) -> Array:
    """The zero-centred penalty on real points: `1/2 E ||grad D(x)||^2`, to be weighted by gamma.

    Source: Mescheder, Geiger and Nowozin 2018, Which Training Methods for GANs do actually Converge?
      (arXiv:1801.04406), equation 9.
    """
    return squared_slopes(critic, real).mean() / 2
