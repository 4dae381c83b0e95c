"""Every family of classifiers against PyTorch: weights drawn at random give the same logits, and come back."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification import MODELS
from dlfx.nn.normalization import BatchNorm
from dlfx.weights.classifiers import load_classifier
from dlfx.weights.files import load_tensors, save_safetensors
from dlfx.weights.torch_names import to_torch_names
from tests.compiling import quick

torch = pytest.importorskip("torch")
torch_models = pytest.importorskip("scripts.benchmarks.torch_models")

CLASSES = 7


def peer(name: str, channels: int, **options: Any) -> Any:
    """PyTorch's network, its weights and statistics drawn so that features keep their scale."""
    torch.manual_seed(0)
    module = torch_models.MODELS[name](num_classes=CLASSES, channels=channels, **options).eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                layer.bias.data.uniform_(-0.1, 0.1)
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.running_var.uniform_(0.5, 1.5)
            layer.bias.data.uniform_(-0.3, 0.3)
            layer.running_mean.uniform_(-0.3, 0.3)
    return module


def images_of(height: int, width: int, channels: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, height, width, channels)).astype(np.float32)


def as_torch(images: np.ndarray) -> Any:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def largest_difference(found: Any, expected: Any) -> float:
    expected = expected.detach().numpy()
    assert found.shape == expected.shape
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


CASES = {
    # model: height, width, channels, options; full-sized where there are none
    "lenet5": (28, 28, 1, {}),
    "alexnet": (67, 95, 3, {"width": 0.1}),
    "vgg11": (33, 47, 3, {"width": 0.1}),
    "vgg16_bn": (64, 40, 3, {"width": 0.1}),
    "googlenet_bn": (65, 50, 3, {"width": 0.2, "aux_heads": True}),
    "inception_v3": (79, 81, 3, {"width": 0.1, "aux_heads": True}),
    "resnet18": (33, 40, 3, {"width": 0.2}),
    "resnet34": (32, 32, 1, {"width": 0.1}),
    "resnet50": (65, 64, 3, {}),
    "resnet18_cifar": (15, 16, 3, {"width": 0.2}),
    "resnet20": (17, 16, 3, {}),
    "resnext50_32x4d": (33, 32, 3, {"width": 0.25}),
    "se_resnet50": (32, 32, 3, {"width": 0.25}),
    "mobilenet_v1": (65, 64, 3, {}),
    "mobilenet_v2": (65, 64, 3, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_the_way_back(tmp_path: Path, name: str) -> None:
    height, width, channels, options = CASES[name]
    theirs = peer(name, channels, **options)
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    shape = (299, 299, channels) if name == "inception_v3" else (height, width, channels)  # at which all layers exist
    model, variables = load_classifier(tmp_path / "x.pth", name, shape, **options)
    assert model.num_classes == CLASSES
    images = images_of(height, width, channels)
    with torch.inference_mode():
        expected = theirs(as_torch(images))
    logits, _ = quick(functools.partial(model.apply, train=False))(variables, images)
    assert largest_difference(logits, expected) < 1e-4

    save_safetensors(tmp_path / "x.safetensors", to_torch_names(variables))
    exported = load_tensors(tmp_path / "x.safetensors")
    state = {n: x.numpy() for n, x in theirs.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert exported.keys() == state.keys()
    for tensor, value in exported.items():
        assert value.tobytes() == state[tensor].tobytes() and value.shape == state[tensor].shape, tensor
    _, again = load_classifier(tmp_path / "x.safetensors", name, shape, **options)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize("name", ["googlenet_bn", "inception_v3"])
def test_auxiliary_heads_and_a_step_of_batch_norm(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training: logits of all heads, and running moments, whose variance PyTorch takes with n - 1."""
    monkeypatch.setattr("dlfx.models.classification.googlenet.AUX_DROPOUT", 0.0)
    side, count = (32, 8) if name == "googlenet_bn" else (299, 2)
    options = {"width": 0.1, "dropout": 0.0, "aux_heads": True}
    theirs = peer(name, 3, **options, **({"aux_dropout": 0.0} if name == "googlenet_bn" else {})).train()
    before = {n: x.numpy().copy() for n, x in theirs.state_dict().items()}
    torch.save(theirs.state_dict(), tmp_path / "x.pth")
    model, variables = load_classifier(tmp_path / "x.pth", name, (side, side, 3), **options)
    images = images_of(side, side, 3, count)

    expected = theirs(as_torch(images))
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    (logits, features), moved = quick(train)(variables, images)
    heads = ["aux1", "aux2"] if name == "googlenet_bn" else ["aux"]
    assert set(heads) < set(features)
    for found, wanted in zip([logits, *(features[head] for head in heads)], expected, strict=True):
        assert largest_difference(found, wanted) < 1e-3  # batch norm of few examples amplifies rounding

    found, wanted = to_torch_names(moved), {n: x.numpy() for n, x in theirs.state_dict().items()}
    first = "conv1.bn." if name == "googlenet_bn" else "Conv2d_1a_3x3.bn."
    rows = count * (16 if name == "googlenet_bn" else 149) ** 2
    np.testing.assert_allclose(found[first + "running_mean"], wanted[first + "running_mean"], rtol=1e-4, atol=1e-6)
    drawn, old = first + "running_var", 0.9 * before[first + "running_var"]
    np.testing.assert_allclose(found[drawn] - old, (wanted[drawn] - old) * (rows - 1) / rows, rtol=1e-3)
    assert all(np.abs(found[n] - before[n]).max() > 0 for n in found)


def test_running_variance_differs_from_pytorch_by_n_over_n_minus_one() -> None:
    """Ours moves by the variance that normalises, as Linen's and TensorFlow's do; PyTorch's by the unbiased one.

    The paper's own inference (algorithm 2, step 10) takes m / (m - 1) too. At 6 rows the two differ by a fifth.
    """
    x = images_of(1, 2, 5, count=3)
    theirs = torch.nn.BatchNorm2d(5, eps=1e-3, momentum=0.1).train()
    expected = theirs(as_torch(x))
    ours = BatchNorm(momentum=0.9, epsilon=1e-3)
    y, moved = ours.apply(ours.init(jax.random.key(0), x), x, mutable=["batch_stats"])
    assert largest_difference(jnp.moveaxis(y, -1, 1), expected) < 1e-5
    np.testing.assert_allclose(moved["batch_stats"]["mean"], theirs.running_mean, rtol=1e-5)
    variance = np.asarray(moved["batch_stats"]["var"])
    np.testing.assert_allclose((variance - 0.9) * 6 / 5 + 0.9, theirs.running_var, rtol=1e-5)
    assert np.abs(variance - theirs.running_var.numpy()).max() > 1e-3


def tensorflow_form(module: Any) -> Any:
    """The network with TensorFlow's padding, zeros rather below and right, and its epsilon."""

    def pad(layer: Any, inputs: tuple[Any]) -> Any:
        rest = []
        for size in reversed(inputs[0].shape[2:]):
            total = max(3 - (size % layer.stride[0] or layer.stride[0]), 0)
            rest += [total // 2, total - total // 2]
        return torch.nn.functional.pad(inputs[0], rest)

    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3):
            layer.padding = (0, 0)
            layer.register_forward_pre_hook(pad)
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.eps = 1e-3
    return module


def transformers_v1(name: str) -> str:
    """A name of MobileNet-v1 in timm, in transformers."""
    if name.startswith("classifier"):
        return name
    *layer, kind, leaf = name.split(".")
    kind_there = "convolution" if kind.startswith("conv") else "normalization"
    if not layer:
        return f"mobilenet_v1.conv_stem.{kind_there}.{leaf}"
    _, stage, block = layer
    number = {"0": 0, "1": 1, "2": 3, "3": 5, "4": 11}[stage] + int(block)
    return f"mobilenet_v1.layer.{2 * number + (kind in ('conv_pw', 'bn2'))}.{kind_there}.{leaf}"


def transformers_v2(name: str) -> str:
    """A name of MobileNet-v2 in torchvision, in transformers."""
    kinds = {"0": "convolution", "1": "normalization"}
    match name.split("."):
        case ["classifier", _, leaf]:
            return f"classifier.{leaf}"
        case ["features", "0", kind, leaf]:
            return f"mobilenet_v2.conv_stem.first_conv.{kinds[kind]}.{leaf}"
        case ["features", "18", kind, leaf]:
            return f"mobilenet_v2.conv_1x1.{kinds[kind]}.{leaf}"
        case ["features", "1", "conv", "0", kind, leaf]:
            return f"mobilenet_v2.conv_stem.conv_3x3.{kinds[kind]}.{leaf}"
        case ["features", "1", "conv", last, leaf]:
            return f"mobilenet_v2.conv_stem.reduce_1x1.{kinds[str(int(last) - 1)]}.{leaf}"
        case ["features", block, "conv", layer, kind, leaf]:
            part = "expand_1x1" if layer == "0" else "conv_3x3"
            return f"mobilenet_v2.layer.{int(block) - 2}.{part}.{kinds[kind]}.{leaf}"
        case ["features", block, "conv", last, leaf]:
            return f"mobilenet_v2.layer.{int(block) - 2}.reduce_1x1.{kinds[str(int(last) - 2)]}.{leaf}"
    raise AssertionError(name)


@pytest.mark.parametrize("name, rename", [("mobilenet_v1", transformers_v1), ("mobilenet_v2", transformers_v2)])
def test_mobilenets_of_transformers(tmp_path: Path, name: str, rename: Any) -> None:
    theirs = tensorflow_form(peer(name, 3, width=0.25))
    tensors = {rename(n): x.numpy() for n, x in theirs.state_dict().items()}
    save_safetensors(tmp_path / "x.safetensors", tensors)
    model, variables = load_classifier(tmp_path / "x.safetensors", name, width=0.25)
    images = images_of(64, 33, 3)
    with torch.inference_mode():
        expected = theirs(as_torch(images))
    assert largest_difference(quick(model.apply)(variables, images)[0], expected) < 1e-4
    timm = MODELS[name](num_classes=CLASSES, width=0.25)
    assert largest_difference(quick(timm.apply)(variables, images)[0], expected) > 1e-2  # which padding it is matters
