"""What all classifiers begin and end with."""

import jax.numpy as jnp

from dlfx.types import Array, UserError


def require_images(model: str, images: Array, smallest: int, usual: int | None = None, why: str = "") -> None:
    """Refuses what is not `[B, H, W, C]` with sides of at least `smallest`.

    Args:
      model: what to call it.
      images: of the call.
      smallest: the side that the model can still take.
      usual: the side it was made for, if that is worth saying.
      why: of the limit, such as "for its auxiliary head".

    Raises:
      UserError: naming the model, the smallest side and the shape.
    """
    if images.ndim != 4 or min(images.shape[1:3]) < smallest:
        reason = f", {why}" if why else ""
        hint = f", usually {usual}" if usual else ""
        raise UserError(
            f"{model} takes images [B, H, W, C] whose sides are at least {smallest}{reason}{hint}; "
            f"got {list(images.shape)}"
        )


def flatten(x: Array) -> Array:
    """`[B, H, W, C]` to `[B, C H W]`, channels first: the order in which public weights of dense layers expect it."""
    return jnp.moveaxis(x, -1, 1).reshape(len(x), -1)


def at_least_float32(logits: Array) -> Array:
    """Logits in float32, or in their own type where that is more exact."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
