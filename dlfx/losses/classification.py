"""Losses of classification."""

import jax
import optax

from dlfx.types import Array


def softmax_cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Cross-entropy between a softmax and smoothed labels, one value an example.

    `-sum_k q_k log softmax(logits)_k` with `q = (1 - smoothing) onehot(label) + smoothing / K`.

    Args:
      logits: `[..., K]`.
      labels: integer classes `[...]`.
      smoothing: the share of probability spread over all K classes, in [0, 1).

    Returns:
      The losses `[...]` in nats.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), section 7.
    """
    if not smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), smoothing)
    return optax.softmax_cross_entropy(logits, targets)
