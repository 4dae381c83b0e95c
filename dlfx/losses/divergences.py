"""How far apart two distributions are: of probabilities over K classes, of logits, of Gaussians. All in nats.

0 log 0 is 0, and a probability of exactly 0 gets no gradient from its own logarithm, which would be infinite.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import rel_entr

from dlfx.types import Array


def entropy(p: Array) -> Array:
    """`H(p) = -sum_k p_k log p_k`, from probabilities `[..., K]` to `[...]` (Shannon 1948, section 6)."""
    return cross_entropy(p, p)


def cross_entropy(p: Array, q: Array) -> Array:
    """`H(p, q) = -sum_k p_k log q_k`: the mean length of a code made for q where p is true.

    Logits have a cross-entropy of their own, `losses.classification`: there the logarithm cannot overflow.

    Args:
      p: probabilities `[..., K]`.
      q: probabilities `[..., K]`.

    Returns:
      `[...]`, infinite where a class has p > 0 and q = 0.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, equation 3.51.
    """
    defined = (p > 0) & (q > 0)
    # The logarithm must not see what `where` drops: its infinite slope times 0 would be a NaN gradient.
    terms = jnp.where(defined, -p * jnp.log(jnp.where(defined, q, 1)), jnp.where(p > 0, jnp.inf, 0))
    return terms.sum(-1)


def kl(p: Array, q: Array) -> Array:
    """Kullback-Leibler divergence `KL(p || q) = sum_k p_k log(p_k / q_k) = H(p, q) - H(p)`.

    Args:
      p: probabilities `[..., K]`, those that the mean is over.
      q: probabilities `[..., K]`.

    Returns:
      `[...]`, at least 0, and infinite where a class has p > 0 and q = 0.

    Source: Kullback and Leibler 1951, On Information and Sufficiency, section 2.
    """
    return rel_entr(p, q).sum(-1)


def kl_categorical(logits_p: Array, logits_q: Array) -> Array:
    """`KL(p || q)` of `p = softmax(logits)`, from `[..., K]` to `[...]`. A logit of -inf is a class that cannot be."""
    log_p, log_q = jax.nn.log_softmax(logits_p), jax.nn.log_softmax(logits_q)
    p = jnp.exp(log_p)
    return (p * (jnp.where(p > 0, log_p, 0) - jnp.where(p > 0, log_q, 0))).sum(-1)


def kl_bernoulli(logits_p: Array, logits_q: Array) -> Array:
    """`KL(p || q)` of biased coins with `p = sigmoid(logit)`, elementwise `[...]`; sum over independent coins."""
    return kl_categorical(*(jnp.stack([logits, jnp.zeros_like(logits)], -1) for logits in (logits_p, logits_q)))


def kl_diagonal_gaussians(mean_p: Array, log_variance_p: Array, mean_q: Array, log_variance_q: Array) -> Array:
    """`KL(p || q)` of Gaussians with independent coordinates.

    `1/2 sum_d (s_d^2 / t_d^2 - 1 - log(s_d^2 / t_d^2) + (m_d - n_d)^2 / t_d^2)`, p = N(m, s^2) and q = N(n, t^2)

    Args:
      mean_p: m `[..., D]`.
      log_variance_p: log s^2 `[..., D]`.
      mean_q: n `[..., D]`.
      log_variance_q: log t^2 `[..., D]`.

    Returns:
      `[...]`.

    Source: Kingma and Welling 2013, Auto-Encoding Variational Bayes (arXiv:1312.6114), appendix B, is q = N(0, I).
    """
    log_ratio = log_variance_p - log_variance_q
    shift = (mean_p - mean_q) ** 2 * jnp.exp(-log_variance_q)
    return 0.5 * (jnp.expm1(log_ratio) - log_ratio + shift).sum(-1)


def kl_gaussians(mean_p: Array, covariance_p: Array, mean_q: Array, covariance_q: Array) -> Array:
    """`KL(p || q)` of Gaussians.

    `1/2 (tr(T^-1 S) - D + (m - n)^T T^-1 (m - n) + log det T - log det S)`, p = N(m, S) and q = N(n, T)

    Args:
      mean_p: m `[D]`; the caller vmaps.
      covariance_p: S `[D, D]`, positive definite, else the result is NaN.
      mean_q: n `[D]`.
      covariance_q: T `[D, D]`, likewise.

    Returns:
      [].

    Source: Duchi 2007, Derivations for Linear Algebra and Optimization (the part on divergence of Gaussians).
    """
    root_p, root_q = jnp.linalg.cholesky(covariance_p), jnp.linalg.cholesky(covariance_q)
    both = jnp.column_stack([root_p, mean_p - mean_q])
    squares = (jax.scipy.linalg.solve_triangular(root_q, both, lower=True) ** 2).sum()
    return 0.5 * (squares - len(mean_p)) + jnp.log(root_q.diagonal() / root_p.diagonal()).sum()


def jensen_shannon(p: Array, q: Array) -> Array:
    """`JS(p, q) = 1/2 KL(p || m) + 1/2 KL(q || m)`, `m = (p + q) / 2`: 0 where equal, log 2 where disjoint.

    The best critic of a generator leaves the value `-log 4 + 2 JS(data, generated)` to the generator.

    Args:
      p: probabilities `[..., K]`.
      q: probabilities `[..., K]`.

    Returns:
      `[...]`.

    Source: Lin 1991, IEEE Transactions on Information Theory 37(1), section IV with equal weights; Goodfellow et al.
      2014 (arXiv:1406.2661), theorem 1.
    """
    # Half of the smallest number is flushed to 0, and the divergence from that would be infinite.
    middle = jnp.maximum((p + q) / 2, jnp.finfo(jnp.result_type(p, q)).tiny)
    return (kl(p, middle) + kl(q, middle)) / 2


def total_variation(p: Array, q: Array) -> Array:
    """`1/2 sum_k |p_k - q_k|`, from probabilities `[..., K]` to `[...]`: the most that an event's chance differs."""
    return (jnp.sign(p - q) * (p - q)).sum(-1) / 2


def wasserstein_1(p: Array, q: Array, positions: Array) -> Array:
    """The least work that carries the mass p over to q along a line: `int |P(x) - Q(x)| dx`, P and Q the sums of p, q.

    Args:
      p: probabilities `[..., K]`.
      q: probabilities `[..., K]`.
      positions: `[K]` where they lie, in any order. Distributions on different places: concatenate, and fill with 0.

    Returns:
      `[...]` in the units of the positions.

    Source: Vallender 1974, Calculation of the Wasserstein Distance Between Probability Distributions on the Line.
    """
    order = jnp.argsort(positions)
    excess = jnp.cumsum((p - q)[..., order], -1)[..., :-1]
    return (excess * jnp.sign(excess) * jnp.diff(positions[order])).sum(-1)
