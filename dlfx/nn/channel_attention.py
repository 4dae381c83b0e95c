"""Attention over channels."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.convolution import Conv
from dlfx.types import Array


class SqueezeExcite(nn.Module):
    """Channels weighed by what the whole image holds, `[B, H, W, C]` to the same shape.

    `y = x * sigmoid(W2 relu(W1 s + b1) + b2)`, with s the mean of x over all positions and C / reduction hidden units

    Source: Hu, Shen and Sun 2018, Squeeze-and-Excitation Networks (arXiv:1709.01507), equations 2 to 4. Layers are
      1x1 convolutions with the names of timm.
    """

    reduction: int = 16
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        weights = x.mean((1, 2), keepdims=True)
        weights = nn.relu(Conv(max(1, channels // self.reduction), (1, 1), name="fc1", **dtypes)(weights))
        return x * nn.sigmoid(Conv(channels, (1, 1), name="fc2", **dtypes)(weights))
