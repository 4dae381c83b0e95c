"""How the libraries name the same tensors: Hugging Face's transformers, and timm where it differs from torchvision."""

import itertools
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

WRAPPERS = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning

CONV_AND_NORM = {"convolution": 0, "normalization": 1}
# The blocks of MobileNet-v1 and v2 by stage, as timm counts them: block 3 of v1, say, is block 0 of stage 2.
STAGES_V1 = [(stage, block) for stage, count in enumerate((1, 2, 2, 6, 2)) for block in range(count)]
STAGES_V2 = [(stage, block) for stage, count in enumerate((1, 2, 3, 4, 3, 3, 1)) for block in range(count)]
POINTWISE = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}  # the first block of v2 has no expansion
EXPANSION = {
    **{f"expand_1x1.{kind}": f"0.{i}" for kind, i in CONV_AND_NORM.items()},
    **{f"conv_3x3.{kind}": f"1.{i}" for kind, i in CONV_AND_NORM.items()},
    **{f"reduce_1x1.{kind}": f"{2 + i}" for kind, i in CONV_AND_NORM.items()},
}


def _resnet_of_transformers() -> dict[str, str]:
    table = {"resnet.embedder.embedder.convolution": "conv1", "resnet.embedder.embedder.normalization": "bn1"}
    for stage, block in itertools.product(range(4), range(36)):  # ResNet-152 has 36 blocks in a stage
        theirs, ours = f"resnet.encoder.stages.{stage}.layers.{block}", f"layer{stage + 1}.{block}"
        for i in range(3):
            table[f"{theirs}.layer.{i}.convolution"] = f"{ours}.conv{i + 1}"
            table[f"{theirs}.layer.{i}.normalization"] = f"{ours}.bn{i + 1}"
        table[f"{theirs}.shortcut.convolution"] = f"{ours}.downsample.0"
        table[f"{theirs}.shortcut.normalization"] = f"{ours}.downsample.1"
    return table | {"classifier.1": "fc"}


def _mobilenet_v1_of_transformers() -> dict[str, str]:
    table = {"mobilenet_v1.conv_stem.convolution": "conv_stem", "mobilenet_v1.conv_stem.normalization": "bn1"}
    for i, (stage, block) in enumerate(STAGES_V1):
        for layer, conv, norm in ((2 * i, "conv_dw", "bn1"), (2 * i + 1, "conv_pw", "bn2")):
            table[f"mobilenet_v1.layer.{layer}.convolution"] = f"blocks.{stage}.{block}.{conv}"
            table[f"mobilenet_v1.layer.{layer}.normalization"] = f"blocks.{stage}.{block}.{norm}"
    return table


def _mobilenet_v2_of_transformers() -> dict[str, str]:
    table = {}
    for kind, i in CONV_AND_NORM.items():
        table[f"mobilenet_v2.conv_stem.first_conv.{kind}"] = f"features.0.{i}"
        table[f"mobilenet_v2.conv_stem.conv_3x3.{kind}"] = f"features.1.conv.0.{i}"
        table[f"mobilenet_v2.conv_stem.reduce_1x1.{kind}"] = f"features.1.conv.{1 + i}"
        table[f"mobilenet_v2.conv_1x1.{kind}"] = f"features.18.{i}"
    for i in range(16):
        table |= {f"mobilenet_v2.layer.{i}.{kind}": f"features.{i + 2}.conv.{at}" for kind, at in EXPANSION.items()}
    return table | {"classifier": "classifier.1"}


def _mobilenet_v2_of_timm() -> dict[str, str]:
    table = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1"}
    for i, (stage, block) in enumerate(STAGES_V2):
        names = POINTWISE if i else FIRST
        table |= {f"blocks.{stage}.{block}.{name}": f"features.{i + 1}.conv.{at}" for name, at in names.items()}
    return table | {"classifier": "classifier.1"}


class Dialect(NamedTuple):
    """One way of naming the layers of one family.

    Attributes:
      name: whose, and of which network.
      sign: a pattern that the name of a tensor matches only there.
      layers: the names there of all layers, to those in our models.
      tensorflow: whether the network is TensorFlow's, with its padding and epsilon.
    """

    name: str
    sign: str
    layers: dict[str, str]
    tensorflow: bool = False


VGG_OF_TIMM = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3", "head.fc": "classifier.6"}
DIALECTS = (
    Dialect("transformers' ResNet", r"resnet\.embedder\.", _resnet_of_transformers()),
    Dialect("transformers' MobileNet-v1", r"mobilenet_v1\.", _mobilenet_v1_of_transformers(), tensorflow=True),
    Dialect("transformers' MobileNet-v2", r"mobilenet_v2\.", _mobilenet_v2_of_transformers(), tensorflow=True),
    Dialect("timm's MobileNet-v2", r"blocks\..*\.conv_pwl\.", _mobilenet_v2_of_timm()),
    Dialect("timm's VGG", r"pre_logits\.fc1\.", VGG_OF_TIMM),
)


def public_names(tensors: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], Dialect | None]:
    """The tensors by the names of torchvision and timm that our layers bear, and what they were called in.

    Prefixes of wrappers, such as the `module.` of DataParallel, are taken off where all names have them.

    Returns:
      The tensors, and their dialect; None where names are our own. A name that the dialect does not have is kept.
    """
    found = dict(tensors)
    while found and (prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in found)), "")):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    for dialect in DIALECTS:
        if any(re.match(dialect.sign, name) for name in found):
            split = {name: name.rpartition(".") for name in found}
            ours = {name: f"{dialect.layers.get(layer, layer)}.{leaf}" for name, (layer, _, leaf) in split.items()}
            return {ours[name]: tensor for name, tensor in found.items()}, dialect
    return found, None
