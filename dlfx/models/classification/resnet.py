"""ResNet: residual networks for ImageNet and for CIFAR."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.ops.pooling import max_pool
from dlfx.types import Array, UserError, unknown

SHORTCUTS = ("A", "B", "C")

he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
    """A residual network: stages of blocks `relu(shortcut(x) + f(x))`, each stage halving sides and doubling channels.

    The shortcut spans the two or three convolutions of one block, within one network. It is there because plain deep
    networks with batch norm, whose gradients do not vanish, are still hard to optimise (section 4.1 of the paper).

    The ImageNet form begins with a 7x7 convolution of stride 2 and a 3x3 max-pooling of stride 2, the CIFAR form
    with one 3x3 convolution. Both end with the mean over all positions and a linear layer. The number of weighted
    layers, `2 + layers_per_block * sum(blocks)`, names the network. In bottleneck blocks the 3x3 convolution carries
    the stride, as in torchvision; the paper has it on the first 1x1 convolution.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 8: there the last stage of the CIFAR form, and the first one of the
        ImageNet form, are 2x2, the smallest on which a 3x3 convolution sees a neighbour.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stem` (before the max-pooling),
      `stage1 [B, H1, W1, C1]` and so on, `pooled [B, C]`.

    Raises:
      UserError: for smaller images, or a shortcut that is not among A, B and C.

    Source: He, Zhang, Ren and Sun 2015, Deep Residual Learning for Image Recognition (arXiv:1512.03385), table 1 and
      section 4.2. Batch norm between convolution and ReLU, convolutions without bias, He initialisation.
    """

    blocks: Sequence[int]  # in each stage
    bottleneck: bool = False  # 1x1, 3x3, 1x1 to four times the width; otherwise 3x3, 3x3
    small: bool = False  # the CIFAR form
    shortcut: str | None = None  # A, B or C, see `Block`; None: A in the CIFAR form, B in the ImageNet form
    num_classes: int = 10
    dtype: Any = jnp.float32  # of the computation; the statistics of batch norm are at least float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        depth = 2 + (3 if self.bottleneck else 2) * sum(self.blocks)
        if images.ndim != 4 or min(images.shape[1:3]) < 8:
            raise UserError(
                f"resnet{depth} takes images [B, H, W, C] whose sides are at least 8; got {list(images.shape)}"
            )
        shortcut = self.shortcut or ("A" if self.small else "B")
        if shortcut not in SHORTCUTS:
            raise unknown("shortcut", shortcut, SHORTCUTS)
        conv, norm = layers(train, self.dtype, self.param_dtype, self.axis_name)

        if self.small:
            x = conv(16, (3, 3), padding=1, name="stem_conv")(images)
        else:
            x = conv(64, (7, 7), strides=2, padding=3, name="stem_conv")(images)
        features = {"stem": nn.relu(norm(name="stem_norm")(x))}
        x = features["stem"] if self.small else max_pool(features["stem"], 3, 2, ((1, 1), (1, 1)))
        width = x.shape[-1]
        for stage, count in enumerate(self.blocks):
            for index in range(count):
                strides = 2 if stage > 0 and index == 0 else 1
                name = f"stage{stage + 1}_block{index + 1}"
                x = Block(width * 2**stage, strides, self.bottleneck, shortcut, conv, norm, name=name)(x)
            features[f"stage{stage + 1}"] = x
        features["pooled"] = x.mean((1, 2))
        head = nn.Dense(self.num_classes, dtype=self.dtype, param_dtype=self.param_dtype, name="output")
        logits = head(features["pooled"])
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), features


class Block(nn.Module):
    """One residual block, `[B, H, W, C]` to `[B, H/strides, W/strides, C']`: `relu(shortcut(x) + f(x))`.

    Shortcuts, where shapes agree the identity except for C:
      A: every `strides`-th pixel, with zeros for the channels that are new (appended, as in fb.resnet.torch);
      B: `W x`, a 1x1 convolution of the same stride and batch norm, where shapes differ;
      C: that projection in every block.

    Source: He et al. 2015 (arXiv:1512.03385), equations 1 and 2 and section 3.3.
    """

    width: int
    strides: int
    bottleneck: bool
    shortcut: str
    conv: Any  # as made by `layers`
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv, norm, width = self.conv, self.norm, self.width
        if self.bottleneck:
            y = nn.relu(norm(name="norm1")(conv(width, (1, 1), name="conv1")(x)))
            y = nn.relu(norm(name="norm2")(conv(width, (3, 3), strides=self.strides, padding=1, name="conv2")(y)))
            y = norm(name="norm3")(conv(4 * width, (1, 1), name="conv3")(y))
        else:
            y = nn.relu(norm(name="norm1")(conv(width, (3, 3), strides=self.strides, padding=1, name="conv1")(x)))
            y = norm(name="norm2")(conv(width, (3, 3), padding=1, name="conv2")(y))
        channels = y.shape[-1]
        if self.shortcut == "C" or (self.shortcut == "B" and x.shape != y.shape):
            x = norm(name="shortcut_norm")(conv(channels, (1, 1), strides=self.strides, name="shortcut_conv")(x))
        elif x.shape != y.shape:
            x = x[:, :: self.strides, :: self.strides]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])))
        return nn.relu(x + y)


def layers(train: bool, dtype: Any, param_dtype: Any, axis_name: str | None) -> tuple[Any, Any]:
    """The convolution and the batch norm of a ResNet, to be finished with features and name."""
    conv = partial(
        nn.Conv, use_bias=False, kernel_init=he_normal_fan_out, padding=0, dtype=dtype, param_dtype=param_dtype
    )
    norm = partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        param_dtype=param_dtype,
        axis_name=axis_name,
        # Linen begins the running statistics in float32; after a step in float64 they would have changed their type.
        force_float32_reductions=jnp.dtype(dtype) != jnp.float64,
    )
    return conv, norm
