"""What samples and bounds say of a generative model: modes, class shares, inception score, bounds on the likelihood."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlfx.types import Array


def modes(samples: Array, centers: Array, std: Array | float, radius: float = 3.0, least: int = 1) -> dict[str, Array]:
    """How samples of a mixture of isotropic Gaussians fall on its modes.

    A sample is of high quality where `min_m ||x - c_m|| <= radius std`, and then it counts for the nearest mode. In two
    dimensions `1 - exp(-radius^2 / 2)` of the mixture itself are, 98.9 % at radius 3.

    Args:
      samples: `[n, D]`. One that is not finite is of no quality.
      centers: of the modes, `[M, D]`.
      std: standard deviation of every mode, in each coordinate.
      radius: in standard deviations.
      least: the high-quality samples with which a mode counts as covered. 1 is the convention of the source; it lets
        one stray sample among thousands cover a mode, which a larger number does not.

    Returns:
      `quality` [], the share of high-quality samples; `counts` `[M]`, high-quality samples by mode; `covered` [], the
      number of modes with at least `least` of them; `divergence` [], `KL(counts / sum(counts) || uniform)` in nats,
      from 0 to log M, and log M where there is no such sample.

    Source: Srivastava et al. 2017, VEEGAN (arXiv:1705.07761), table 1.
    """
    distances = jnp.linalg.norm(samples[:, None] - centers[None], axis=-1)
    good = distances.min(-1) <= radius * std  # false for NaN
    number = len(centers)
    counts = (jax.nn.one_hot(distances.argmin(-1), number, dtype=jnp.int32) * good[:, None]).sum(0)
    shares = counts / jnp.maximum(counts.sum(), 1)
    divergence = jnp.where(counts.sum() > 0, math.log(number) + jax.scipy.special.xlogy(shares, shares).sum(), jnp.inf)
    return {
        "quality": good.mean(),
        "counts": counts,
        "covered": (counts >= least).sum(),
        "divergence": jnp.clip(divergence, 0, math.log(number)),  # rounding leaves -1e-8 where all are equal
    }


def class_shares(logits: Array, reference: Array) -> dict[str, Array]:
    """How often a classifier sees each class among generated images, compared with the data.

    `share_k = (1 / n) #{i: argmax_j logits_ij = k}`, ratio `share_k / reference_k`

    All classes are within a factor of two of the data where `smallest >= 0.5` and `largest <= 2`.

    Args:
      logits: of the generated images, `[n, K]`.
      reference: shares (or counts) of the classes in the data, `[K]`.

    Returns:
      `shares` `[K]`, and the `smallest` and `largest` [] of their ratios to the reference. A class that neither has is
      of ratio 1; one that only the generated images have is of ratio infinity.
    """
    shares = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1]).mean(0)
    reference = reference / reference.sum()
    ratios = jnp.where((shares == 0) & (reference == 0), 1, shares / reference)
    return {"shares": shares, "smallest": ratios.min(), "largest": ratios.max()}


def inception_score(logits: Array) -> Array:
    """The inception score: how sure a classifier is of each image, and how unsure of all of them together.

    `exp((1 / n) sum_i KL(p(y | x_i) || p(y)))`, p(y) = `(1 / n) sum_i p(y | x_i)`

    Args:
      logits: of the generated images, `[n, K]`. The paper's mean and deviation over ten splits are those of
        `jax.vmap(inception_score)(logits.reshape(10, -1, K))`.

    Returns:
      [], from 1 (every image the same to the classifier) to K (every class equally often, without doubt).

    Source: Salimans et al. 2016, Improved Techniques for Training GANs (arXiv:1606.03498), section 4.
    """
    log_p = jax.nn.log_softmax(logits)
    log_marginal = jax.nn.logsumexp(log_p, axis=0) - math.log(len(logits))
    p = jnp.exp(log_p)
    return jnp.exp(jnp.where(p > 0, p * (log_p - log_marginal), 0).sum(-1).mean())


def importance_bound(log_weights: Array, axis: int = 0) -> Array:
    """The importance-weighted bound on the log-likelihood: tighter in expectation with every sample more.

    `log (1 / K) sum_k w_k`, w_k = p(x, z_k) / q(z_k | x), z_k from q

    Of one sample it is the evidence lower bound (ELBO); where all weights are equal it is log p(x).

    Args:
      log_weights: log w_k in nats, `[K, ...]`.
      axis: of the samples.

    Returns:
      log_weights without that axis.

    Source: Burda, Grosse and Salakhutdinov 2015, Importance Weighted Autoencoders (arXiv:1509.00519), theorem 1.
    """
    return jax.nn.logsumexp(log_weights, axis) - math.log(log_weights.shape[axis])


def chunked_importance_bound(log_weights: Callable[[Array], Array], chunks: int) -> Array:
    """`importance_bound` over more samples than fit in memory, one chunk after the other.

    Args:
      log_weights: the number of a chunk, [] int32 from 0, to the log-weights `[k, ...]` of its own k samples, such as
        those drawn with `fold_in(key, chunk)`. Traced once.
      chunks: how many; K = k chunks.

    Returns:
      `[...]`.
    """
    shape = jax.eval_shape(log_weights, jnp.int32(0))

    def add(total: Array, chunk: Array) -> tuple[Array, None]:
        return jnp.logaddexp(total, jax.nn.logsumexp(log_weights(chunk), 0)), None

    nothing = jnp.full(shape.shape[1:], -jnp.inf, shape.dtype)
    return jax.lax.scan(add, nothing, jnp.arange(chunks))[0] - math.log(chunks * shape.shape[0])


def bits_per_dimension(nats: Array | float, dimensions: int, levels: int = 1) -> Array | float:
    """A negative log-likelihood in bits for each dimension.

    `nats / (D log 2) + log2(levels)`

    Args:
      nats: `-log p(x)` of whole examples.
      dimensions: D, the numbers in an example: H W C.
      levels: 256 where p is a density of pixels scaled from [0, 256) to [0, 1); 1 where it is of the pixels themselves.

    Source: Theis, van den Oord and Bethge 2016, A note on the evaluation of generative models (arXiv:1511.01844),
      section 3.1.
    """
    return nats / (dimensions * math.log(2)) + math.log2(levels)
