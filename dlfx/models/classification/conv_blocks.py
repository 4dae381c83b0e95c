"""Networks of the plain pattern, `[M convolutions + pooling] x N + K dense layers`: from LeNet to VGG."""

import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, flatten, require_images
from dlfx.nn.conv_norm import he_normal_fan_out, scaled
from dlfx.nn.convolution import Conv
from dlfx.nn.dense import Dense
from dlfx.nn.normalization import BatchNorm
from dlfx.ops.adaptive_pooling import adaptive_avg_pool
from dlfx.ops.pooling import max_pool
from dlfx.types import Array, UserError

_BLOCK = re.compile(r"(?P<count>\d+)x(?P<channels>\d+)(?:k(?P<kernel>\d+))?(?P<valid>v?)(?P<pool>p?)")


class Block(NamedTuple):
    """M convolutions, each with ReLU, and perhaps a max-pooling of 2x2."""

    convolutions: int
    channels: int
    kernel: int
    same: bool  # zeros around, so that sides stay; otherwise none
    pool: bool


class ConvBlocks(nn.Module):
    """A convolutional network as a pattern tells it, such as `2x64p,2x128p;256`.

    Before the semicolon are blocks: `2x64p` is two 3x3 convolutions of 64 channels, each with ReLU, and a max-pooling
    of 2x2. `k5` makes the kernels 5x5, `v` leaves out the zeros around, and without `p` there is no pooling:
    `1x6k5vp`. After it are the widths of the dense hidden layers, each with ReLU and dropout; one more gives the
    logits. LeNet-5 is `1x6k5vp,1x16k5vp;120,84` with `grid=None`, for VGG see `vgg`. Layers are named as VGG's in
    torchvision.

    Args (of the call):
      images: `[B, H, W, C]`, with sides that the last pooling can still halve.
      train: drop features at random (pass `rngs={"dropout": key}`), and with batch norm normalise by this batch's
        statistics and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `stage1` and so on, of each block after its last
      ReLU and before its pooling, `pooled [B, C grid grid]`, and `hidden1 [B, D]` and so on.

    Raises:
      UserError: for smaller images, and for what is no pattern.

    Source: the pattern of Simonyan and Zisserman 2014 (arXiv:1409.1556), section 2.3. Initialisation as in torchvision:
      He's for convolutions, deviations of 0.01 for dense layers.
    """

    pattern: str = "2x32p,2x64p,2x128p;128"
    grid: int | None = 1  # pixels are averaged to grid x grid before the dense layers; None: all are taken
    batch_norm: bool = False  # after every convolution
    dropout: float = 0.0
    label: str = "conv_blocks"  # what errors call it
    usual: int | None = None  # the side of images that errors recommend
    width: float = 1.0  # a factor on all channels and hidden units
    num_classes: int = 10
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        blocks, hidden = parse(self.pattern)
        require_images(self.label, images, smallest_side(blocks), self.usual)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x, layer, features = images, 0, {}
        for stage, block in enumerate(blocks, 1):
            for _ in range(block.convolutions):
                x = Conv(
                    scaled(block.channels, self.width),
                    (block.kernel, block.kernel),
                    padding=block.kernel // 2 if block.same else 0,
                    kernel_init=he_normal_fan_out,
                    name=f"features.{layer}",
                    **dtypes,
                )(x)
                if self.batch_norm:
                    layer += 1
                    x = BatchNorm(not train, axis_name=self.axis_name, name=f"features.{layer}", **dtypes)(x)
                x = nn.relu(x)
                layer += 2
            features[f"stage{stage}"] = x
            if block.pool:
                x = max_pool(x, 2)
                layer += 1
        x = features["pooled"] = flatten(x if self.grid is None else adaptive_avg_pool(x, self.grid))
        small: Any = nn.initializers.normal(0.01)
        for index, units in enumerate(hidden):
            x = Dense(scaled(units, self.width), kernel_init=small, name=f"classifier.{3 * index}", **dtypes)(x)
            x = features[f"hidden{index + 1}"] = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = Dense(self.num_classes, kernel_init=small, name=f"classifier.{3 * len(hidden)}", **dtypes)(x)
        return at_least_float32(x), features


def parse(pattern: str) -> tuple[list[Block], list[int]]:
    """The blocks and the widths of the hidden layers of a pattern.

    Raises:
      UserError: for what is no pattern, numbers of zero, and even kernels that are to keep the sides.
    """
    head, _, tail = pattern.replace(" ", "").partition(";")
    blocks = []
    for text in head.split(","):
        match = _BLOCK.fullmatch(text)
        if not match:
            raise UserError(
                f"{text!r} in the pattern {pattern!r} is no block; one is MxCHANNELS, then kSIZE, v and p as wanted, "
                "such as 2x64p or 1x6k5vp"
            )
        kernel = int(match["kernel"] or 3)
        block = Block(int(match["count"]), int(match["channels"]), kernel, not match["valid"], bool(match["pool"]))
        if not (block.convolutions and block.channels and kernel):
            raise UserError(f"{text!r} in the pattern {pattern!r} has a zero; its numbers are at least 1")
        if block.same and kernel % 2 == 0:
            raise UserError(f"{text!r} in the pattern {pattern!r}: an even kernel cannot keep the sides; add v")
        blocks.append(block)
    hidden = tail.split(",") if tail else []
    if not all(units.isdecimal() and int(units) for units in hidden):
        raise UserError(f"{tail!r} in the pattern {pattern!r} are no widths of dense layers, such as 4096,4096")
    return blocks, [int(units) for units in hidden]


def smallest_side(blocks: list[Block]) -> int:
    """The side of the smallest image of which the blocks leave a pixel."""
    side = 1
    for block in reversed(blocks):
        side = side * 2 if block.pool else side
        side += 0 if block.same else block.convolutions * (block.kernel - 1)
    return side
