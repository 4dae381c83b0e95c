"""Parameters of all classifiers, exactly, and where the notes are wrong about them."""

import math
import re
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dlfx.models.classification import INPUT_SIZE, MODELS

# Of three channels and 1000 classes; as published, or of torchvision and timm.
COUNTS = {
    "alexnet": 61_100_840, "alexnet_2012": 60_965_224, "alexnet_2012_ungrouped": 62_378_344,
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248,
    "googlenet": 6_998_552, "googlenet_bn": 6_624_904, "inception_v2": 11_188_288,
    "mobilenet_v1": 4_231_976, "mobilenet_v2": 3_504_872,
}  # fmt: skip
AUX_COUNTS = {"googlenet": 13_378_280, "googlenet_bn": 13_004_888}
# Of each stage at 224x224.
STAGES = {
    "alexnet": [(55, 64), (27, 192), (13, 256)],
    "alexnet_2012": [(55, 96), (27, 256), (13, 256)],
    "vgg16": [(224, 64), (112, 128), (56, 256), (28, 512), (14, 512)],
    "googlenet": [(28, 480), (14, 832), (7, 1024)],
    "googlenet_bn": [(28, 480), (14, 832), (7, 1024)],
    "inception_v2": [(28, 320), (14, 576), (7, 1024)],
    "mobilenet_v1": [(112, 64), (56, 128), (28, 256), (14, 512), (7, 1024)],
    "mobilenet_v2": [(112, 16), (56, 24), (28, 32), (14, 96), (7, 320)],
}


@cache
def made(name: str, **options: Any) -> Any:
    """((logits, features), variables) by their shapes, at the size that the model was made for."""
    images = jax.ShapeDtypeStruct((1, *2 * (INPUT_SIZE[name],), 3), jnp.float32)
    return jax.eval_shape(MODELS[name](num_classes=1000, **options).init_with_output, jax.random.key(0), images)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def kernels(name: str) -> list[tuple[str, tuple[int, ...]]]:
    leaves = jax.tree.leaves_with_path(made(name)[1]["params"])
    return [(".".join(key.key for key in path[:-1]), leaf.shape) for path, leaf in leaves if leaf.ndim > 1]


def norms(name: str) -> int:
    """Channels that are normalised."""
    return sum(
        leaf.size for path, leaf in jax.tree.leaves_with_path(made(name)[1]["params"]) if path[-1].key == "scale"
    )


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_and_stages(name: str) -> None:
    (logits, features), variables = made(name)
    assert size(variables["params"]) == COUNTS[name] and logits.shape == (1, 1000)
    if name in AUX_COUNTS:
        assert size(made(name, aux_heads=True)[1]["params"]) == AUX_COUNTS[name]
    stages = [value.shape[1:] for key, value in features.items() if key.startswith("stage")]
    if name in STAGES:
        assert stages == [(side, side, channels) for side, channels in STAGES[name]]
    assert features["pooled"].ndim == 2 and not any(key.startswith("aux") for key in features)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_s_version_2_in_closed_form(depth: int) -> None:
    n = (depth - 2) // 6
    convolutions = 9 * (3 * 16 + 2 * n * (16**2 + 32**2 + 64**2) - 16 * 32 - 32 * 64)
    inputs = 16 * (n + 1) + 32 * n + 64 * (n - 1)  # normalised at the beginning of blocks
    hidden = n * (16 + 32 + 64)  # and before their second convolutions
    expected = convolutions + 2 * (inputs + hidden + 64) + 64 * 1000 + 1000
    assert size(made(f"preresnet{depth}")[1]["params"]) == expected


@pytest.mark.parametrize("depth, blocks", [(50, (3, 4, 6, 3)), (101, (3, 4, 23, 3)), (152, (3, 8, 36, 3))])
def test_imagenet_s_version_2_in_closed_form(depth: int, blocks: tuple[int, ...]) -> None:
    """Of 50 layers 25,549,352, as timm's `resnetv2_50`; projections have no batch norm."""
    total, channels = 49 * 3 * 64, 64
    for stage, count in enumerate(blocks):
        squeezed = 64 * 2**stage
        out = 4 * squeezed
        total += channels * out
        for _ in range(count):
            total += channels * squeezed + 9 * squeezed**2 + squeezed * out
            total += 2 * (channels + 2 * squeezed)
            channels = out
    total += 2 * channels + channels * 1000 + 1000
    assert size(made(f"preresnet{depth}")[1]["params"]) == total
    assert total == {50: 25_549_352, 101: 44_541_480, 152: 60_185_128}[depth]


@pytest.mark.parametrize("depth", [20, 56])
def test_the_degraded_pair_differs_from_residual_networks_in_shortcuts_alone(depth: int) -> None:
    """20 and 56 are two plain networks, not the two ends of a shortcut; with one of kind A all parameters are there."""
    plain, residual = made(f"plain{depth}")[1], made(f"resnet{depth}")[1]
    assert plain == residual
    weighted = [shape for _, shape in kernels(f"plain{depth}")]
    assert len(weighted) == depth
    per_stage = (depth - 2) // 3
    convolutions = 9 * (3 * 16 + (16**2 + 32**2 + 64**2) * per_stage - 16 * 32 - 32 * 64)
    assert size(plain["params"]) == convolutions + 2 * (16 + per_stage * (16 + 32 + 64)) + 65 * 1000


def test_inception_v2_has_the_parameters_of_tf_slim() -> None:
    """Slim's test counts 10,173,112 up to the last block: kernels, shifts, moments, and one bias without a norm."""
    convolutions = sum(math.prod(shape) for _, shape in kernels("inception_v2") if len(shape) == 4)
    assert convolutions + 3 * (norms("inception_v2") - 64) + 64 == 10_173_112


def test_vgg_of_2014_has_no_batch_norm() -> None:
    """The notes list it among VGG's traits; it came in 2015, and costs 8,448 parameters in 16 layers."""
    variables = made("vgg16")[1]
    assert set(variables) == {"params"} and norms("vgg16") == 0
    assert 2 * norms("vgg16_bn") == COUNTS["vgg16_bn"] - COUNTS["vgg16"] == 8_448
    dense = [shape for _, shape in kernels("vgg16") if len(shape) == 2]
    assert sum((inputs + 1) * outputs for inputs, outputs in dense) == 123_642_856  # of the three dense layers


def test_googlenet_squeezes_and_does_not_restore() -> None:
    """The notes call its 1x1 a bottleneck. None follows 3x3 and 5x5 as in ResNet's: the branches are joined."""
    found = dict(kernels("googlenet"))
    assert found["inception3a.branch2.0.conv"] == (1, 1, 192, 96) and found["inception3a.branch2.1.conv"][3] == 128
    assert found["inception3a.branch3.0.conv"] == (1, 1, 192, 16)
    assert found["inception3a.branch3.1.conv"] == (5, 5, 16, 32)
    assert dict(kernels("googlenet_bn"))["inception3a.branch3.1.conv"] == (3, 3, 16, 32)  # torchvision's
    branches = [shape for name, shape in found.items() if re.match(r"inception3a\.branch[1-4]\.?1?\.conv", name)]
    assert found["inception3b.branch1.conv"][2] == sum(shape[3] for shape in branches) == 64 + 128 + 32 + 32
    last = {name.rpartition(".")[0]: shape for name, shape in found.items() if re.search(r"branch[23]\.1", name)}
    assert len(last) == 2 * 9 and all(shape[0] > 1 for shape in last.values())
    bottleneck = dict(kernels("resnet50"))
    assert [bottleneck[f"layer1.1.conv{i}"] for i in (1, 2, 3)] == [(1, 1, 256, 64), (3, 3, 64, 64), (1, 1, 64, 256)]


def test_layers_are_those_of_public_checkpoints() -> None:
    names = {name: {layer for layer, _ in kernels(name)} for name in ("vgg16", "vgg16_bn", "alexnet")}
    convolutions = {"vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), "alexnet": (0, 3, 6, 8, 10)}
    convolutions["vgg16_bn"] = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    dense = {"vgg16": (0, 3, 6), "vgg16_bn": (0, 3, 6), "alexnet": (1, 4, 6)}
    for name, found in names.items():
        assert found == {f"features.{i}" for i in convolutions[name]} | {f"classifier.{i}" for i in dense[name]}
    some = {
        "googlenet_bn": {"conv1.conv", "conv3.conv", "inception4e.branch1.conv", "inception5b.branch4.1.conv", "fc"},
        "resnet50": {"conv1", "layer1.0.downsample.0", "layer3.5.conv3", "fc"},
        "resnet18": {"layer4.1.conv2", "layer2.0.downsample.0"},
        "se_resnet50": {"layer1.0.se.fc1", "layer4.2.se.fc2"},
        "mobilenet_v1": {"conv_stem", "blocks.0.0.conv_dw", "blocks.3.5.conv_pw", "classifier"},
        "mobilenet_v2": {"features.0.0", "features.1.conv.0.0", "features.1.conv.1", "features.2.conv.0.0"}
        | {"features.17.conv.1.0", "features.17.conv.2", "features.18.0", "classifier.1"},
    }
    for name, layers in some.items():
        assert layers <= {layer for layer, _ in kernels(name)}, name
    scales = {
        ".".join(key.key for key in path[:-1])
        for path, _ in jax.tree.leaves_with_path(made("mobilenet_v2")[1]["batch_stats"])
    }
    assert {"features.0.1", "features.1.conv.0.1", "features.1.conv.2", "features.17.conv.3"} <= scales


def test_groups() -> None:
    assert dict(kernels("resnext50_32x4d"))["layer1.0.conv2"] == (3, 3, 4, 128)  # 32 groups of 4
    assert dict(kernels("alexnet_2012"))["features.3"] == (5, 5, 48, 256)  # two GPUs
    assert dict(kernels("alexnet_2012"))["features.6"] == (3, 3, 256, 384)  # which here see each other
    depthwise = [shape for name, shape in kernels("mobilenet_v1") if name.endswith("conv_dw")]
    assert len(depthwise) == 13 and all(shape[2] == 1 for shape in depthwise)


def test_auxiliary_heads_speak_in_training_alone() -> None:
    for name, side in (("googlenet", 79), ("googlenet_bn", 32)):
        module: Any = MODELS[name](num_classes=7, aux_heads=True, width=0.125)
        images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), images)
        train = partial(module.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})
        (_, features), _ = jax.eval_shape(train, variables, images)
        assert features["aux1"].shape == features["aux2"].shape == (2, 7) and features["aux1"].dtype == jnp.float32
        assert not {"aux1", "aux2"} & set(jax.eval_shape(module.apply, variables, images)[1])
        small = jax.ShapeDtypeStruct((2, side - 1, side, 3), jnp.float32)
        if name == "googlenet":
            with pytest.raises(ValueError, match="at least 79, for its auxiliary heads, usually 224; got"):
                jax.eval_shape(train, variables, small)
            jax.eval_shape(module.apply, variables, small)
