"""Convolutions as layers, beyond those of Linen."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.ops.convolution import conv_general_dilated, conv_transpose
from dlfx.types import Array

# Linen's convolution, lowered to what the platform is fast at. Every model takes this one.
Conv: Any = partial(nn.Conv, conv_general_dilated=conv_general_dilated)


class ConvTranspose(nn.Module):
    """A transposed convolution with PyTorch's geometry, `[B, H, W, C]` to `[B, s (H - 1) + k - 2 p, ..., features]`.

    With kernel 4, stride 2 and padding 1, or kernel 2 and stride 2, it doubles both sides.

    Source: see `ops.convolution.conv_transpose`.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (2, 2)
    padding: int = 0  # rows and columns cut off at every edge of the output
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        y = conv_transpose(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype).astype(self.dtype)
        return y
