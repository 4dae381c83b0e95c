"""ResNet: residual networks for ImageNet and for CIFAR, and their kin: ResNeXt, SE-ResNet, version 2, plain ones."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, require_images
from dlfx.nn.channel_attention import SqueezeExcite
from dlfx.nn.conv_norm import conv_and_norm, scaled
from dlfx.nn.residual import SHORTCUTS, PreactivationBlock, ResidualBlock
from dlfx.ops.pooling import max_pool
from dlfx.types import Array, unknown


class ResNet(nn.Module):
    """A residual network: stages of blocks `relu(shortcut(x) + f(x))`, each stage halving sides and doubling channels.

    The shortcut spans the two or three convolutions of one block, within one network. It is there because plain deep
    networks with batch norm, whose gradients do not vanish, are still hard to optimise (section 4.1 of the paper).

    The ImageNet form begins with a 7x7 convolution of stride 2 and a 3x3 max-pooling of stride 2, the CIFAR form
    with one 3x3 convolution. Both end with the mean over all positions and a linear layer. The number of weighted
    layers, `2 + layers_per_block * sum(blocks)`, names the network. Layers have torchvision's names.

    Kin: ResNeXt splits the 3x3 convolution of a bottleneck, a little wider, into groups. SE-ResNet ends branches in
    attention over channels. Version 2 (`preactivation`) normalises and activates before the convolutions instead of
    after them, and once more before the mean; its features are the sums before that. A plain network has
    no shortcuts (`shortcut="none"`), and is otherwise the same.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 8: there the last stage of the CIFAR form, and the first one of the
        ImageNet form, are 2x2, the smallest on which a 3x3 convolution sees a neighbour.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stem` (before the max-pooling),
      `stage1 [B, H1, W1, C1]` and so on, `pooled [B, C]`.

    Raises:
      UserError: for smaller images, or an unknown shortcut.

    Source: He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition (arXiv:1512.03385), table 1 and
      section 4.2. Batch norm between convolution and ReLU, convolutions without bias, He initialisation. Kin: see
      `dlfx.nn.residual`.
    """

    blocks: Sequence[int]  # in each stage
    bottleneck: bool = False  # 1x1, 3x3, 1x1 to four times the channels; otherwise 3x3, 3x3
    small: bool = False  # begins as the CIFAR form
    channels: int = 64  # of the first stage
    shortcut: str = "B"  # A, B, C or none, see `ResidualBlock`
    preactivation: bool = False
    groups: int = 1
    group_width: int = 64  # channels of each group for 64 channels of a stage
    attention: bool = False
    width: float = 1.0  # a factor on all channels
    num_classes: int = 10
    dtype: Any = jnp.float32  # of the computation; the statistics of batch norm are at least float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        require_images(self._label(), images, smallest=8)
        if self.shortcut not in SHORTCUTS:
            raise unknown("shortcut", self.shortcut, SHORTCUTS)
        conv, norm = conv_and_norm(train, self.dtype, self.param_dtype, self.axis_name)

        stem = scaled(self.channels, self.width)
        size = {"kernel_size": (3, 3), "padding": 1} if self.small else {"kernel_size": (7, 7), "padding": 3}
        x = conv(stem, **size, strides=1 if self.small else 2, name="conv1")(images)
        x = x if self.preactivation else nn.relu(norm(name="bn1")(x))
        features = {"stem": x}
        x = x if self.small else max_pool(x, 3, 2, ((1, 1), (1, 1)))
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                strides = 2 if stage > 0 and index == 0 else 1
                x = self._block(stage, index == 0, strides, conv, norm, f"layer{stage + 1}.{index}")(x)
            features[f"stage{stage + 1}"] = x
        x = nn.relu(norm(name="norm")(x)) if self.preactivation else x
        features["pooled"] = x.mean((1, 2))
        head = nn.Dense(self.num_classes, dtype=self.dtype, param_dtype=self.param_dtype, name="fc")
        return at_least_float32(head(features["pooled"])), features

    def _block(self, stage: int, first: bool, strides: int, conv: Any, norm: Any, name: str) -> nn.Module:
        channels = self.channels * 2**stage
        squeezed, out = None, scaled(channels, self.width)
        if self.bottleneck:
            squeezed = scaled(channels * self.group_width // 64 * self.groups, self.width, self.groups)
            out *= 4
        if self.preactivation:
            return PreactivationBlock(out, conv, norm, strides, squeezed, self.shortcut, first, name=name)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        attention = partial(SqueezeExcite, **dtypes) if self.attention else None
        return ResidualBlock(out, conv, norm, strides, squeezed, self.shortcut, self.groups, attention, name=name)

    def _label(self) -> str:
        depth = 2 + (3 if self.bottleneck else 2) * sum(self.blocks)
        if self.groups > 1:
            return f"resnext{depth}_{self.groups}x{self.group_width}d"
        kind = "preresnet" if self.preactivation else "se_resnet" if self.attention else "resnet"
        kind = "plain" if self.shortcut == "none" else kind
        return f"{kind}{depth}" + ("_cifar" if self.small and self.channels == 64 else "")
