"""Convolutions as products of smaller ones."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.convolution import Conv
from dlfx.ops.same_padding import same_padding
from dlfx.types import Array


class SeparableConv(nn.Module):
    """A depthwise-separable convolution: k x k within every channel, then 1 x 1 across them.

    It is the convolution with the kernel `w[u, v, c, o] = d[u, v, c] p[c, o]`, of `k^2 C + C O` weights and not
    `k^2 C O`: the share `1 / O + 1 / k^2`. `[B, H, W, C]` to `[B, ceil(H / s), ceil(W / s), features]`.

    Source: Howard et al. 2017, MobileNets (arXiv:1704.04861), section 3.1; Chollet 2016, Xception (arXiv:1610.02357).
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = Conv(
            x.shape[-1],
            self.kernel_size,
            self.strides,
            same_padding(self.kernel_size, self.dilation),
            kernel_dilation=self.dilation,
            feature_group_count=x.shape[-1],
            use_bias=False,
            name="depthwise",
            **dtypes,
        )(x)
        return Conv(self.features, (1, 1), use_bias=self.use_bias, name="pointwise", **dtypes)(x)


class FactorisedConv(nn.Module):
    """A convolution k x 1, then one 1 x k, nothing between them.

    It is the convolution with the kernel `w[u, v, c, o] = sum_m a[u, c, m] b[v, m, o]`; for 3 x 3 that is 6 weights a
    pair of channels and not 9. `[B, H, W, C]` to `[B, H, W, features]`.

    Source: Szegedy et al. 2015, Rethinking the Inception Architecture (arXiv:1512.00567), section 3.2.
    """

    features: int
    size: int = 3
    use_bias: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for name, kernel, bias in (
            ("vertical", (self.size, 1), False),
            ("horizontal", (1, self.size), self.use_bias),
        ):
            x = Conv(self.features, kernel, padding=same_padding(kernel), use_bias=bias, name=name, **dtypes)(x)
        return x
