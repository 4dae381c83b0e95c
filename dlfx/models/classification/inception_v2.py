"""Inception-v2, BN-Inception: GoogLeNet with batch norm and two 3x3 kernels in place of a 5x5."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, require_images
from dlfx.nn.conv_norm import BasicConv2d
from dlfx.nn.convolution import Conv
from dlfx.ops.pooling import avg_pool, max_pool
from dlfx.types import Array

DEPTH_MULTIPLIER = 8  # of the separable first convolution


class Widths(NamedTuple):
    """Channels of one block; 0 for what it does not have."""

    one: int
    reduced: int
    three: int
    reduced_double: int
    double: int
    pooled: int
    stride: int = 1


BLOCKS = {
    "inception3a": Widths(64, 64, 64, 64, 96, 32),
    "inception3b": Widths(64, 64, 96, 64, 96, 64),
    "inception3c": Widths(0, 128, 160, 64, 96, 0, 2),
    "inception4a": Widths(224, 64, 96, 96, 128, 128),
    "inception4b": Widths(192, 96, 128, 96, 128, 128),
    "inception4c": Widths(160, 128, 160, 128, 160, 96),
    "inception4d": Widths(96, 128, 192, 160, 192, 96),
    "inception4e": Widths(0, 128, 192, 192, 256, 0, 2),
    "inception5a": Widths(352, 192, 320, 160, 224, 128),
    "inception5b": Widths(352, 192, 320, 192, 224, 128),
}
STAGES = {"inception3b": "stage1", "inception4d": "stage2", "inception5b": "stage3"}  # the last block at each size


class InceptionV2(nn.Module):
    """Inception-v2: a separable and two further convolutions, ten inception blocks, the mean and a linear layer.

    With three channels and 1000 classes 11,188,288 parameters. Layers are named in the manner of torchvision's
    GoogLeNet; there are no public weights by these names.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 8, below which the blocks see one pixel.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stem [B, H/4, W/4, 192]`, `stage1
      [B, H/8, W/8, 320]`, `stage2 [B, H/16, W/16, 576]`, `stage3 [B, H/32, W/32, 1024]`, `pooled [B, 1024]`.

    Raises:
      UserError: for smaller images.

    Source: Ioffe and Szegedy 2015, Batch Normalization: Accelerating Deep Network Training by Reducing Internal
      Covariate Shift (arXiv:1502.03167), figure 5. In blocks 4c and 4d it contradicts itself: 128 channels after
      pooling do not add up to the 576 of the output; here there are 96, as in TF-slim.
    """

    width: float = 1.0  # a factor on all channels
    num_classes: int = 1000
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        require_images("inception_v2", images, smallest=8)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Any = partial(BasicConv2d, width=self.width, train=train, axis_name=self.axis_name, **dtypes)
        halve = partial(max_pool, window=3, stride=2, padding=((1, 1), (1, 1)))
        channels = images.shape[-1]
        x = Conv(
            DEPTH_MULTIPLIER * channels,
            (7, 7),
            strides=2,
            padding=3,
            feature_group_count=channels,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            name="conv1_depthwise",
            **dtypes,
        )(images)
        x = halve(conv(64, (1, 1), name="conv1")(x))
        x = conv(64, (1, 1), name="conv2")(x)
        features = {"stem": conv(192, (3, 3), padding=1, name="conv3")(x)}
        x = halve(features["stem"])
        for name, widths in BLOCKS.items():
            x = Inception(widths, name == "inception5b", conv, name=name)(x)
            if name in STAGES:
                features[STAGES[name]] = x
        features["pooled"] = x.mean((1, 2))
        head = nn.Dense(self.num_classes, kernel_init=nn.initializers.he_normal(), name="fc", **dtypes)
        return at_least_float32(head(features["pooled"])), features


class Inception(nn.Module):
    """Branches 1x1, 3x3, twice 3x3, and pool: `[B, H, W, C]` to `[B, H/stride, W/stride, sum of the four]`.

    With stride 2 there is no 1x1 branch, and the pool branch passes its maxima on.

    Source: Ioffe and Szegedy 2015 (arXiv:1502.03167), appendix.
    """

    widths: Widths
    maximum: bool  # the pool branch of stride 1 takes maxima, otherwise means
    conv: Any  # `BasicConv2d`, to be finished with features, kernel and name

    @nn.compact
    def __call__(self, x: Array) -> Array:
        w, around = self.widths, ((1, 1), (1, 1))
        conv1: Any = partial(self.conv, kernel_size=(1, 1))
        conv3: Any = partial(self.conv, kernel_size=(3, 3), padding=1)
        branches = [conv1(w.one, name="branch1")(x)] if w.one else []
        b = conv1(w.reduced, name="branch2.0")(x)
        c = conv3(w.double, name="branch3.1")(conv1(w.reduced_double, name="branch3.0")(x))
        branches += [
            conv3(w.three, strides=w.stride, name="branch2.1")(b),
            conv3(w.double, strides=w.stride, name="branch3.2")(c),
        ]
        if w.stride == 2:
            branches.append(max_pool(x, 3, 2, around))
        else:
            pooled = max_pool(x, 3, 1, around) if self.maximum else avg_pool(x, 3, 1, around, count_padding=False)
            branches.append(conv1(w.pooled, name="branch4.1")(pooled))
        return jnp.concatenate(branches, -1)
