"""Image classifiers.

Every model is made by `MODELS[name](num_classes=10, dtype=jnp.float32, param_dtype=jnp.float32, axis_name=None)` and
called by `module.apply(variables, images, train=bool, mutable=["batch_stats"])`: images `[B, H, W, C]` to (logits
`[B, num_classes]`, features by name). `width=` is a factor on all channels; `dropout=` and `aux_heads=` are there where
the paper has them. Features, from the first to the last, are there for whoever looks, and for other networks to stand
on; under jit those that nobody uses cost nothing, as XLA removes dead code.
"""

from collections.abc import Callable, Iterable
from functools import partial

import flax.linen as nn

from dlfx.models.classification.alexnet import AlexNet
from dlfx.models.classification.conv_blocks import ConvBlocks
from dlfx.models.classification.googlenet import GoogLeNet
from dlfx.models.classification.inception_v2 import InceptionV2
from dlfx.models.classification.inception_v3 import InceptionV3
from dlfx.models.classification.lenet import LeNet5, LeNet5Of1998
from dlfx.models.classification.mobilenet_v1 import MobileNetV1
from dlfx.models.classification.mobilenet_v2 import MobileNetV2
from dlfx.models.classification.resnet import ResNet
from dlfx.models.classification.vgg import vgg

_CIFAR = partial(ResNet, small=True, channels=16, shortcut="A")
_PLAIN = partial(ResNet, small=True, channels=16, shortcut="none")
_BOTTLENECK = partial(ResNet, bottleneck=True)

# For images of 32x32.
_SMALL: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5_1998": LeNet5Of1998,
    "conv_blocks": ConvBlocks,
    "plain20": partial(_PLAIN, blocks=(3, 3, 3)),
    "plain56": partial(_PLAIN, blocks=(9, 9, 9)),
    "resnet18_cifar": partial(ResNet, blocks=(2, 2, 2, 2), small=True),
    "resnet20": partial(_CIFAR, blocks=(3, 3, 3)),
    "resnet32": partial(_CIFAR, blocks=(5, 5, 5)),
    "resnet44": partial(_CIFAR, blocks=(7, 7, 7)),
    "resnet56": partial(_CIFAR, blocks=(9, 9, 9)),
    "resnet110": partial(_CIFAR, blocks=(18, 18, 18)),
    "preresnet20": partial(_CIFAR, blocks=(3, 3, 3), preactivation=True),
    "preresnet32": partial(_CIFAR, blocks=(5, 5, 5), preactivation=True),
    "preresnet44": partial(_CIFAR, blocks=(7, 7, 7), preactivation=True),
    "preresnet56": partial(_CIFAR, blocks=(9, 9, 9), preactivation=True),
    "preresnet110": partial(_CIFAR, blocks=(18, 18, 18), preactivation=True),
}

# For images of 224x224, Inception-v3 of 299x299.
_LARGE: dict[str, Callable[..., nn.Module]] = {
    "alexnet": AlexNet,
    "alexnet_2012": partial(AlexNet, of_2012=True, grouped=True),
    "alexnet_2012_ungrouped": partial(AlexNet, of_2012=True),
    "vgg11": vgg((1, 1, 2, 2, 2)),
    "vgg13": vgg((2, 2, 2, 2, 2)),
    "vgg16": vgg((2, 2, 3, 3, 3)),
    "vgg19": vgg((2, 2, 4, 4, 4)),
    "vgg11_bn": vgg((1, 1, 2, 2, 2), batch_norm=True),
    "vgg13_bn": vgg((2, 2, 2, 2, 2), batch_norm=True),
    "vgg16_bn": vgg((2, 2, 3, 3, 3), batch_norm=True),
    "vgg19_bn": vgg((2, 2, 4, 4, 4), batch_norm=True),
    "googlenet": GoogLeNet,
    "googlenet_bn": partial(GoogLeNet, batch_norm=True, dropout=0.2),
    "inception_v2": InceptionV2,
    "inception_v3": InceptionV3,
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(_BOTTLENECK, blocks=(3, 4, 6, 3)),
    "resnet101": partial(_BOTTLENECK, blocks=(3, 4, 23, 3)),
    "resnet152": partial(_BOTTLENECK, blocks=(3, 8, 36, 3)),
    "preresnet50": partial(_BOTTLENECK, blocks=(3, 4, 6, 3), preactivation=True),
    "preresnet101": partial(_BOTTLENECK, blocks=(3, 4, 23, 3), preactivation=True),
    "preresnet152": partial(_BOTTLENECK, blocks=(3, 8, 36, 3), preactivation=True),
    "resnext50_32x4d": partial(_BOTTLENECK, blocks=(3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": partial(_BOTTLENECK, blocks=(3, 4, 23, 3), groups=32, group_width=8),
    "se_resnet50": partial(_BOTTLENECK, blocks=(3, 4, 6, 3), attention=True),
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v2": MobileNetV2,
}

MODELS = _SMALL | _LARGE
INPUT_SIZE = dict.fromkeys(_SMALL, 32) | dict.fromkeys(_LARGE, 224) | {"inception_v3": 299}

# What the loss of each auxiliary head weighs beside that of the logits: Szegedy et al. 2014 (arXiv:1409.4842), section
# 5, and torchvision's recipe for Inception-v3.
AUX_WEIGHT = {"googlenet": 0.3, "googlenet_bn": 0.3, "inception_v3": 0.4}


def head_of(params: Iterable[str]) -> str | None:
    """The name of the layer that gives the logits, among those of a model; None if that has no parameters.

    Args:
      params: the names of the layers, such as `variables["params"]`.
    """
    numbers = {name: int(name.rpartition(".")[2]) for name in params if name.startswith("classifier.")}
    if numbers:
        return max(numbers, key=lambda name: numbers[name])
    return next((name for name in ("fc", "classifier", "output") if name in params), None)
