"""Image classifiers.

Every model is made by `MODELS[name](num_classes=10, dtype=jnp.float32, param_dtype=jnp.float32, axis_name=None)` and
called by `module.apply(variables, images, train=bool, mutable=["batch_stats"])`: images `[B, H, W, C]` to (logits
`[B, num_classes]`, features by name). Features are there for whoever looks; under jit those that nobody uses cost
nothing, as XLA removes dead code.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn

from dlfx.models.classification.inception_v3 import InceptionV3
from dlfx.models.classification.lenet import LeNet5, LeNet5Of1998
from dlfx.models.classification.resnet import ResNet

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5_1998": LeNet5Of1998,
    "inception_v3": InceptionV3,
    "resnet18": partial(ResNet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, blocks=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=True),
    "resnet101": partial(ResNet, blocks=(3, 4, 23, 3), bottleneck=True),
    "resnet152": partial(ResNet, blocks=(3, 8, 36, 3), bottleneck=True),
    "resnet20": partial(ResNet, blocks=(3, 3, 3), small=True),
    "resnet32": partial(ResNet, blocks=(5, 5, 5), small=True),
    "resnet44": partial(ResNet, blocks=(7, 7, 7), small=True),
    "resnet56": partial(ResNet, blocks=(9, 9, 9), small=True),
    "resnet110": partial(ResNet, blocks=(18, 18, 18), small=True),
}
