"""From observations to features: for vectors and state numbers, for Atari's screens, for MinAtar's grids."""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import Array, UserError


class MLP(nn.Module):
    """Dense layers on the flattened observation; state numbers become one-hot vectors.

    Attributes:
      widths: units of each layer.
      num_states: how many states there are where observations are state numbers, else 0.
      activation: after each layer. Policies with a value of their own train more steadily with tanh, whose features are
        bounded: a value that is bootstrapped without a target network can run away on ReLU's.
    """

    widths: Sequence[int] = (120, 84)
    num_states: int = 0
    activation: Callable[[Array], Array] = nn.relu
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """`[B, *obs]` to `[B, widths[-1]]`."""
        if self.num_states:
            x = jax.nn.one_hot(observation, self.num_states, dtype=self.dtype)
        else:
            x = observation.reshape(len(observation), -1).astype(self.dtype)
        for width in self.widths:
            x = self.activation(nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        return x


class ConvTorso(nn.Module):
    """Unpadded convolutions with ReLU, then one dense layer.

    Attributes:
      convolutions: (channels, kernel size, stride) of each.
      width: units of the dense layer.
      scale: what observations are divided by, 255 for screens.
    """

    convolutions: Sequence[tuple[int, int, int]]
    width: int
    scale: float = 1.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, observation: Array) -> Array:
        """`[B, H, W, C]` to `[B, width]`.

        Raises:
          UserError: if the observation is no image, or too small for the kernels.
        """
        need = 1
        for _, size, stride in reversed(self.convolutions):
            need = (need - 1) * stride + size
        if observation.ndim != 4 or min(observation.shape[1:3]) < need:
            shape = tuple(observation.shape[1:])
            raise UserError(f"this network takes images [H, W, C] of at least {need}x{need}, not observations {shape}")
        x = observation.astype(self.dtype) / self.scale
        for channels, size, stride in self.convolutions:
            x = nn.Conv(
                channels,
                (size, size),
                stride,
                "VALID",
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                conv_general_dilated=conv_general_dilated,
            )(x)
            x = nn.relu(x)
        x = x.reshape(len(x), -1)
        return nn.relu(nn.Dense(self.width, dtype=self.dtype, param_dtype=self.param_dtype)(x))


def nature_cnn(**options: Any) -> ConvTorso:
    """For Atari's screens `[84, 84, 4]` of bytes (Mnih et al. 2015): 1,684,128 parameters up to 512 features."""
    return ConvTorso(((32, 8, 4), (64, 4, 2), (64, 3, 1)), 512, scale=255.0, **options)


def minatar_cnn(**options: Any) -> ConvTorso:
    """For MinAtar's grids `[10, 10, C]` (Young and Tian 2019): 16 kernels 3x3, then 128 units."""
    return ConvTorso(((16, 3, 1),), 128, **options)


TORSOS: dict[str, Callable[..., Any]] = {"mlp": MLP, "nature_cnn": nature_cnn, "minatar_cnn": minatar_cnn}
