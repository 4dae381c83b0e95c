"""Fully connected layers as convolutions: a classifier that looks at every place of a larger image."""

from collections.abc import Callable, Sequence

import jax

from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import Array, UserError

NHWC = ("NHWC", "HWIO", "NHWC")


def dense_to_conv(kernel: Array, size: tuple[int, int], channel_first: bool) -> Array:
    """The kernel of the convolution that a dense layer on a flattened feature map is.

    Args:
      kernel: `[H W C, O]`.
      size: (H, W) of the map.
      channel_first: whether it was flattened as `[C, H, W]`, as PyTorch's classifiers do, or as `[H, W, C]`.

    Returns:
      `[H, W, C, O]`.

    Raises:
      UserError: if the map's pixels do not divide the kernel's rows.

    Source: Long, Shelhamer and Darrell 2014, Fully Convolutional Networks (arXiv:1411.4038), section 3.1.
    """
    (height, width), (rows, features) = size, kernel.shape
    channels, rest = divmod(rows, height * width)
    if rest:
        raise UserError(f"a dense layer of {rows} inputs does not read a map of {height} x {width} pixels")
    if channel_first:
        return kernel.reshape(channels, height, width, features).transpose(1, 2, 0, 3)
    return kernel.reshape(height, width, channels, features)


def fully_convolutional(
    x: Array,
    layers: Sequence[tuple[Array, Array]],
    size: tuple[int, int],
    channel_first: bool,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Array:
    """The dense layers of a classifier at every place of a feature map.

    `y[b, i, j]` is what the layers give for the window `x[b, i : i + H, j : j + W]`, flattened: on a map of the size
    that they were trained for `[B, 1, 1, O]`, the logits. What the windows share is computed once.

    Args:
      x: `[B, H', W', C]`, the last feature map before it is flattened, of an image as large as you like.
      layers: (kernel, bias) of each dense layer, first to last.
      size: (H, W), the map that the first one was trained for.
      channel_first: how it was flattened, see `dense_to_conv`.
      activation: between the layers, not after the last.

    Returns:
      `[B, H' - H + 1, W' - W + 1, O]`.

    Raises:
      UserError: for a map that is smaller, or has other channels.

    Source: Long, Shelhamer and Darrell 2014, Fully Convolutional Networks (arXiv:1411.4038), section 3.1; Sermanet et
      al. 2013, OverFeat (arXiv:1312.6229), section 3.5.
    """
    for k, (dense, bias) in enumerate(layers):
        kernel = dense_to_conv(dense, size if k == 0 else (1, 1), channel_first)
        if x.shape[-1] != kernel.shape[2] or any(
            side < least for side, least in zip(x.shape[1:3], kernel.shape[:2], strict=True)
        ):
            raise UserError(
                f"a map {list(x.shape)} is not for dense layers that read {list(kernel.shape[:3])}: it must be at "
                "least as high and wide, with as many channels"
            )
        x = activation(x) if k else x
        x = conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=NHWC) + bias
    return x
