"""AlexNet: the network of 2012, and the narrower one of 2014 that torchvision has."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, flatten, require_images
from dlfx.nn.conv_norm import scaled
from dlfx.nn.convolution import Conv
from dlfx.nn.dense import Dense
from dlfx.ops.adaptive_pooling import adaptive_avg_pool
from dlfx.ops.normalization import local_response_norm
from dlfx.ops.pooling import max_pool
from dlfx.types import Array

SMALLEST = 63  # the side at which the last pooling has one window
WIDTHS = {False: (64, 192, 384, 256, 256), True: (96, 256, 384, 384, 256)}  # by `of_2012`
BIASES = {"features.3", "features.8", "features.10", "classifier.1", "classifier.4"}  # that begin at 1 in 2012

uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # PyTorch's


class AlexNet(nn.Module):
    """Five convolutions, of 11x11, 5x5 and 3x3, with ReLU and overlapping poolings, and three dense layers.

    By default the form that torchvision has, with 61,100,840 parameters for three channels and 1000 classes. With
    `of_2012` the first: wider, with local response normalisation after the first two convolutions. With `grouped` it
    is as trained on two GPUs, where the second, fourth and fifth convolution see only the channels of their own:
    60,965,224 parameters; without, 62,378,344. Averaging to 6x6 before the dense layers, as in torchvision, changes
    nothing for images of 224x224. Layers have torchvision's names in both forms.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 63.
      train: drop features at random (pass `rngs={"dropout": key}`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stage1` to `stage3`, before each pooling,
      `pooled [B, 36 C]`, `hidden1` and `hidden2 [B, 4096]`.

    Raises:
      UserError: for smaller images.

    Source: Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional Neural Networks,
      sections 3 and 5. Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks
      (arXiv:1404.5997), for the narrower form. Initialisation: PyTorch's for kernels; of 2012 He's, and the paper's
      biases. Its deviation of 0.01 for all kernels is one for wide layers and long training: an eighth as wide, the
      network had not begun to learn the digits after 500 steps.
    """

    of_2012: bool = False
    grouped: bool = False  # of 2012
    dropout: float = 0.5
    width: float = 1.0  # a factor on all channels and hidden units
    num_classes: int = 1000
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # every model takes it; of no use here, for want of batch norm

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        label = "alexnet_2012" if self.of_2012 else "alexnet"
        require_images(label if self.grouped or not self.of_2012 else f"{label}_ungrouped", images, SMALLEST, 224)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        initial = nn.initializers.he_normal() if self.of_2012 else uniform_fan_in
        groups = 2 if self.grouped else 1
        a, b, c, d, e = (scaled(channels, self.width, groups) for channels in WIDTHS[self.of_2012])

        def layer(kind: Any, size: int, name: str, **how: Any) -> Any:
            bias: Any = nn.initializers.ones if self.of_2012 and name in BIASES else nn.initializers.zeros
            return kind(size, **how, kernel_init=initial, bias_init=bias, name=name, **dtypes)

        conv, dense = partial(layer, Conv), partial(layer, Dense)
        conv3: Any = partial(conv, kernel_size=(3, 3), padding=1)
        norm = local_response_norm if self.of_2012 else lambda x: x
        drop = nn.Dropout(self.dropout, deterministic=not train)
        features = {}

        x = nn.relu(conv(a, "features.0", kernel_size=(11, 11), strides=4, padding=2)(images))
        features["stage1"] = x = norm(x)
        x = max_pool(x, 3, 2)
        x = nn.relu(conv(b, "features.3", kernel_size=(5, 5), padding=2, feature_group_count=groups)(x))
        features["stage2"] = x = norm(x)
        x = max_pool(x, 3, 2)
        x = nn.relu(conv3(c, "features.6")(x))
        x = nn.relu(conv3(d, "features.8", feature_group_count=groups)(x))
        features["stage3"] = x = nn.relu(conv3(e, "features.10", feature_group_count=groups)(x))
        features["pooled"] = x = flatten(adaptive_avg_pool(max_pool(x, 3, 2), 6))

        # torchvision drops what goes into the first two dense layers, the paper what comes out of them.
        hidden = scaled(4096, self.width)
        x = x if self.of_2012 else drop(x)
        features["hidden1"] = x = nn.relu(dense(hidden, "classifier.1")(x))
        features["hidden2"] = x = nn.relu(dense(hidden, "classifier.4")(drop(x)))
        x = drop(x) if self.of_2012 else x
        return at_least_float32(dense(self.num_classes, "classifier.6")(x)), features
