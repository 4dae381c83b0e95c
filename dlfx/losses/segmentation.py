"""Losses of masks and label maps that compare regions. Pixel by pixel, the losses of classification work as they are.

optax's Dice loss leaves out no pixels, has no squared denominator, and given probabilities does not compile.
"""

import jax
import jax.numpy as jnp

from dlfx.types import Array, UserError


def binary_dice(
    logits: Array, targets: Array, mask: Array | None = None, *, smooth: float = 1.0, squared: bool = False
) -> Array:
    """One less the share of overlap between a predicted region X and the true one Y, of each image.

    `1 - (2 |X n Y| + smooth) / (|X| + |Y| + smooth)` with `|X| = sum p`, `|X n Y| = sum p y`, `p = sigmoid(logit)`

    Args:
      logits: `[B, ...]`, one a pixel (or voxel).
      targets: `[B, ...]` of 0 and 1, or shares between them.
      mask: `[B, ...]`, 1 for pixels that count, 0 for those to leave out; all count if None.
      smooth: keeps the gradient of small regions from jumping, in pixels. An empty prediction of an empty region is
        right, even with 0.
      squared: sum p^2 and y^2 in the denominator.

    Returns:
      `[B]` in [0, 1], 0 for a perfect prediction; in float32 or, of float64 logits, float64.

    Raises:
      UserError: the shapes differ.

    Source: Dice 1945, Ecology 26(3); squared: Milletari, Navab and Ahmadi 2016, V-Net (arXiv:1606.04797), section 3.
    """
    _same_shape("targets", targets.shape, logits.shape)
    probs = jax.nn.sigmoid(_wide(logits))
    return _dice(probs[..., None], targets.astype(probs.dtype)[..., None], mask, smooth, squared)[..., 0]


def multiclass_dice(
    logits: Array, labels: Array, mask: Array | None = None, *, smooth: float = 1.0, squared: bool = False
) -> Array:
    """The Dice loss of each class's region against all others', averaged over the classes.

    Args:
      logits: `[B, ..., K]`, from which a softmax over K makes the probabilities of `binary_dice`.
      labels: integer classes `[B, ...]`. A label outside 0 ... K - 1 belongs to no region; mask it.
      mask: `[B, ...]`, 1 for pixels that count, 0 for those to leave out; all count if None.
      smooth: see `binary_dice`. With 0, a class that an image lacks costs 1 however little is predicted of it.
      squared: see `binary_dice`.

    Returns:
      `[B]` in [0, 1], 0 for a perfect prediction; in float32 or, of float64 logits, float64.

    Raises:
      UserError: the shapes differ.

    Source: see `binary_dice`.
    """
    _same_shape("labels", labels.shape, logits.shape[:-1])
    probs = jax.nn.softmax(_wide(logits))
    regions = jax.nn.one_hot(labels, logits.shape[-1], dtype=probs.dtype)
    return _dice(probs, regions, mask, smooth, squared).mean(-1)


def _dice(probs: Array, regions: Array, mask: Array | None, smooth: float, squared: bool) -> Array:
    """The losses `[B, K]` of regions `[B, ..., K]`."""
    if mask is None:
        mask = jnp.ones(probs.shape[:-1], bool)
    _same_shape("mask", mask.shape, probs.shape[:-1])
    pixels = tuple(range(1, probs.ndim - 1))

    def total(x: Array) -> Array:
        return jnp.where(mask[..., None] > 0, x, 0).sum(pixels)

    overlap = 2 * total(probs * regions)
    size = total(probs**2 + regions**2 if squared else probs + regions)
    empty = size + smooth == 0
    return jnp.where(empty, 0, 1 - (overlap + smooth) / jnp.where(empty, 1, size + smooth))


def _wide(logits: Array) -> Array:
    # An image has more pixels than bfloat16 can count, and than float16 can hold.
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _same_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise UserError(f"{name} of shape {shape}, expected {expected} like the logits' pixels")
