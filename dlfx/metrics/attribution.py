"""Which pixels a classifier's answer rests on: gradients, Grad-CAM, occlusion, and a score of such maps.

Everywhere `logits_of` is a function of images `[B, H, W, C]` to logits `[B, K]` that treats each image alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dlfx.types import Array, UserError

Logits = Callable[[Array], Array]


def _of_class(logits: Array, classes: Array) -> Array:
    return jnp.take_along_axis(logits, classes[:, None], 1)[:, 0]


def input_gradient(logits_of: Logits, images: Array, classes: Array) -> Array:
    """d logit_c / d x of each image, `[B, H, W, C]`, for its class in `classes` `[B]`."""
    return jax.grad(lambda x: _of_class(logits_of(x), classes).sum())(images)


def saliency(logits_of: Logits, images: Array, classes: Array) -> Array:
    """The saliency map: max over channels of |d logit_c / d x|.

    Args:
      logits_of: the network.
      images: `[B, H, W, C]`.
      classes: `[B]`, whose logit is asked about.

    Returns:
      `[B, H, W]`, 0 or more.

    Source: Simonyan et al. 2013 (arXiv:1312.6034), section 3.
    """
    return jnp.abs(input_gradient(logits_of, images, classes)).max(-1)


def integrated_gradients(
    logits_of: Logits, images: Array, classes: Array, baseline: Array | float = 0.0, steps: int = 32
) -> Array:
    """Integrated gradients: (x - x0) times the mean of the gradient on the way from x0 to x.

    The sum over an image is the logit of x minus that of x0, up to the error of the midpoint rule.

    Args:
      logits_of: the network.
      images: x, `[B, H, W, C]`.
      classes: `[B]`.
      baseline: x0, an image without evidence; broadcast against the images.
      steps: midpoints of the integral.

    Returns:
      `[B, H, W, C]`; positive where a pixel speaks for the class.

    Raises:
      UserError: for fewer than one step.

    Source: Sundararajan et al. 2017 (arXiv:1703.01365), equation 1.
    """
    if steps < 1:
        raise UserError(f"integrated gradients need at least 1 step, not {steps}")
    way = images - baseline

    def add(total: Array, share: Array) -> tuple[Array, None]:
        return total + input_gradient(logits_of, baseline + share * way, classes), None

    shares = (jnp.arange(steps, dtype=images.dtype) + 0.5) / steps
    return way * jax.lax.scan(add, jnp.zeros_like(images), shares)[0] / steps


def grad_cam(maps: Array, rest: Callable[[Array], Array], classes: Array) -> Array:
    """Grad-CAM: relu(sum_k a_k A_k), with a_k the mean over places of d logit_c / d A_k.

    Args:
      maps: A, feature maps `[B, h, w, K]`.
      rest: the network from these maps on, to logits; `ops.intermediates.cut` gives both.
      classes: `[B]`.

    Returns:
      `[B, h, w]`, 0 or more.

    Source: Selvaraju et al. 2016 (arXiv:1610.02391), equations 1 and 2.
    """
    gradient = jax.grad(lambda a: _of_class(rest(a), classes).sum())(maps)
    return jax.nn.relu((gradient.mean((1, 2), keepdims=True) * maps).sum(-1))


def occlusion(
    logits_of: Logits, images: Array, classes: Array, size: int, stride: int, fill: Array | float = 0.0
) -> Array:
    """The occlusion map: how far the probability of the class falls when a square of the image is covered.

    Args:
      logits_of: the network.
      images: `[B, H, W, C]`.
      classes: `[B]`.
      size: side of the square, in pixels.
      stride: pixels between neighbouring squares.
      fill: what covers it; broadcast against the images.

    Returns:
      `[B, h, w]`, one number a square, with h = (H - size) // stride + 1 and w likewise.

    Raises:
      UserError: for a square that does not fit in the image, or a stride below 1.

    Source: Zeiler and Fergus 2013 (arXiv:1311.2901), section 4.2.
    """
    height, width = images.shape[1:3]
    if not 1 <= size <= min(height, width) or stride < 1:
        raise UserError(
            f"a square of {size} pixels every {stride} cannot cover images of {height}x{width}: its side must be from "
            f"1 to {min(height, width)}, the stride at least 1"
        )
    tops, lefts = jnp.arange(0, height - size + 1, stride), jnp.arange(0, width - size + 1, stride)
    rows, columns = jnp.arange(height)[:, None, None], jnp.arange(width)[None, :, None]

    def probability(images: Array) -> Array:
        return _of_class(jax.nn.softmax(logits_of(images)), classes)

    def fall(corner: Array) -> Array:
        top, left = corner
        covered = (rows >= top) & (rows < top + size) & (columns >= left) & (columns < left + size)
        return whole - probability(jnp.where(covered, fill, images))

    whole = probability(images)
    corners = jnp.stack(jnp.meshgrid(tops, lefts, indexing="ij"), -1).reshape(-1, 2)
    return jnp.moveaxis(jax.lax.map(fall, corners), 0, 1).reshape(-1, len(tops), len(lefts))


def deletion(
    logits_of: Logits, images: Array, classes: Array, scores: Array, steps: int = 16, fill: Array | float = 0.0
) -> Array:
    """The deletion curve: the probability of the class as pixels vanish, those of the highest scores first.

    A map that finds what the network looks at makes it fall early. Its mean over the curve is the deletion score.

    Args:
      logits_of: the network.
      images: `[B, H, W, C]`.
      classes: `[B]`.
      scores: `[B, H, W]`; of equal ones the first goes first.
      steps: how often a further share 1 / steps of the pixels is replaced.
      fill: by what; broadcast against the images.

    Returns:
      `[B, steps + 1]`, from the whole image to none of it.

    Source: Petsiuk et al. 2018 (arXiv:1806.07421), section 3.3.
    """
    pixels = scores[0].size
    rank = jnp.argsort(jnp.argsort(-scores.reshape(len(scores), -1), axis=1), axis=1).reshape(scores.shape)

    def left(step: Array) -> Array:
        kept = rank * steps >= step * pixels
        return _of_class(jax.nn.softmax(logits_of(jnp.where(kept[..., None], images, fill))), classes)

    return jax.lax.map(left, jnp.arange(steps + 1)).T
