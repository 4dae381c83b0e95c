"""Losses of embeddings and of the words they stand for: from dot products, angles and probabilities of tokens."""

import jax
import jax.numpy as jnp

from dlfx.types import Array


def negative_sampling(positive: Array, negatives: Array, mask: Array | None = None) -> Array:
    """Tells the word that was there from K words drawn at random, in place of a softmax over the whole vocabulary.

    `-log sigmoid(u . v) - sum_k log sigmoid(-u_k . v)`

    Args:
      positive: dot products `u . v` of a word with its true context `[...]`.
      negatives: dot products `u_k . v` with the drawn ones `[..., K]`.
      mask: `[..., K]`, 1 for draws that count, 0 for those to leave out (such as the true word); all count if None.

    Returns:
      `[...]` in nats; `(K + 1) log 2` where all dot products are 0.

    Source: Mikolov et al. 2013, Distributed Representations of Words and Phrases and their Compositionality
      (arXiv:1310.4546), equation 4, with the sign turned.
    """
    losses = jax.nn.softplus(negatives)
    return jax.nn.softplus(-positive) + (losses if mask is None else jnp.where(mask > 0, losses, 0)).sum(-1)


def cosines(features: Array, kernel: Array) -> Array:
    """The cosine of the angle between a feature and each class's weights, `x . W_k / (||x|| ||W_k||)`.

    Args:
      features: x `[..., D]`.
      kernel: W `[D, K]`, a class a column.

    Returns:
      `[..., K]` in [-1, 1]; 0, and without gradient, where a vector is 0.
    """
    lengths, inner = _lengths(features, kernel), features @ kernel
    return jnp.where(lengths > 0, inner / jnp.where(lengths > 0, lengths, 1), 0)


def angular_logits(features: Array, kernel: Array) -> Array:
    """The logits of a layer without bias, by lengths and angles: `||W_k|| ||x|| cos(theta_k) = W_k . x`.

    A softmax loss of them separates classes by angle, which is what margins on the angle set out from. The gradient is
    that of `features @ kernel` but for vectors of length 0, which have no angle: there it is 0.

    Args:
      features: x `[..., D]`.
      kernel: W `[D, K]`, a class a column.

    Returns:
      `[..., K]`.

    Source: Liu et al. 2016, Large-Margin Softmax Loss for Convolutional Neural Networks (arXiv:1612.02295), section 3.
    """
    return _lengths(features, kernel) * cosines(features, kernel)


def token_log_probs(logits: Array, tokens: Array) -> Array:
    """`log p(w_t | w_1 ... w_t-1)` of the tokens that came.

    Args:
      logits: `[..., T, V]`, row t of the predictor that has seen the tokens before t.
      tokens: `[..., T]` integers.

    Returns:
      `[..., T]` in nats.
    """
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]


def negative_log_likelihood(log_probs: Array, mask: Array | None = None) -> Array:
    """`-log P(w_1 ... w_T) = -sum_t log p(w_t | w_1 ... w_t-1)`; `exp(-NLL)` is the sentence's probability.

    Args:
      log_probs: of the tokens that came `[..., T]`, in nats.
      mask: `[..., T]`, 1 for tokens, 0 for filling; all are tokens if None.

    Returns:
      `[...]` in nats.

    Source: Bengio et al. 2003, A Neural Probabilistic Language Model, JMLR 3, section 2.
    """
    return -(log_probs if mask is None else jnp.where(mask > 0, log_probs, 0)).sum(-1)


def perplexity(log_probs: Array, mask: Array | None = None) -> Array:
    """`P(w_1 ... w_T)^(-1/T) = exp(NLL / T)`: among how many equally likely words the model still wavers.

    Args:
      log_probs: of the tokens that came `[..., T]`, in nats. For a whole corpus flatten it, and the mask: the mean is
        over tokens, not over sentences.
      mask: `[..., T]`, 1 for tokens, 0 for filling; all are tokens if None.

    Returns:
      `[...]`, at least 1; 1 for no tokens.

    Source: Jelinek et al. 1977, Perplexity: a Measure of the Difficulty of Speech Recognition Tasks, JASA 62(S1).
    """
    tokens = log_probs.shape[-1] if mask is None else (mask > 0).sum(-1)
    return jnp.exp(negative_log_likelihood(log_probs, mask) / jnp.maximum(tokens, 1))


def _lengths(features: Array, kernel: Array) -> Array:
    """`||x|| ||W_k||` `[..., K]`."""
    return _norm(features, -1)[..., None] * _norm(kernel, 0)


def _norm(x: Array, axis: int) -> Array:
    squares = (x**2).sum(axis)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)  # a root's slope at 0 is infinite
