"""The arithmetic of convolutions: sizes, receptive fields, parameters, multiply-adds, memory. Whole numbers only."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from dlfx.types import UserError


class Window(NamedTuple):
    """What a convolution or a pooling does along one side: a window of `kernel` elements, `dilation` apart."""

    kernel: int
    stride: int = 1
    padding: int = 0  # on either side
    dilation: int = 1


class Field(NamedTuple):
    """What an output sees of the input: `size` elements, of which output i has the first at `start + i * jump`."""

    size: int
    jump: int
    start: int


def effective_kernel(kernel: int, dilation: int = 1) -> int:
    """The reach of a dilated window, `k + (k - 1) (d - 1)`."""
    return kernel + (kernel - 1) * (dilation - 1)


def output_size(size: int, window: Window, ceil_mode: bool = False) -> int:
    """The outputs of a convolution or pooling along one side, `floor((l + 2 p - d (k - 1) - 1) / s) + 1`.

    Args:
      size: l, the inputs.
      window: k, s, p and d.
      ceil_mode: round up, unless the last window would begin in the padding behind the input, as PyTorch's pooling.

    Raises:
      UserError: for a stride below 1, and a window larger than what it moves over.

    Source: Dumoulin and Visin 2016 (arXiv:1603.07285), relationship 15.
    """
    kernel, stride, padding, dilation = window
    if min(kernel, stride, dilation) < 1 or padding < 0:
        raise UserError(f"{window}: kernel, stride and dilation are at least 1, padding at least 0")
    room = size + 2 * padding - effective_kernel(kernel, dilation)
    if room < 0:
        raise UserError(
            f"a window of {effective_kernel(kernel, dilation)} does not fit into {size} elements with {padding} of "
            "padding on either side"
        )
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - ((count - 1) * stride >= size + padding)


def transposed_output_size(size: int, window: Window, output_padding: int = 0) -> int:
    """The outputs of a transposed convolution along one side, `s (l - 1) + d (k - 1) + 1 - 2 p + output_padding`.

    Raises:
      UserError: for an output padding that is not below the stride or the dilation, or a window that leaves nothing.

    Source: Dumoulin and Visin 2016 (arXiv:1603.07285), relationship 14.
    """
    kernel, stride, padding, dilation = window
    if not 0 <= output_padding < max(stride, dilation):
        raise UserError(f"an output padding of {output_padding} must be below the stride or the dilation, {window}")
    count = stride * (size - 1) + effective_kernel(kernel, dilation) - 2 * padding + output_padding
    if size < 1 or count < 1:
        raise UserError(f"{window} makes nothing of {size} elements")
    return count


def receptive_field(windows: Sequence[Window]) -> Field:
    """What an output of windows, one after another, sees of the input: from the input to the output,

    `r_l = r_{l-1} + (k_l - 1) d_l j_{l-1}`, `j_l = j_{l-1} s_l`, `start_l = start_{l-1} - p_l j_{l-1}`

    Source: Araujo, Norris and Sim 2019, Computing Receptive Fields of Convolutional Neural Networks, Distill.
    """
    field = Field(1, 1, 0)
    for kernel, stride, padding, dilation in windows:
        size = field.size + (effective_kernel(kernel, dilation) - 1) * field.jump
        field = Field(size, field.jump * stride, field.start - padding * field.jump)
    return field


def receptive_field_backward(windows: Sequence[Window]) -> int:
    """The same size from the output to the input: `r_{l-1} = (r_l - 1) s_l + d_l (k_l - 1) + 1`."""
    size = 1
    for kernel, stride, _, dilation in reversed(windows):
        size = (size - 1) * stride + effective_kernel(kernel, dilation)
    return size


def parameters(kernel: Sequence[int], channels: int, features: int, groups: int = 1, bias: bool = True) -> int:
    """Of a convolution, `k k C O / g`, and O biases.

    Raises:
      UserError: for groups that do not divide the channels and the features.
    """
    if groups < 1 or channels % groups or features % groups:
        raise UserError(f"{groups} groups do not divide {channels} channels into {features} features")
    return math.prod(kernel) * channels // groups * features + (features if bias else 0)


def multiply_adds(kernel: Sequence[int], channels: int, features: int, outputs: Sequence[int], groups: int = 1) -> int:
    """Of a convolution of one image, `k k C O / g` at each of the output positions; biases are not counted."""
    return parameters(kernel, channels, features, groups, bias=False) * math.prod(outputs)


def activation_bytes(shapes: Sequence[Sequence[int]], itemsize: int = 4) -> int:
    """The memory of activations of these shapes, which training keeps for the way back."""
    return itemsize * sum(math.prod(shape) for shape in shapes)
