"""Checkpoints of all dialects read into our models, what is wrong with others, and what fine-tuning begins with."""

import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification import MODELS
from dlfx.types import UserError
from dlfx.weights.classifiers import begin_from, load_classifier
from dlfx.weights.files import save_safetensors
from dlfx.weights.torch_names import to_torch_names
from tests.compiling import quick


@functools.cache
def shapes(name: str, channels: int = 3, size: int = 32, **options: Any) -> Any:
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    return jax.eval_shape(MODELS[name](**options).init, jax.random.key(0), images)


def draw(shapes: Any) -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


def same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def resnet_of_transformers(name: str) -> str:
    kinds = {
        "conv": "convolution",
        "bn": "normalization",
        "downsample.0": "convolution",
        "downsample.1": "normalization",
    }
    if match := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return f"resnet.embedder.embedder.{kinds[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(\w+)", name):
        stage, block, kind, layer, leaf = match.groups()
        return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.layer.{int(layer) - 1}.{kinds[kind]}.{leaf}"
    if match := re.fullmatch(r"layer(\d)\.(\d+)\.(downsample\.\d)\.(\w+)", name):
        stage, block, kind, leaf = match.groups()
        return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.shortcut.{kinds[kind]}.{leaf}"
    return name.replace("fc.", "classifier.1.")


def mobilenet_v2_of_timm(name: str) -> str:
    layer, _, leaf = name.rpartition(".")
    ends = {"features.0.0": "conv_stem", "features.0.1": "bn1", "features.18.0": "conv_head", "features.18.1": "bn2"}
    if layer in (ends | {"classifier.1": "classifier"}):
        return f"{(ends | {'classifier.1': 'classifier'})[layer]}.{leaf}"
    _, number, _, *part = layer.split(".")
    stage = next(i for i, first in enumerate((1, 2, 4, 7, 11, 14, 17, 18)) if int(number) < first) - 1
    block = int(number) - (1, 2, 4, 7, 11, 14, 17)[stage]
    parts = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"] if stage else ["conv_dw", "bn1", "conv_pw", "bn2"]
    order = ["0.0", "0.1", "1.0", "1.1", "2", "3"] if stage else ["0.0", "0.1", "1", "2"]
    return f"blocks.{stage}.{block}.{parts[order.index('.'.join(part))]}.{leaf}"


@pytest.mark.parametrize(
    "model, rename, options",
    [
        ("resnet18", resnet_of_transformers, {"width": 0.1}),
        ("resnet50", resnet_of_transformers, {"width": 0.1}),
        ("mobilenet_v2", mobilenet_v2_of_timm, {"width": 0.1}),
        ("googlenet_bn", lambda name: f"module.{name}", {"width": 0.1}),
        ("vgg11", lambda name: f"model.module.{name}", {"width": 0.1}),
    ],
)
def test_dialects(tmp_path: Path, model: str, rename: Any, options: Any) -> None:
    variables = draw(shapes(model, num_classes=4, **options))
    tensors = {rename(name): value for name, value in to_torch_names(variables).items()}
    counts = {name.replace("running_mean", "num_batches_tracked"): np.array(3) for name in tensors}
    save_safetensors(tmp_path / "x.safetensors", counts | tensors)
    module, found = load_classifier(tmp_path / "x.safetensors", model, **options)
    assert module.num_classes == 4
    same(found, variables)


def test_names_that_transformers_and_timm_use() -> None:
    """As their documentation and checkpoints have them: the renaming above is ours."""
    assert resnet_of_transformers("conv1.weight") == "resnet.embedder.embedder.convolution.weight"
    assert (
        resnet_of_transformers("layer2.0.downsample.1.bias")
        == "resnet.encoder.stages.1.layers.0.shortcut.normalization.bias"
    )
    assert mobilenet_v2_of_timm("features.2.conv.2.weight") == "blocks.1.0.conv_pwl.weight"
    assert mobilenet_v2_of_timm("features.17.conv.0.1.bias") == "blocks.6.0.bn1.bias"


def test_vgg_of_timm_has_convolutions_for_dense_layers(tmp_path: Path) -> None:
    variables = draw(shapes("vgg11", num_classes=4, width=0.1))
    theirs = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    tensors = {}
    for name, value in to_torch_names(variables).items():
        layer, _, leaf = name.rpartition(".")
        if (layer, leaf) == ("classifier.0", "weight"):
            value = value.reshape(len(value), -1, 7, 7)
        if (layer, leaf) == ("classifier.3", "weight"):
            value = value[:, :, None, None]
        tensors[f"{theirs.get(layer, layer)}.{leaf}"] = value
    save_safetensors(tmp_path / "x.safetensors", tensors)
    same(load_classifier(tmp_path / "x.safetensors", "vgg11", width=0.1)[1], variables)


@pytest.mark.parametrize("model", ["googlenet_bn", "inception_v3"])
def test_auxiliary_heads_are_left_out_and_never_made_up(tmp_path: Path, model: str) -> None:
    options = {"width": 0.1}
    path = tmp_path / "x.safetensors"
    save_safetensors(path, to_torch_names(draw(shapes(model, size=299, num_classes=4, aux_heads=True, **options))))
    _, without = load_classifier(path, model, **options)
    assert not {name for name in without["params"] if name.lower().startswith("aux")}
    save_safetensors(path, to_torch_names(without))
    with pytest.raises(UserError, match=r"\d+ missing \([Aa]ux\w+\."):
        load_classifier(path, model, aux_heads=True, **options)


def test_a_file_of_another_model(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(path, to_torch_names(draw(shapes("resnet18", num_classes=4, width=0.1))))
    with pytest.raises(UserError) as error:
        load_classifier(path, "resnet50", width=0.1)
    told = str(error.value)
    assert told.startswith(f"{path} does not hold the weights of resnet50: of 267 tensors, ")
    counts = re.findall(r"(\d+) (missing|unexpected|of another shape or type) \(", told)
    assert [kind for _, kind in counts] == ["missing", "of another shape or type"] and len(told) - len(str(path)) < 600
    with pytest.raises(UserError, match="did you mean resnet18"):
        load_classifier(path, "resnet81")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="is no whole safetensors file"):
        load_classifier(path, "resnet18", width=0.1)


@pytest.mark.parametrize(
    "model", ["lenet5_1998", "conv_blocks", "alexnet_2012", "googlenet", "inception_v2", "preresnet20"]
)
def test_models_that_pytorch_does_not_have_come_back_too(tmp_path: Path, model: str) -> None:
    options, size = ({}, 32) if model in ("lenet5_1998", "conv_blocks") else ({"width": 0.1}, 96)
    variables = draw(shapes(model, 1, size, num_classes=10, **options))
    save_safetensors(tmp_path / "x.safetensors", to_torch_names(variables))
    same(load_classifier(tmp_path / "x.safetensors", model, (size, size, 1), **options)[1], variables)


def test_fine_tuning_begins_with_all_but_the_head(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    theirs = draw(shapes("resnet18", num_classes=9, width=0.1))
    save_safetensors(path, to_torch_names(theirs))
    like = shapes("resnet18", num_classes=4, width=0.1)
    found = begin_from(path, like, 4)
    assert found.told == f"100 of 102 tensors are taken from {path}; fc, of 9 classes there, is new"
    assert found.variables["params"]["fc"] == {"kernel": None, "bias": None}
    same(found.variables["params"]["layer1.0"], theirs["params"]["layer1.0"])
    same(found.variables["batch_stats"], theirs["batch_stats"])
    assert "fc" not in begin_from(path, shapes("resnet18", num_classes=9, width=0.1), 9).told

    with pytest.raises(UserError, match="does not hold the weights of this model: of 102 tensors, .*of another shape"):
        begin_from(path, shapes("resnet18", num_classes=4, width=0.2), 4)


def test_fine_tuning_on_grey_images(tmp_path: Path) -> None:
    """The summed stem gives what the whole one gives for the image three times."""
    path = tmp_path / "x.safetensors"
    theirs = draw(shapes("lenet5", 3, 28))
    save_safetensors(path, to_torch_names(theirs))
    found = begin_from(path, shapes("lenet5", 1, 28), 10)
    assert found.told.endswith("; c1.weight is summed over its 3 channels")
    image = np.random.default_rng(1).normal(size=(2, 28, 28, 1)).astype(np.float32)
    apply = quick(MODELS["lenet5"]().apply)
    grey, whole = apply(found.variables, image)[0], apply(theirs, image.repeat(3, -1))[0]
    np.testing.assert_allclose(grey, whole, rtol=1e-4, atol=1e-3 * np.abs(whole).max())
    with pytest.raises(UserError, match=r"c1.weight \[6, 3, 5, 5\] for \[6, 2, 5, 5\]"):
        begin_from(path, shapes("lenet5", 2, 28), 10)


def test_fine_tuning_refuses_what_pads_otherwise(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "x.safetensors", {"mobilenet_v1.conv_stem.convolution.weight": np.ones((8, 3, 3, 3))})
    with pytest.raises(UserError, match="pads as TensorFlow does; take weights of timm or torchvision"):
        begin_from(tmp_path / "x.safetensors", shapes("mobilenet_v1"), 1000)
