"""The evidence lower bound of a latent-variable model p(x, z) = p(z) p(x | z) with p(z) = N(0, I), and its parts."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlfx.types import Array

LOG_TWO_PI = math.log(2 * math.pi)


def gaussian_kl(mean: Array, log_variance: Array) -> Array:
    """The divergence of a normal distribution from the standard one, of each coordinate.

    `KL(N(mu, s^2) || N(0, 1)) = -1/2 (1 + log s^2 - mu^2 - s^2)`

    Args:
      mean: `[...]`.
      log_variance: log s^2 `[...]`.

    Returns:
      `[...]` in nats; the divergence of the product is the sum.

    Source: Kingma and Welling 2013, Auto-Encoding Variational Bayes (arXiv:1312.6114), appendix B.
    """
    return -0.5 * (1 + log_variance - mean**2 - jnp.exp(log_variance))


def reparameterize(mean: Array, log_variance: Array, noise: Array) -> Array:
    """A draw from N(mu, s^2) through which gradients flow: `z = mu + s e` with e a draw from N(0, 1).

    Source: Kingma and Welling 2013 (arXiv:1312.6114), section 2.4.
    """
    return mean + jnp.exp(0.5 * log_variance) * noise


def normal_log_density(x: Array, mean: Array | float = 0.0, log_variance: Array | float = 0.0) -> Array:
    """`log N(x; mu, s^2) = -1/2 (log 2 pi + log s^2 + (x - mu)^2 / s^2)`, elementwise, in nats."""
    return -0.5 * (LOG_TWO_PI + log_variance + (x - mean) ** 2 * jnp.exp(-jnp.asarray(log_variance)))


def bernoulli_log_likelihood(logits: Array, log_variance: Array, x: Array) -> Array:
    """The log-probability of pixels that are 0 or 1: `sum_i x_i l_i - log(1 + exp l_i)`.

    Of grey pixels between them it is minus their cross-entropy, which no choice of l brings to 0, and not a likelihood.

    Args:
      logits: l `[..., H, W, C]`.
      log_variance: not used; it is there as in `gaussian_log_likelihood`.
      x: `[..., H, W, C]` in [0, 1].

    Returns:
      `[...]` in nats.

    Source: Kingma and Welling 2013 (arXiv:1312.6114), appendix C.1.
    """
    return (x * logits - jax.nn.softplus(logits)).sum((-3, -2, -1))


def gaussian_log_likelihood(mean: Array, log_variance: Array, x: Array) -> Array:
    """The log-density of pixels with one variance for all: `sum_i log N(x_i; mu_i, s^2)`.

    Args:
      mean: mu `[..., H, W, C]`.
      log_variance: log s^2, `[]` or like x.
      x: `[..., H, W, C]`.

    Returns:
      `[...]` in nats, above 0 where the density is.

    Source: Kingma and Welling 2013 (arXiv:1312.6114), appendix C.2; one learned s: Rybkin, Daniilidis and Levine 2021,
      Simple and Effective VAE Training with Calibrated Decoders (arXiv:2006.13202), section 3.
    """
    return normal_log_density(x, mean, log_variance).sum((-3, -2, -1))


LogLikelihood = Callable[[Array, Array, Array], Array]
LIKELIHOODS: dict[str, LogLikelihood] = {"bernoulli": bernoulli_log_likelihood, "gaussian": gaussian_log_likelihood}


def importance_weighted(log_weights: Array) -> Array:
    """The bound of k draws from q(z | x): `log 1/k sum_i w_i` with `w_i = p(x, z_i) / q(z_i | x)`.

    Its expectation rises with k, from the evidence lower bound at k = 1 towards log p(x).

    Args:
      log_weights: log w `[..., k]`.

    Returns:
      `[...]` in nats.

    Source: Burda, Grosse and Salakhutdinov 2015, Importance Weighted Autoencoders (arXiv:1509.00519), equation 8.
    """
    return jax.nn.logsumexp(log_weights, -1) - math.log(log_weights.shape[-1])


def binarize(bits: Array, images: Array) -> Array:
    """Pixels that are 1 with the probability that is their grey, and otherwise 0.

    Args:
      bits: random bits like images, uint16: half the work of uniform floats, which is a share of a training step.
      images: of any shape, in [0, 1]; the probability is exact to 2^-16.

    Source: Salakhutdinov and Murray 2008, On the Quantitative Analysis of Deep Belief Networks, section 6; a new draw
      at every step: Burda et al. 2015 (arXiv:1509.00519), section 5.
    """
    return (bits < images * 2**16).astype(images.dtype)
