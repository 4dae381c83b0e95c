"""A convolution with its batch norm: what most convolutional networks are made of."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.convolution import Conv
from dlfx.nn.normalization import BatchNorm
from dlfx.types import Array

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """The channels of a layer in a network `width` times as wide: the nearest multiple, at least one of them.

    Rounding never takes away more than a tenth.

    Args:
      channels: at width 1.
      width: the factor.
      multiple: what the result is a multiple of, such as the number of groups of a convolution.

    Source: Howard et al. 2017, MobileNets (arXiv:1704.04861), section 3.3; the rounding is that of TensorFlow's models.
    """
    wanted = channels * width
    nearest = max(multiple, int(wanted + multiple / 2) // multiple * multiple)
    return nearest + multiple if nearest < 0.9 * wanted else nearest


def conv_and_norm(
    train: bool, dtype: Any, param_dtype: Any, axis_name: str | None, epsilon: float = 1e-5
) -> tuple[Any, Any]:
    """The convolution, without bias or padding, and the batch norm of a network, to be finished with features and name.

    Args:
      train: normalise by the statistics of the batch, otherwise by the running ones.
      dtype: of the computation.
      param_dtype: of the parameters.
      axis_name: the pmap axis over which statistics are taken, or None.
      epsilon: added to the variance.
    """
    dtypes = {"dtype": dtype, "param_dtype": param_dtype}
    conv = partial(Conv, use_bias=False, kernel_init=he_normal_fan_out, padding=0, **dtypes)
    norm = partial(
        BatchNorm, use_running_average=not train, momentum=0.9, epsilon=epsilon, axis_name=axis_name, **dtypes
    )
    return conv, norm


class BasicConv2d(nn.Module):
    """A convolution, batch norm and ReLU, `[B, H, W, C]` to `[B, H', W', features]`.

    Source: Ioffe and Szegedy 2015, Batch Normalization (arXiv:1502.03167), section 3.2. Named as in torchvision.
    """

    features: int  # at width 1
    kernel_size: tuple[int, int]
    strides: int = 1
    padding: Any = "VALID"
    batch_norm: bool = True  # otherwise the convolution has a bias
    width: float = 1.0
    train: bool = False
    axis_name: str | None = None
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    kernel_init: Any = nn.initializers.he_normal()  # truncated, of the fan-in

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv, norm = conv_and_norm(self.train, self.dtype, self.param_dtype, self.axis_name, epsilon=1e-3)
        x = conv(
            scaled(self.features, self.width),
            self.kernel_size,
            self.strides,
            padding=self.padding,
            use_bias=not self.batch_norm,
            kernel_init=self.kernel_init,
            name="conv",
        )(x)
        return nn.relu(norm(name="bn")(x) if self.batch_norm else x)
