"""Deformable convolution as a layer."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.nn.convolution import Conv
from dlfx.ops.deformable import deformable_conv
from dlfx.ops.same_padding import same_padding
from dlfx.types import Array


class DeformableConv(nn.Module):
    """A deformable convolution, whose offsets are a convolution of the same input that begins at zero.

    `[B, H, W, C]` to `[B, ceil(H / s), ceil(W / s), features]`. The layer named `offset` has `2 G kh kw` channels of
    offsets; modulated (version 2), `G kh kw` more behind them, whose sigmoid is the factor of each tap. So it begins as
    the plain convolution, modulated as half of it.

    Source: Dai et al. 2017 (arXiv:1703.06211), section 2.1; Zhu et al. 2018 (arXiv:1811.11168), section 3.2, which
      trains the layer `offset` at a tenth of the rate.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    offset_groups: int = 1  # G, of the channels that move together
    modulated: bool = True
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        padding = same_padding(self.kernel_size, self.dilation)
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        count = self.offset_groups * self.kernel_size[0] * self.kernel_size[1]
        told = Conv(
            count * (3 if self.modulated else 2),
            self.kernel_size,
            self.strides,
            padding,
            kernel_dilation=self.dilation,
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="offset",
        )(x)
        modulation = jax.nn.sigmoid(told[..., 2 * count :]) if self.modulated else None
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = deformable_conv(x, kernel, told[..., : 2 * count], modulation, self.strides, padding, self.dilation)
        if self.use_bias:
            y += self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype).astype(self.dtype)
        return y
