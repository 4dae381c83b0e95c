"""Losses of classification."""

import jax
import jax.numpy as jnp
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


def softmax_cross_entropy_with_probabilities(logits: Array, targets: Array) -> Array:
    """Cross-entropy between target probabilities and a softmax: `-sum_k y_k log softmax(logits)_k`.

    Where the targets sum to 1 its gradient is `softmax(logits) - y`, the output less the target.

    Args:
      logits: `[..., K]`, such as `[B, H, W, K]`. One of -inf is a class that cannot be.
      targets: probabilities y `[..., K]`.

    Returns:
      The losses `[...]` in nats.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, equations 4.108 and 4.109.
    """
    return optax.safe_softmax_cross_entropy(logits, targets)


def sigmoid_cross_entropy(logits: Array, targets: Array) -> Array:
    """Binary cross-entropy, elementwise: `-y log a - (1 - y) log(1 - a)` with `a = sigmoid(logit)`.

    Its gradient is `a - y`, the output less the target.

    Args:
      logits: `[...]`.
      targets: y `[...]`, 0 or 1 or probabilities between them.

    Returns:
      The losses `[...]` in nats.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, equations 4.90 and 4.91.
    """
    return optax.sigmoid_binary_cross_entropy(logits, targets)


def sigmoid_focal(logits: Array, targets: Array, gamma: float = 2.0, alpha: float | None = None) -> Array:
    """Binary cross-entropy with little weight on what is already right, elementwise.

    `-alpha_t (1 - p_t)^gamma log p_t` with `p_t` the probability of the true side, `alpha_t` alpha for 1 and
    `1 - alpha` for 0

    Args:
      logits: `[...]`.
      targets: `[...]`, 0 or 1.
      gamma: how fast the weight falls; 0 is the cross-entropy.
      alpha: the weight of the side 1, in (0, 1); both weigh 1 if None.

    Returns:
      The losses `[...]` in nats.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection (arXiv:1708.02002), equation 5.
    """
    return optax.sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma)


def softmax_focal(logits: Array, labels: Array, gamma: float = 2.0, alpha: Array | None = None) -> Array:
    """Cross-entropy with little weight on what is already right: `-alpha_y (1 - p_y)^gamma log p_y`.

    Args:
      logits: `[..., K]`.
      labels: integer classes y `[...]`.
      gamma: how fast the weight falls; 0 is the cross-entropy.
      alpha: the weights of the classes `[K]`; all weigh 1 if None.

    Returns:
      The losses `[...]` in nats.

    Source: Lin et al. 2017, Focal Loss for Dense Object Detection (arXiv:1708.02002), section 3.2, over K classes.
    """
    others = labels[..., None] != jnp.arange(logits.shape[-1])
    # log(1 - p) from the other classes' logits: 1 - p itself rounds to 0, where a power below 1 has an infinite slope.
    log_probs = jax.nn.log_softmax(logits)
    log_miss = jax.nn.logsumexp(log_probs, -1, where=others)
    loss = -jnp.exp(gamma * log_miss) * jnp.take_along_axis(log_probs, labels[..., None], -1)[..., 0]
    return loss if alpha is None else alpha[labels] * loss


def zero_one(logits: Array, labels: Array) -> Array:
    """1 where the largest logit is not the label's, else 0: its mean is the error rate. It has no gradient to follow.

    Args:
      logits: `[..., K]`.
      labels: integer classes `[...]`.

    Returns:
      The losses `[...]`, in the logits' type.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, section 5.1.2.
    """
    return (logits.argmax(-1) != labels).astype(logits.dtype)
