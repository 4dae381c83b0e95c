"""Networks that turn one image into another, and the critics that judge patches of it."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.convolution import ConvTranspose
from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import Array, UserError

normal = nn.initializers.normal(0.02)


def _layers(dtype: Any, param_dtype: Any) -> tuple[Any, Any, Any]:
    """Convolution, transposed convolution and instance norm, to be finished with what differs.

    A bias before a norm would be taken away by it again, and its gradient be nothing but rounding: there is none.
    """
    types = {"dtype": dtype, "param_dtype": param_dtype}
    conv = partial(nn.Conv, kernel_init=normal, conv_general_dilated=conv_general_dilated, **types)
    up = partial(ConvTranspose, kernel_init=normal, **types)
    norm = partial(nn.GroupNorm, num_groups=None, group_size=1, epsilon=1e-5, **types)
    return conv, up, norm


def _divisible(images: Array, by: int, name: str) -> None:
    if images.ndim != 4 or any(side % by or not side for side in images.shape[1:3]):
        raise UserError(
            f"{name} takes images [B, H, W, C] whose sides are multiples of {by}; got {list(images.shape)}: "
            f"--image_size with --resize brings them to a size"
        )


class UNet(nn.Module):
    """The generator of pix2pix: down to a narrow waist and up again, each level joined with its mirror image.

    Level i has `min(8, 2^i) features` channels. Down: 4x4 convolution of stride 2, instance norm (not in the first
    level and the last), leaky ReLU 0.2. Up: ReLU, 4x4 transposed convolution of stride 2, instance norm, dropout in the
    three innermost levels, then the features of the same size appended. The output is `tanh`.

    Args (of the call):
      images: `[B, H, W, C]` in [-1, 1], sides multiples of `2^depth`.
      train: whether dropout acts (rng `dropout`): it is the noise of this generator.

    Returns:
      `[B, H, W, channels]` in [-1, 1].

    Raises:
      UserError: for other sides.

    Source: Isola, Zhu, Zhou and Efros 2016, Image-to-Image Translation with Conditional Adversarial Networks
      (arXiv:1611.07004), sections 3.2.1 and 6.1.1; instance norm, which its batch norm is for batches of one image.
    """

    channels: int
    features: int = 32
    depth: int = 4
    dropout: float = 0.5
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        _divisible(images, 2**self.depth, "unet")
        conv, up, norm = _layers(self.dtype, self.param_dtype)
        widths = [self.features * min(8, 2**i) for i in range(self.depth)]
        x, skips = images, []
        for i, width in enumerate(widths):
            normed = 0 < i < self.depth - 1
            down = conv(width, (4, 4), strides=2, padding=1, use_bias=not normed, name=f"down{i}")
            x = down(nn.leaky_relu(x, 0.2) if i else x)
            if normed:
                x = norm(name=f"down_norm{i}")(x)
            skips.append(x)
        for i in reversed(range(self.depth)):
            width = widths[i - 1] if i else self.channels
            x = up(width, (4, 4), padding=1, use_bias=not i, name=f"up{i}")(nn.relu(x))
            if i:
                x = norm(name=f"up_norm{i}")(x)
                if i > self.depth - 4:
                    x = nn.Dropout(self.dropout, deterministic=not train)(x)
                x = jnp.concatenate([x, skips[i - 1]], -1)
        return jnp.tanh(x)


class ResNetGenerator(nn.Module):
    """The generator of CycleGAN: two halvings, residual blocks at a quarter of the size, two doublings.

    `c7s1-F, d2F, d4F, R4F x blocks, u2F, uF, c7s1-channels` with instance norm and ReLU, reflected borders, `tanh`.

    Args (of the call):
      images: `[B, H, W, C]` in [-1, 1], sides multiples of 4, at least 8.
      train: without effect, nothing here depends on it.

    Returns:
      `[B, H, W, channels]` in [-1, 1].

    Raises:
      UserError: for other sides.

    Source: Zhu, Park, Isola and Efros 2017, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
      Networks (arXiv:1703.10593), section 7.2; after Johnson, Alahi and Fei-Fei 2016 (arXiv:1603.08155).
    """

    channels: int
    features: int = 16
    blocks: int = 3
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        _divisible(images, 4, "resnet generator")
        conv, up, norm = _layers(self.dtype, self.param_dtype)

        def reflected(x: Array, by: int) -> Array:
            return jnp.pad(x, ((0, 0), (by, by), (by, by), (0, 0)), "reflect")

        plain, grow = partial(conv, use_bias=False), partial(up, use_bias=False)
        f = self.features
        x = nn.relu(norm(name="norm1")(plain(f, (7, 7), padding=0, name="conv1")(reflected(images, 3))))
        x = nn.relu(norm(name="norm2")(plain(2 * f, (3, 3), strides=2, padding=1, name="conv2")(x)))
        x = nn.relu(norm(name="norm3")(plain(4 * f, (3, 3), strides=2, padding=1, name="conv3")(x)))
        for i in range(self.blocks):
            y = plain(4 * f, (3, 3), padding=0, name=f"block{i}_conv1")(reflected(x, 1))
            y = nn.relu(norm(name=f"block{i}_norm1")(y))
            y = plain(4 * f, (3, 3), padding=0, name=f"block{i}_conv2")(reflected(y, 1))
            x = x + norm(name=f"block{i}_norm2")(y)
        x = nn.relu(norm(name="norm4")(grow(2 * f, (4, 4), padding=1, name="up1")(x)))
        x = nn.relu(norm(name="norm5")(grow(f, (4, 4), padding=1, name="up2")(x)))
        return jnp.tanh(conv(self.channels, (7, 7), padding=0, name="output")(reflected(x, 3)))


class PatchCritic(nn.Module):
    """PatchGAN: a critic that judges every patch of an image by itself, as real or generated.

    `C_F - C_2F - ... - 1`: 4x4 convolutions, the first `layers` of stride 2 and two more of stride 1, instance norm but
    in the first, leaky ReLU 0.2. An output sees a patch of 16 pixels a side with one layer of stride 2, of 34 with two,
    of 70 with three.

    Args (of the call):
      images: `[B, H, W, C]`; for pix2pix input and output appended along the channels.

    Returns:
      Logits `[B, H', W']`, one for each patch.

    Raises:
      UserError: for sides that leave no patch.

    Source: Isola et al. 2016 (arXiv:1611.07004), sections 3.2.2 and 6.1.2.
    """

    features: int = 32
    layers: int = 2
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        if min(images.shape[1:3]) < 2 ** (self.layers + 1) * 2:
            least = 2 ** (self.layers + 1) * 2
            raise UserError(f"a patch critic of {self.layers} layers takes sides of at least {least}")
        conv, _, norm = _layers(self.dtype, self.param_dtype)
        x = images
        for i in range(self.layers + 1):
            strides = 2 if i < self.layers else 1
            width = self.features * min(8, 2**i)
            x = conv(width, (4, 4), strides=strides, padding=1, use_bias=i == 0, name=f"conv{i}")(x)
            x = nn.leaky_relu(norm(name=f"norm{i}")(x) if i else x, 0.2)
        return conv(1, (4, 4), padding=1, name="output")(x)[..., 0]
