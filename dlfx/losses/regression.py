"""Losses of regression, one value a prediction; the cost of a batch is their mean.

A loss judges one prediction y against its target a. The mean of the squared errors is the mean squared error (MSE), the
mean of the absolute ones the mean absolute error (MAE), so neither is a loss of its own.
"""

import jax.numpy as jnp
import optax

from dlfx.types import Array, UserError


def squared_error(predictions: Array, targets: Array) -> Array:
    """`(y - a)^2`, elementwise. Its gradient is `2 (y - a)`.

    Args:
      predictions: y `[...]`.
      targets: a `[...]`, of the same shape.

    Returns:
      `[...]` in the square of the targets' units.

    Raises:
      UserError: the shapes differ; `[B, 1]` against `[B]` would otherwise give `[B, B]` without a word.

    Source: Goodfellow, Bengio and Courville 2016, Deep Learning, equation 5.4.
    """
    _same_shape(predictions, targets)
    return optax.squared_error(predictions, targets)


def half_squared_error(predictions: Array, targets: Array) -> Array:
    """`1/2 (y - a)^2`, elementwise. Its gradient is the error itself, `y - a`.

    Args and Raises are those of `squared_error`, of which it is half.

    Returns:
      `[...]` in the square of the targets' units.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, equation 1.2.
    """
    _same_shape(predictions, targets)
    return optax.l2_loss(predictions, targets)


def absolute_error(predictions: Array, targets: Array) -> Array:
    """`|y - a|`, elementwise. Its gradient is the sign of the error, 0 where there is none.

    Args and Raises are those of `squared_error`.

    Returns:
      `[...]` in the targets' units.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 1.5.5 (the Minkowski loss with q = 1).
    """
    _same_shape(predictions, targets)
    error = predictions - targets
    return error * jnp.sign(error)  # the gradient of jnp.abs at 0 is 1


def mean_squared_error(predictions: Array, targets: Array) -> Array:
    """The cost `1/n sum_i (y_i - a_i)^2`, [], over all n numbers of the arrays; see `squared_error`."""
    return squared_error(predictions, targets).mean()


def mean_absolute_error(predictions: Array, targets: Array) -> Array:
    """The cost `1/n sum_i |y_i - a_i|`, [], over all n numbers of the arrays; see `absolute_error`."""
    return absolute_error(predictions, targets).mean()


def huber(predictions: Array, targets: Array, delta: float = 1.0) -> Array:
    """A parabola near the target and its tangent farther away, so that outliers pull no harder than `delta`.

    `1/2 e^2` where `|e| <= delta`, else `delta (|e| - delta / 2)`, with `e = y - a`. Its gradient is e, clipped to
    `[-delta, delta]`.

    Args:
      predictions: y `[...]`.
      targets: a `[...]`, of the same shape.
      delta: the error at which the parabola turns into a line, in the targets' units, positive.

    Returns:
      `[...]`, elementwise.

    Raises:
      UserError: the shapes differ, or delta is not positive.

    Source: Huber 1964, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35(1).
    """
    _same_shape(predictions, targets)
    _positive("delta", delta)
    return optax.huber_loss(predictions, targets, delta=delta)


def smooth_l1(predictions: Array, targets: Array, beta: float = 1.0) -> Array:
    """The absolute error with a parabola in place of its corner.

    `1/2 e^2 / beta` where `|e| < beta`, else `|e| - beta / 2`, with `e = y - a`. It is `huber / beta` with
    `delta = beta`: as beta shrinks it becomes the absolute error, where the Huber loss vanishes.

    Args:
      predictions: y `[...]`.
      targets: a `[...]`, of the same shape.
      beta: half the width of the parabola, in the targets' units, positive.

    Returns:
      `[...]`, elementwise, in the targets' units.

    Raises:
      UserError: the shapes differ, or beta is not positive.

    Source: Girshick 2015, Fast R-CNN (arXiv:1504.08083), equation 3, with beta = 1.
    """
    _positive("beta", beta)
    return huber(predictions, targets, beta) / beta


def _same_shape(predictions: Array, targets: Array) -> None:
    if jnp.shape(predictions) != jnp.shape(targets):
        raise UserError(f"predictions {jnp.shape(predictions)} and targets {jnp.shape(targets)} must have one shape")


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise UserError(f"{name} is {value}, and must be positive")
