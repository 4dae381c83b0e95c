"""VGG: stacks of 3x3 convolutions between poolings of 2x2, and two wide hidden layers."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn

from dlfx.models.classification.conv_blocks import ConvBlocks


def vgg(convolutions: tuple[int, int, int, int, int], batch_norm: bool = False) -> Callable[..., nn.Module]:
    """VGG with so many convolutions before each of its five poolings: (2, 2, 3, 3, 3) is VGG-16.

    The paper has no batch norm, which came a year later; forms with it are torchvision's. Averaging to 7x7 before the
    dense layers, as in torchvision, changes nothing for images of 224x224 and admits all others from 32x32 on.

    Returns:
      What makes it, see `ConvBlocks`.

    Source: Simonyan and Zisserman 2014, Very Deep Convolutional Networks for Large-Scale Image Recognition
      (arXiv:1409.1556), table 1, configurations A, B, D and E.
    """
    blocks = [f"{count}x{channels}p" for count, channels in zip(convolutions, (64, 128, 256, 512, 512), strict=True)]
    label = f"vgg{sum(convolutions) + 3}" + ("_bn" if batch_norm else "")
    return partial(
        ConvBlocks,
        pattern=",".join(blocks) + ";4096,4096",
        grid=7,
        batch_norm=batch_norm,
        dropout=0.5,
        label=label,
        usual=224,
        num_classes=1000,
    )
