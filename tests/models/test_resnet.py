"""ResNet: parameters, shortcuts, batch norm, and the ImageNet form written out in lax."""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.models.classification import MODELS
from dlfx.models.classification.resnet import ResNet
from dlfx.nn.conv_norm import conv_and_norm
from dlfx.nn.residual import ResidualBlock
from dlfx.types import UserError

NHWC = ("NHWC", "HWIO", "NHWC")
IMAGENET = {"resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032}
IMAGENET |= {"resnet101": 44_549_160, "resnet152": 60_192_808}
IMAGENET |= {"resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336, "se_resnet50": 28_088_024}
LAYERS = conv_and_norm(False, jnp.float32, jnp.float32, None)
CIFAR_FORM: Any = partial(ResNet, small=True, channels=16, shortcut="A")
CIFAR = {"resnet20": 269_722, "resnet32": 464_154, "resnet44": 658_586, "resnet56": 853_018, "resnet110": 1_727_962}


def abstract(module: Any, shape: tuple[int, ...]) -> Any:
    return jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def norm(x: Any, p: Any, s: Any) -> Any:
    """Batch norm with running statistics."""
    return (x - s["mean"]) / (s["var"] + 1e-5) ** 0.5 * p["scale"] + p["bias"]


def fill(module: Any, x: jax.Array) -> Any:
    """Variables without the cost of compiling `init`, and away from ones and zeros, which would hide mistakes."""
    rng = np.random.default_rng(0)

    def values(leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    return jax.tree.map(values, abstract(module, x.shape))


@pytest.mark.parametrize("name, expected", [*IMAGENET.items(), *CIFAR.items()])
def test_parameters_and_features(name: str, expected: int) -> None:
    small = name in CIFAR
    module = MODELS[name](num_classes=10 if small else 1000)
    side = 32 if small else 64
    (logits, features), variables = jax.eval_shape(
        partial(module.init_with_output, train=False), jax.random.key(0), jnp.zeros((2, side, side, 3))
    )
    assert size(variables["params"]) == expected
    assert logits.shape == (2, 10 if small else 1000)
    wide = 1 if name in ("resnet18", "resnet34") or small else 4
    stages = (
        [(32, 16), (16, 32), (8, 64)]
        if small
        else [(s, c * wide) for s, c in zip((16, 8, 4, 2), (64, 128, 256, 512), strict=True)]
    )
    assert {key: value.shape[1:] for key, value in features.items()} == {
        "stem": (32, 32, 16 if small else 64),
        **{f"stage{i + 1}": (side, side, channels) for i, (side, channels) in enumerate(stages)},
        "pooled": (stages[-1][1],),
    }
    convolutions = [path for path, leaf in jax.tree.leaves_with_path(variables["params"]) if leaf.ndim == 4]
    weighted = [path for path in convolutions if not {"downsample.0", "se"} & {key.key for key in path}]
    assert len(weighted) + 1 == int(re.findall(r"\d+", name)[0])


def test_shortcut_counts() -> None:
    def projection(inputs: int, outputs: int) -> int:
        return inputs * outputs + 2 * outputs  # 1x1, no bias, and the scale and bias of its batch norm

    def make(shortcut: str) -> int:
        return size(abstract(MODELS["resnet20"](shortcut=shortcut), (1, 8, 8, 3))["params"])

    changing = projection(16, 32) + projection(32, 64)
    keeping = 3 * projection(16, 16) + 2 * projection(32, 32) + 2 * projection(64, 64)
    assert make("A") == make("none") == CIFAR["resnet20"]
    assert make("B") == CIFAR["resnet20"] + changing
    assert make("C") == CIFAR["resnet20"] + changing + keeping
    with pytest.raises(UserError, match="unknown shortcut 'D' .*A, B, C, none"):
        make("D")


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("shortcut", ["A", "B", "C", "none"])
@pytest.mark.parametrize("strides", [1, 2])
def test_what_a_block_passes_by_its_branch(bottleneck: bool, shortcut: str, strides: int) -> None:
    """With a branch of zero, a block is the ReLU of its shortcut."""
    width, channels = (2, 8) if bottleneck else (4, 4)
    channels_out = 4 * width if bottleneck else width
    if strides == 2:
        channels = channels_out // 2
    block: Any = ResidualBlock(channels_out, *LAYERS, strides, width if bottleneck else None, shortcut)
    x = draw(2, 6, 6, channels)
    variables = fill(block, x)
    params, stats = variables["params"], variables["batch_stats"]
    last = "bn3" if bottleneck else "bn2"
    params[last] = {"scale": 0 * params[last]["scale"], "bias": 0 * params[last]["bias"]}
    y = jax.jit(block.apply)(variables, x)
    if shortcut == "C" or (shortcut == "B" and strides == 2):
        assert set(params["downsample.0"]) == {"kernel"}  # W x, without a bias; batch norm adds that
        kernel = params["downsample.0"]["kernel"]
        assert kernel.shape == (1, 1, channels, channels_out)
        expected = norm(x[:, ::strides, ::strides] @ kernel[0, 0], params["downsample.1"], stats["downsample.1"])
    elif shortcut == "none":  # all that a block of a plain network lacks
        expected = np.zeros(y.shape)
    else:
        assert "downsample.0" not in params
        new = channels_out - channels
        expected = np.pad(x[:, ::strides, ::strides], ((0, 0), (0, 0), (0, 0), (0, new)))
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_shortcuts_span_blocks_inside_one_network() -> None:
    """Nothing joins a shallow network to a deep one: with zero branches the stem itself reaches the last stage."""
    module, x = CIFAR_FORM(blocks=(2, 1, 1)), draw(1, 8, 8, 3)
    variables = fill(module, x)
    for name, layer in variables["params"].items():
        if name.startswith("layer"):
            layer["bn2"] = {"scale": 0 * layer["bn2"]["scale"], "bias": 0 * layer["bn2"]["bias"]}
    features = jax.tree.map(np.asarray, jax.jit(module.apply)(variables, x)[1])
    np.testing.assert_array_equal(features["stage1"], features["stem"])
    np.testing.assert_array_equal(features["stage3"][..., :16], features["stem"][:, ::4, ::4])
    assert not features["stage3"][..., 16:].any()
    np.testing.assert_allclose(features["pooled"], features["stage3"].mean((1, 2)), rtol=1e-6)


def test_the_3x3_convolution_of_a_bottleneck_carries_the_stride() -> None:
    block = ResidualBlock(16, *LAYERS, strides=2, squeezed=4)
    run = partial(block.init_with_output, capture_intermediates=True, mutable=True)
    _, variables = jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, 8, 8, 6)))
    found = {
        name: value["__call__"][0].shape[1]
        for name, value in variables["intermediates"].items()
        if name.startswith(("conv", "downsample.0"))
    }
    assert found == {"conv1": 8, "conv2": 4, "conv3": 4, "downsample.0": 4}


def test_the_imagenet_form_written_out() -> None:
    module, x = ResNet((1, 2), bottleneck=True, num_classes=5), draw(2, 17, 16, 3)
    variables = fill(module, x)
    p, s = variables["params"], variables["batch_stats"]

    def conv(x: Any, kernel: Any, stride: int = 1) -> jax.Array:
        pad = kernel.shape[0] // 2
        return lax.conv_general_dilated(x, kernel, (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=NHWC)

    @jax.jit
    def written_out(x: jax.Array) -> Any:
        x = jax.nn.relu(norm(conv(x, p["conv1"]["kernel"], 2), p["bn1"], s["bn1"]))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
        for name, stride in (("layer1.0", 1), ("layer2.0", 2), ("layer2.1", 1)):
            pb, sb, y = p[name], s[name], x
            for i in (1, 2, 3):
                y = conv(y, pb[f"conv{i}"]["kernel"], stride if i == 2 else 1)
                y = norm(y, pb[f"bn{i}"], sb[f"bn{i}"])
                y = jax.nn.relu(y) if i < 3 else y
            if name != "layer2.1":
                x = conv(x, pb["downsample.0"]["kernel"], stride)
                x = norm(x, pb["downsample.1"], sb["downsample.1"])
            x = jax.nn.relu(x + y)
        return x.mean((1, 2)) @ p["fc"]["kernel"] + p["fc"]["bias"]

    logits, _ = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(logits, written_out(x), rtol=1e-4, atol=1e-4)


def test_batch_norm_in_training_and_in_evaluation() -> None:
    module, x = CIFAR_FORM(blocks=(1, 1)), 3 + 2 * draw(4, 8, 8, 3)
    variables = fill(module, x)
    train = jax.jit(partial(module.apply, train=True, mutable=["batch_stats"]))
    evaluate = jax.jit(partial(module.apply, train=False, mutable=["batch_stats"]))
    (logits, features), after = train(variables, x)
    (_, features_running), same = evaluate(variables, x)
    jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])
    kernel = variables["params"]["conv1"]["kernel"]
    stem = np.asarray(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC))
    mean, var = stem.mean((0, 1, 2)), stem.var((0, 1, 2))
    before, stats = variables["batch_stats"]["bn1"], after["batch_stats"]["bn1"]
    np.testing.assert_allclose(stats["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 * before["var"] + 0.1 * var, rtol=1e-3)
    by_batch, by_running = ({"mean": mean, "var": var}, before)
    for found, statistics in ((features, by_batch), (features_running, by_running)):
        expected = np.maximum(norm(stem, variables["params"]["bn1"], statistics), 0)
        np.testing.assert_allclose(found["stem"], expected, rtol=1e-3, atol=1e-3)

    # Halves of a batch that share statistics over an axis normalise as the whole.
    shared = CIFAR_FORM(blocks=(1, 1), axis_name="data")
    run = jax.vmap(lambda x: shared.apply(variables, x, train=True, mutable=["batch_stats"]), axis_name="data")
    (halves, _), after_halves = jax.jit(run)(x.reshape(2, 2, 8, 8, 3))
    np.testing.assert_allclose(halves.reshape(4, 10), logits, rtol=1e-3, atol=1e-4)
    close = partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    jax.tree.map(lambda a, b: close(a[0], b), after_halves["batch_stats"], after["batch_stats"])
