"""GoogLeNet, Inception-v1: kernels of several sizes side by side, the paper's form and torchvision's."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, flatten, require_images
from dlfx.nn.conv_norm import BasicConv2d, scaled
from dlfx.ops.adaptive_pooling import adaptive_avg_pool
from dlfx.ops.ceil_pooling import max_pool_ceil
from dlfx.ops.normalization import local_response_norm
from dlfx.ops.pooling import avg_pool, max_pool
from dlfx.types import Array

SMALLEST, SMALLEST_BN = 31, 15  # the sides at which the last pooling, of 3x3 and of 2x2, has one window
SMALLEST_AUX = 79  # the side at which the pooling of the paper's auxiliary heads has one window
AUX_DROPOUT = 0.7

# By name: 1x1, 3x3 reduced and full, 5x5 reduced and full, after pooling.
BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
HEADS = {"inception4a": "aux1", "inception4d": "aux2"}


class GoogLeNet(nn.Module):
    """GoogLeNet: three convolutions, nine inception blocks, the mean over all positions, dropout, a linear layer.

    The paper's form has convolutions with biases and local response normalisation: 6,998,552 parameters for three
    channels and 1000 classes, with auxiliary heads 13,378,280. With `batch_norm` the form that torchvision has: batch
    norm after convolutions without biases, 3x3 kernels where the paper has 5x5, and heads that take any image:
    6,624,904 and 13,004,888. Layers have torchvision's names in both.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 31, with batch norm 15; with the paper's auxiliary heads, at
        initialisation and in training, 79, and there of one size always, as their dense layers are.
      train: drop features at random (pass `rngs={"dropout": key}`), and with batch norm normalise by this batch's
        statistics and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stem [B, H/4, W/4, 192]`, `stage1
      [B, H/8, W/8, 480]`, `stage2 [B, H/16, W/16, 832]`, `stage3 [B, H/32, W/32, 1024]`, before each pooling, and
      `pooled [B, 1024]`. In training with auxiliary heads also their logits `aux1` and `aux2 [B, num_classes]`; what
      they weigh in the loss (0.3 in the paper) is the loss's matter.

    Raises:
      UserError: for smaller images.

    Source: Szegedy et al. 2014, Going Deeper with Convolutions (arXiv:1409.4842), table 1, figure 3 and section 5.
      Constants of the response normalisation, which the paper leaves open, as in Caffe's model. Initialisation: He's,
      with batch norm torchvision's.
    """

    batch_norm: bool = False
    aux_heads: bool = False
    dropout: float = 0.4
    width: float = 1.0  # a factor on all channels
    num_classes: int = 1000
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        aux_runs = self.aux_heads and (train or self.is_initializing())
        name, smallest, why = ("googlenet_bn", SMALLEST_BN, "") if self.batch_norm else ("googlenet", SMALLEST, "")
        if aux_runs and not self.batch_norm:
            smallest, why = SMALLEST_AUX, "for its auxiliary heads"
        require_images(name, images, smallest, 224, why)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        initial: Any = nn.initializers.truncated_normal(0.01) if self.batch_norm else nn.initializers.he_normal()
        conv: Any = partial(BasicConv2d, batch_norm=self.batch_norm, width=self.width, kernel_init=initial, **dtypes)
        conv = partial(conv, train=train, axis_name=self.axis_name)
        norm = partial(local_response_norm, alpha=2e-5, k=1.0) if not self.batch_norm else lambda x: x
        hidden = scaled(1024, self.width)
        features = {}

        x = conv(64, (7, 7), 2, 3, name="conv1")(images)
        x = norm(max_pool_ceil(x, 3, 2))
        x = conv(64, (1, 1), name="conv2")(x)
        features["stem"] = x = norm(conv(192, (3, 3), padding=1, name="conv3")(x))
        x = max_pool_ceil(x, 3, 2)
        for name, widths in BLOCKS.items():
            x = Inception(widths, 3 if self.batch_norm else 5, conv, name=name)(x)
            if name in HEADS and aux_runs:
                grid = adaptive_avg_pool(x, 4) if self.batch_norm else avg_pool(x, 5, 3)
                aux = AuxiliaryHead(self.num_classes, hidden, conv, initial, **dtypes, name=HEADS[name])
                features[HEADS[name]] = at_least_float32(aux(grid, train))
            if name == "inception3b":
                features["stage1"], x = x, max_pool_ceil(x, 3, 2)
            elif name == "inception4e":
                features["stage2"], x = x, max_pool_ceil(x, 2 if self.batch_norm else 3, 2)
        features["stage3"] = x

        features["pooled"] = x.mean((1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(features["pooled"])
        logits = nn.Dense(self.num_classes, kernel_init=initial, name="fc", **dtypes)(x)
        return at_least_float32(logits), features


class Inception(nn.Module):
    """Branches 1x1, 3x3, 5x5 and pool side by side, `[B, H, W, C]` to `[B, H, W, sum of the four]`.

    1x1 convolutions reduce the channels before the costly kernels. Nothing restores them: what follows is their
    concatenation. Squeezing and restoring is the bottleneck of ResNet.

    Source: Szegedy et al. 2014 (arXiv:1409.4842), figure 2b.
    """

    widths: tuple[int, int, int, int, int, int]  # see BLOCKS
    large: int  # the side of the largest kernel
    conv: Any  # `BasicConv2d`, to be finished with features, kernel and name

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv, (a, reduce_b, b, reduce_c, c, d) = self.conv, self.widths
        pooled = max_pool(x, 3, 1, ((1, 1), (1, 1)))
        branches = [
            conv(a, (1, 1), name="branch1")(x),
            conv(b, (3, 3), padding=1, name="branch2.1")(conv(reduce_b, (1, 1), name="branch2.0")(x)),
            conv(c, (self.large, self.large), padding=self.large // 2, name="branch3.1")(
                conv(reduce_c, (1, 1), name="branch3.0")(x)
            ),
            conv(d, (1, 1), name="branch4.1")(pooled),
        ]
        return jnp.concatenate(branches, -1)


class AuxiliaryHead(nn.Module):
    """A classifier beside the trunk, for gradients there in training: `[B, H, W, C]` to `[B, num_classes]`.

    Source: Szegedy et al. 2014 (arXiv:1409.4842), section 5, from after its pooling.
    """

    num_classes: int
    hidden: int
    conv: Any
    kernel_init: Any
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        dense: Any = partial(nn.Dense, kernel_init=self.kernel_init, dtype=self.dtype, param_dtype=self.param_dtype)
        x = flatten(self.conv(128, (1, 1), name="conv")(x))
        x = nn.relu(dense(self.hidden, name="fc1")(x))
        return dense(self.num_classes, name="fc2")(nn.Dropout(AUX_DROPOUT, deterministic=not train)(x))
