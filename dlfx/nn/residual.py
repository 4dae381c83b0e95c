"""Residual blocks, with two 3x3 convolutions or as a bottleneck, activated after the sum or before the branch."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.types import Array

SHORTCUTS = ("A", "B", "C", "none")


class ResidualBlock(nn.Module):
    """One residual block, `[B, H, W, C]` to `[B, H/strides, W/strides, channels]`: `relu(shortcut(x) + f(x))`.

    f is 3x3, 3x3, or a bottleneck, where a 1x1 convolution squeezes, a 3x3 one works on few channels, and a 1x1 one
    restores. The 3x3 convolution of a bottleneck carries the stride, as in torchvision.

    Shortcuts, where shapes agree the identity except for C:
      A: every `strides`-th pixel, with zeros for the channels that are new (appended, as in fb.resnet.torch);
      B: `W x`, a 1x1 convolution of the same stride and batch norm, where shapes differ;
      C: that projection in every block;
      none: there is no shortcut, `relu(f(x))`, a block of a plain network.

    Layers have torchvision's names, and timm's for the attention.

    Source: He, Zhang, Ren and Sun 2015 (arXiv:1512.03385), equations 1 and 2, section 3.3 and figure 5. Groups: Xie et
      al. 2017 (arXiv:1611.05431), figure 3c. Attention: Hu et al. 2018 (arXiv:1709.01507), figure 3.
    """

    channels: int  # of the output
    conv: Any  # as made by `conv_and_norm`
    norm: Any
    strides: int = 1
    squeezed: int | None = None  # channels of the 3x3 convolution of a bottleneck; None: 3x3, 3x3
    shortcut: str = "B"
    groups: int = 1  # of the 3x3 convolution of a bottleneck
    attention: Any = None  # makes the module at the end of f, such as `SqueezeExcite`

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv, norm, strides = self.conv, self.norm, self.strides
        if self.squeezed:
            y = nn.relu(norm(name="bn1")(conv(self.squeezed, (1, 1), name="conv1")(x)))
            grouped = {"strides": strides, "padding": 1, "feature_group_count": self.groups}
            y = nn.relu(norm(name="bn2")(conv(self.squeezed, (3, 3), **grouped, name="conv2")(y)))
            y = norm(name="bn3")(conv(self.channels, (1, 1), name="conv3")(y))
        else:
            y = nn.relu(norm(name="bn1")(conv(self.channels, (3, 3), strides=strides, padding=1, name="conv1")(x)))
            y = norm(name="bn2")(conv(self.channels, (3, 3), padding=1, name="conv2")(y))
        if self.attention:
            y = self.attention(name="se")(y)
        if self.shortcut == "none":
            return nn.relu(y)
        if self.shortcut == "C" or (self.shortcut == "B" and x.shape != y.shape):
            x = norm(name="downsample.1")(conv(self.channels, (1, 1), strides=strides, name="downsample.0")(x))
        return nn.relu(_matched(x, y, strides) + y)


class PreactivationBlock(nn.Module):
    """One residual block of the second form, `[B, H, W, C]` to `[B, H/strides, W/strides, channels]`.

    `shortcut(x) + f(relu(norm(x)))`: nothing stands on the way from sum to sum but where shapes change. Shortcuts are
    those of `ResidualBlock`, projections without batch norm.

    Source: He, Zhang, Ren and Sun 2016, Identity Mappings in Deep Residual Networks (arXiv:1603.05027), equation 5,
      figure 4e and appendix.
    """

    channels: int
    conv: Any  # as made by `conv_and_norm`
    norm: Any
    strides: int = 1
    squeezed: int | None = None
    shortcut: str = "B"
    first: bool = False  # of a stage: the shortcut takes the activated input, as the branch does

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv, norm, strides = self.conv, self.norm, self.strides
        y = nn.relu(norm(name="bn1")(x))
        x = y if self.first else x
        if self.squeezed:
            y = nn.relu(norm(name="bn2")(conv(self.squeezed, (1, 1), name="conv1")(y)))
            y = conv(self.squeezed, (3, 3), strides=strides, padding=1, name="conv2")(y)
            y = conv(self.channels, (1, 1), name="conv3")(nn.relu(norm(name="bn3")(y)))
        else:
            y = conv(self.channels, (3, 3), strides=strides, padding=1, name="conv1")(y)
            y = conv(self.channels, (3, 3), padding=1, name="conv2")(nn.relu(norm(name="bn2")(y)))
        if self.shortcut == "none":
            return y
        if self.shortcut == "C" or (self.shortcut == "B" and x.shape != y.shape):
            x = conv(self.channels, (1, 1), strides=strides, name="downsample.0")(x)
        return _matched(x, y, strides) + y


def _matched(x: Array, y: Array, strides: int) -> Array:
    """x in the shape of y, `[B, H/strides, W/strides, C']`: subsampled, and with zeros for the channels it lacks."""
    if x.shape == y.shape:
        return x
    return jnp.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (0, y.shape[-1] - x.shape[-1])))
