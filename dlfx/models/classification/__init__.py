"""Image classifiers.

Every model is made by `MODELS[name](num_classes=10, dtype=jnp.float32, param_dtype=jnp.float32, axis_name=None)` and
called by `module.apply(variables, images, train=bool, mutable=["batch_stats"])`: images `[B, H, W, C]` to (logits
`[B, num_classes]`, features by name). `width=` is a factor on all channels, `dropout=` and `aux_heads=` are there where
the paper has them. Features, from the first to the last, are there for whoever looks, and for other networks to stand
on; under jit those that nobody uses cost nothing, as XLA removes dead code.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn

from dlfx.models.classification.inception_v3 import InceptionV3
from dlfx.models.classification.lenet import LeNet5, LeNet5Of1998
from dlfx.models.classification.resnet import ResNet

_CIFAR = partial(ResNet, small=True, channels=16, shortcut="A")
_BOTTLENECK = partial(ResNet, bottleneck=True)

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5_1998": LeNet5Of1998,
    "inception_v3": InceptionV3,
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(_BOTTLENECK, blocks=(3, 4, 6, 3)),
    "resnet101": partial(_BOTTLENECK, blocks=(3, 4, 23, 3)),
    "resnet152": partial(_BOTTLENECK, blocks=(3, 8, 36, 3)),
    "resnet18_cifar": partial(ResNet, blocks=(2, 2, 2, 2), small=True),
    "resnet20": partial(_CIFAR, blocks=(3, 3, 3)),
    "resnet32": partial(_CIFAR, blocks=(5, 5, 5)),
    "resnet44": partial(_CIFAR, blocks=(7, 7, 7)),
    "resnet56": partial(_CIFAR, blocks=(9, 9, 9)),
    "resnet110": partial(_CIFAR, blocks=(18, 18, 18)),
    "plain20": partial(_CIFAR, blocks=(3, 3, 3), shortcut="none"),
    "plain56": partial(_CIFAR, blocks=(9, 9, 9), shortcut="none"),
    "preresnet20": partial(_CIFAR, blocks=(3, 3, 3), preactivation=True),
    "preresnet32": partial(_CIFAR, blocks=(5, 5, 5), preactivation=True),
    "preresnet44": partial(_CIFAR, blocks=(7, 7, 7), preactivation=True),
    "preresnet56": partial(_CIFAR, blocks=(9, 9, 9), preactivation=True),
    "preresnet110": partial(_CIFAR, blocks=(18, 18, 18), preactivation=True),
    "preresnet50": partial(_BOTTLENECK, blocks=(3, 4, 6, 3), preactivation=True),
    "preresnet101": partial(_BOTTLENECK, blocks=(3, 4, 23, 3), preactivation=True),
    "preresnet152": partial(_BOTTLENECK, blocks=(3, 8, 36, 3), preactivation=True),
    "resnext50_32x4d": partial(_BOTTLENECK, blocks=(3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x8d": partial(_BOTTLENECK, blocks=(3, 4, 23, 3), groups=32, group_width=8),
    "se_resnet50": partial(_BOTTLENECK, blocks=(3, 4, 6, 3), attention=True),
}
