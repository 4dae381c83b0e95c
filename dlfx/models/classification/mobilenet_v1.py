"""MobileNet: convolutions split into one of each channel and one across channels."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, require_images
from dlfx.nn.conv_norm import conv_and_norm, scaled
from dlfx.types import Array

STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, blocks, stride of the first


class MobileNetV1(nn.Module):
    """A 3x3 convolution, thirteen depthwise separable ones, the mean over all positions and a linear layer.

    With three channels and 1000 classes 4,231,976 parameters. Layers are named as in timm's `mobilenetv1_100`.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 8, below which the last three stages see one pixel.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stem [B, H/2, W/2, 32]`, `stage1` (of the same
      size, 64 channels), `stage2 [B, H/4, W/4, 128]` to `stage5 [B, H/32, W/32, 1024]`, `pooled [B, 1024]`.

    Raises:
      UserError: for smaller images.

    Source: Howard et al. 2017, MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications
      (arXiv:1704.04861), table 1; ReLU cut at 6 as in the authors' code. He initialisation.
    """

    width: float = 1.0  # a factor on all channels, which stay multiples of 8
    tensorflow_padding: bool = False  # of the authors' weights; with stride 2, zeros below and right alone
    epsilon: float = 1e-5  # of batch norm; the authors' weights want 0.001
    num_classes: int = 1000
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        require_images("mobilenet_v1", images, smallest=8)
        conv, norm = conv_and_norm(train, self.dtype, self.param_dtype, self.axis_name, self.epsilon)
        conv3 = partial(conv, kernel_size=(3, 3), padding="SAME" if self.tensorflow_padding else 1)
        x = conv3(scaled(32, self.width, 8), strides=2, name="conv_stem")(images)
        features = {"stem": nn.relu6(norm(name="bn1")(x))}
        x = features["stem"]
        for stage, (channels, count, stride) in enumerate(STAGES):
            for index in range(count):
                strides = stride if index == 0 else 1
                name = f"blocks.{stage}.{index}"
                x = SeparableBlock(scaled(channels, self.width, 8), strides, conv, conv3, norm, name=name)(x)
            features[f"stage{stage + 1}"] = x
        features["pooled"] = x.mean((1, 2))
        head = nn.Dense(self.num_classes, dtype=self.dtype, param_dtype=self.param_dtype, name="classifier")
        return at_least_float32(head(features["pooled"])), features


class SeparableBlock(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, `[B, H, W, C]` to `[B, H/strides, W/strides, features]`.

    Source: Howard et al. 2017 (arXiv:1704.04861), section 3.1 and figure 3.
    """

    features: int
    strides: int
    conv: Any  # as made by `conv_and_norm`
    conv3: Any  # the same, 3x3 and padded
    norm: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        depthwise = partial(self.conv3, feature_group_count=channels, kernel_init=nn.initializers.he_normal())
        x = nn.relu6(self.norm(name="bn1")(depthwise(channels, strides=self.strides, name="conv_dw")(x)))
        return nn.relu6(self.norm(name="bn2")(self.conv(self.features, (1, 1), name="conv_pw")(x)))
