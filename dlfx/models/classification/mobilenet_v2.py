"""MobileNet-v2: residual blocks that are narrow between and wide within, where each channel is convolved alone."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, require_images
from dlfx.nn.conv_norm import conv_and_norm, scaled
from dlfx.types import Array

# Expansion, channels, blocks, stride of the first.
SETTINGS = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
STAGES = {1: "stage1", 3: "stage2", 6: "stage3", 13: "stage4", 17: "stage5"}  # the last block at each size


class MobileNetV2(nn.Module):
    """A 3x3 convolution, seventeen inverted residual blocks, a 1x1 convolution, the mean, dropout and a linear layer.

    With three channels and 1000 classes 3,504,872 parameters. Layers are named as in torchvision.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 8, below which the last three stages see one pixel.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`),
        and drop features at random (pass `rngs={"dropout": key}`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stem [B, H/2, W/2, 32]`, `stage1` (of the same
      size, 16 channels), `stage2 [B, H/4, W/4, 24]`, `stage3` (32 channels), `stage4` (96), `stage5
      [B, H/32, W/32, 320]`, `last [B, H/32, W/32, 1280]`, `pooled [B, 1280]`.

    Raises:
      UserError: for smaller images.

    Source: Sandler, Howard, Zhu, Zhmoginov and Chen 2018, MobileNetV2: Inverted Residuals and Linear Bottlenecks
      (arXiv:1801.04381), table 2. Initialisation as in torchvision.
    """

    width: float = 1.0  # a factor on all channels, which stay multiples of 8; the last ones never get fewer
    tensorflow_padding: bool = False  # of the authors' weights; with stride 2, zeros below and right alone
    epsilon: float = 1e-5  # of batch norm; the authors' weights want 0.001
    dropout: float = 0.2
    num_classes: int = 1000
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        require_images("mobilenet_v2", images, smallest=8)
        conv, norm = conv_and_norm(train, self.dtype, self.param_dtype, self.axis_name, self.epsilon)
        conv3 = partial(conv, kernel_size=(3, 3), padding="SAME" if self.tensorflow_padding else 1)
        x = conv3(scaled(32, self.width, 8), strides=2, name="features.0.0")(images)
        features = {"stem": nn.relu6(norm(name="features.0.1")(x))}
        x, layer = features["stem"], 0
        for expansion, channels, count, stride in SETTINGS:
            for index in range(count):
                layer += 1
                strides, out = stride if index == 0 else 1, scaled(channels, self.width, 8)
                x = InvertedResidual(out, strides, expansion, conv, conv3, norm, name=f"features.{layer}")(x)
                if layer in STAGES:
                    features[STAGES[layer]] = x
        x = conv(scaled(1280, max(1.0, self.width), 8), (1, 1), name="features.18.0")(x)
        features["last"] = nn.relu6(norm(name="features.18.1")(x))
        features["pooled"] = features["last"].mean((1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(features["pooled"])
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        head = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="classifier.1", **dtypes)
        return at_least_float32(head(x)), features


class InvertedResidual(nn.Module):
    """1x1 to more channels, depthwise 3x3, 1x1 to few without activation: `[B, H, W, C]` to `[B, H/s, W/s, features]`.

    The identity is added where neither sides nor channels change.

    Source: Sandler et al. 2018 (arXiv:1801.04381), table 1 and figure 4d.
    """

    features: int
    strides: int
    expansion: int
    conv: Any  # as made by `conv_and_norm`
    conv3: Any  # the same, 3x3 and padded
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv, norm, y, layer = self.conv, self.norm, x, 0
        hidden = x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = nn.relu6(norm(name="conv.0.1")(conv(hidden, (1, 1), name="conv.0.0")(y)))
            layer = 1
        depthwise = partial(self.conv3, strides=self.strides, feature_group_count=hidden)
        y = nn.relu6(norm(name=f"conv.{layer}.1")(depthwise(hidden, name=f"conv.{layer}.0")(y)))
        y = norm(name=f"conv.{layer + 2}")(conv(self.features, (1, 1), name=f"conv.{layer + 1}")(y))
        # Not by shapes: of a single pixel a stride of 2 leaves one, too.
        return x + y if self.strides == 1 and x.shape[-1] == y.shape[-1] else y
