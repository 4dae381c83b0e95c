"""Augmentation of one image, as pure functions of (key, image); `vmap` them over a batch."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from dlfx.types import Array, Key, UserError, unknown

Augmentation = Callable[[Key, Array], Array]  # (key, image [H, W, C]) -> [H, W, C]


def flip(key: Key, image: Array) -> Array:
    """Mirrors an image `[H, W, C]` left to right with probability 1/2 (Krizhevsky et al. 2012, section 4.1)."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def crop(key: Key, image: Array, padding: int) -> Array:
    """A random `[H, W, C]` window of the image padded by `padding` edge pixels on each side (He et al. 2015, 4.2).

    The edge is repeated rather than filled with zeros, so that no frame appears around images that are not dark.
    """
    height, width, channels = image.shape
    padded = jnp.pad(image, ((padding, padding), (padding, padding), (0, 0)), mode="edge")
    y, x = jax.random.randint(key, (2,), 0, 2 * padding + 1)
    return jax.lax.dynamic_slice(padded, (y, x, 0), (height, width, channels))


def noise(key: Key, image: Array, scale: float) -> Array:
    """Adds Gaussian noise of standard deviation `scale` to every value of an image `[H, W, C]`."""
    return image + scale * jax.random.normal(key, image.shape, image.dtype)


def cutout(key: Key, image: Array, size: int) -> Array:
    """Sets a square of side `size`, centred anywhere in the image and clipped at its border, to the image's mean.

    DeVries and Taylor 2017 (arXiv:1708.04552) fill with zero, the mean of normalised data.
    """
    height, width, _ = image.shape
    y = jax.random.randint(jax.random.fold_in(key, 0), (), 0, height)
    x = jax.random.randint(jax.random.fold_in(key, 1), (), 0, width)
    rows = jnp.arange(height)[:, None, None] - y + size // 2
    columns = jnp.arange(width)[None, :, None] - x + size // 2
    hole = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return jnp.where(hole, image.mean(), image)


AUGMENTATIONS: dict[str, tuple[Callable[..., Array], type | None, str]] = {
    "flip": (flip, None, "flip"),
    "crop": (crop, int, "crop:PIXELS"),
    "noise": (noise, float, "noise:STD"),
    "cutout": (cutout, int, "cutout:SIZE"),
}


def compose(augmentations: Sequence[Augmentation]) -> Augmentation | None:
    """One augmentation that applies several in order, each with its own key; None for none."""
    if not augmentations:
        return None

    def apply(key: Key, image: Array) -> Array:
        for i, augment in enumerate(augmentations):
            image = augment(jax.random.fold_in(key, i), image)
        return image

    return apply


def parse(names: Sequence[str]) -> Augmentation | None:
    """The augmentation that names such as `["flip", "crop:4", "noise:0.1"]` describe, applied in that order.

    Raises:
      UserError: for an unknown name, or a missing, malformed or negative amount.
    """
    return compose([_parse_one(name) for name in names if name])


def _parse_one(text: str) -> Augmentation:
    name, _, amount = text.partition(":")
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, [usage for _, _, usage in AUGMENTATIONS.values()])
    function, kind, usage = AUGMENTATIONS[name]
    if kind is None and not amount:
        return function
    try:
        value = kind(amount) if kind else None
    except ValueError:
        value = None
    if value is None or not 0 < value < float("inf"):
        raise UserError(f"augmentation {text!r} must be written {usage}, with a positive amount where one is named")
    return lambda key, image: function(key, image, value)
