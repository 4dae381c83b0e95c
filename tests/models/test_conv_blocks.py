"""Networks by a pattern: LeNet-5 and VGG as two of them, what patterns say, and what is none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.models.classification import MODELS
from dlfx.models.classification.conv_blocks import Block, ConvBlocks, parse, smallest_side
from dlfx.types import UserError
from tests.compiling import quick

LENET = "1x6k5vp,1x16k5vp;120,84"


def fill(module: Any, x: Any) -> Any:
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: np.float32(rng.normal(size=leaf.shape) / leaf.shape[0] ** 0.5), shapes)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_lenet_5_is_one() -> None:
    """With its weights the same logits; the first dense layer takes channels first, ours takes them last."""
    x = draw(2, 28, 28, 1)
    lenet, module = MODELS["lenet5"](), ConvBlocks(LENET, grid=None)
    weights = fill(lenet, x)["params"]
    names = {"c1": "features.0", "c3": "features.3", "c5": "classifier.0", "f6": "classifier.3"}
    params = {new: dict(weights[old]) for old, new in names.items()} | {"classifier.6": weights["output"]}
    kernel = weights["c5"]["kernel"].reshape(4, 4, 16, 120)
    params["classifier.0"]["kernel"] = kernel.transpose(2, 0, 1, 3).reshape(256, 120)
    expected = quick(lenet.apply)({"params": weights}, x)[0]
    np.testing.assert_allclose(quick(module.apply)({"params": params}, x)[0], expected, rtol=1e-4, atol=1e-4)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 61_706


def test_vgg_11_written_out() -> None:
    """The paper's configuration A, narrow, on images that are averaged to 7x7 by repeating."""
    x = draw(2, 32, 32, 3)
    module = MODELS["vgg11"](num_classes=5, width=1 / 16)
    variables = fill(module, x)
    p = variables["params"]

    @quick
    def written_out(p: Any) -> Any:
        y = x
        for layers in ((0,), (3,), (6, 8), (11, 13), (16, 18)):
            for i in layers:
                kernel, bias = p[f"features.{i}"]["kernel"], p[f"features.{i}"]["bias"]
                y = lax.conv_general_dilated(y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
                y = jax.nn.relu(y + bias)
            y = lax.reduce_window(y, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        y = jnp.repeat(jnp.repeat(y, 7, 1), 7, 2).transpose(0, 3, 1, 2).reshape(2, -1)  # of 1x1
        for i in (0, 3, 6):
            y = y @ p[f"classifier.{i}"]["kernel"] + p[f"classifier.{i}"]["bias"]
            y = jax.nn.relu(y) if i < 6 else y
        return y

    logits, features = quick(module.apply)(variables, x)
    np.testing.assert_allclose(logits, written_out(p), rtol=1e-4, atol=1e-4)
    assert [features[f"stage{i}"].shape for i in (1, 5)] == [(2, 32, 32, 4), (2, 2, 2, 32)]
    assert features["hidden2"].shape == (2, 256)


def test_patterns() -> None:
    assert parse("2x64p, 1x6k5v; 120, 84") == ([Block(2, 64, 3, True, True), Block(1, 6, 5, False, False)], [120, 84])
    assert parse("1x8") == ([Block(1, 8, 3, True, False)], [])
    x = jnp.zeros((1, 16, 16, 3))
    # Without dense layers, the trend to all convolutions: the mean over all positions and the classifier.
    params = jax.eval_shape(ConvBlocks("1x8p,2x16").init, jax.random.key(0), x)["params"]
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        "features.0": (3, 3, 3, 8), "features.3": (3, 3, 8, 16), "features.5": (3, 3, 16, 16),
        "classifier.0": (16, 10),
    }  # fmt: skip
    norms = jax.eval_shape(ConvBlocks("1x8p,2x16", batch_norm=True).init, jax.random.key(0), x)["batch_stats"]
    assert set(norms) == {"features.1", "features.5", "features.8"}


def test_convolution_relu_pooling_dense_output() -> None:
    """The pipeline of the notes: an image, a convolution and ReLU, pooling, a dense layer, an output."""
    module, x = ConvBlocks("1x8p;16", grid=None), draw(2, 28, 28, 1)
    variables = fill(module, x)
    logits, features = quick(module.apply)(variables, x)
    shapes = {name: value.shape for name, value in features.items()}
    assert shapes == {"stage1": (2, 28, 28, 8), "pooled": (2, 14 * 14 * 8), "hidden1": (2, 16)}
    assert logits.shape == (2, 10) and features["stage1"].min() == features["hidden1"].min() == 0 > logits.min()


def test_a_stack_of_100_blocks() -> None:
    blocks = ",".join(["1x4"] * 100)
    params = jax.eval_shape(ConvBlocks(blocks).init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    assert len(params) == 101


@pytest.mark.parametrize("pattern, side", [(LENET, 16), ("1x4p,1x4p,1x4", 4), ("2x4k3v", 5), ("1x4", 1)])
def test_the_smallest_image_leaves_one_pixel(pattern: str, side: int) -> None:
    assert smallest_side(parse(pattern)[0]) == side
    run = ConvBlocks(pattern).init_with_output
    (_, features), _ = jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    assert min(features["pooled"].shape) == 1 and features["pooled"].size
    with pytest.raises(UserError, match=f"conv_blocks takes .* at least {side};"):
        jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, side, side - 1, 1)))


@pytest.mark.parametrize(
    "pattern, message",
    [
        ("", "'' in the pattern '' is no block; one is MxCHANNELS"),
        ("2x64p,64p", "'64p' in the pattern '2x64p,64p' is no block"),
        ("2x64pk5", "'2x64pk5' .* is no block"),
        ("0x64", "'0x64' .* has a zero"),
        ("1x64k4p", "'1x64k4p' .* an even kernel cannot keep the sides; add v"),
        ("1x64p;a", "'a' in the pattern '1x64p;a' are no widths of dense layers"),
        ("1x64p;120,0", "'120,0' .* are no widths"),
    ],
)
def test_what_is_no_pattern(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ConvBlocks(pattern).init(jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    assert "\n" not in str(error.value)
