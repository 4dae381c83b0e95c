"""The hourglass: down through all scales and up again, with a skip at each."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.ops.pooling import max_pool
from dlfx.types import Array, UserError


class Hourglass(nn.Module):
    """A recursive encoder and decoder, `[B, H, W, C]` to the same shape.

    `h_n(x) = skip(x) + enlarge(up(h_{n-1}(down(pool(x)))))`, and h_0 is one block more

    Every position of the output sees the whole image where depth takes its sides to one pixel, and still has the
    details that the skips keep.

    Args (of the call):
      x: `[B, H, W, C]`, sides multiples of 2^depth.

    Raises:
      UserError: for other sides.

    Source: Newell, Yang and Deng 2016, Stacked Hourglass Networks for Human Pose Estimation (arXiv:1603.06937), section
      3.1 and figure 3; blocks there are bottlenecks, `PreactivationBlock` with half of the channels squeezed.
    """

    depth: int  # how often sides are halved
    block: Callable[..., Any]  # makes a module that keeps shapes, of a name

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if any(side % 2**self.depth for side in x.shape[1:3]):
            raise UserError(
                f"an hourglass of depth {self.depth} takes sides that are multiples of {2**self.depth}; "
                f"got {list(x.shape)}"
            )
        y = self.block(name="down")(max_pool(x, 2))
        y = Hourglass(self.depth - 1, self.block, name="inner")(y) if self.depth > 1 else self.block(name="inner")(y)
        y = self.block(name="up")(y)
        return self.block(name="skip")(x) + jnp.repeat(jnp.repeat(y, 2, 1), 2, 2)
