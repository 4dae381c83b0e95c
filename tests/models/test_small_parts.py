"""Parts of AlexNet and the MobileNets that counts do not show, and gradients in plain networks."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.models.classification import MODELS
from dlfx.models.classification.mobilenet_v2 import InvertedResidual
from dlfx.nn.conv_norm import conv_and_norm
from dlfx.ops.normalization import local_response_norm
from tests.compiling import quick

NHWC = ("NHWC", "HWIO", "NHWC")


def fill(module: Any, x: Any) -> Any:
    rng = np.random.default_rng(0)

    def values(leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    return jax.tree.map(values, jax.eval_shape(module.init, jax.random.key(0), x))


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012"])
def test_alexnet_of_2012_normalises_responses(name: str) -> None:
    x, module = 30 * draw(1, 64, 64, 3), MODELS[name](width=1 / 16)
    variables = fill(module, x)
    layer = variables["params"]["features.0"]
    y = lax.conv_general_dilated(x, layer["kernel"], (4, 4), ((2, 2), (2, 2)), dimension_numbers=NHWC) + layer["bias"]
    expected = jax.nn.relu(y) if name == "alexnet" else local_response_norm(jax.nn.relu(y))
    found = quick(lambda variables: module.apply(variables, x)[1]["stage1"])(variables)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["alexnet", "alexnet_2012"])
def test_what_alexnet_drops(name: str) -> None:
    """torchvision the inputs of the first two dense layers, the paper their outputs."""
    module: Any = MODELS[name](width=1 / 16, num_classes=3, dropout=1.0)  # all of it
    x = draw(1, 64, 64, 3)
    variables = fill(module, x)
    run = quick(lambda v: module.apply(v, x, train=True, rngs={"dropout": jax.random.key(0)}))
    logits, features = run(variables)
    p = variables["params"]
    biases = jax.nn.relu(p["classifier.1"]["bias"])
    assert np.allclose(features["hidden1"], biases) == (name == "alexnet")
    assert np.allclose(logits, p["classifier.6"]["bias"]) == (name == "alexnet_2012")


def test_biases_of_2012_begin_as_published() -> None:
    module = MODELS["alexnet_2012"](width=1 / 4, num_classes=10)
    params = quick(module.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    ones = {name for name, layer in params.items() if (layer["bias"] == 1).all()}
    zeros = {name for name, layer in params.items() if (layer["bias"] == 0).all()}
    assert ones == {"features.3", "features.8", "features.10", "classifier.1", "classifier.4"}
    assert zeros == {"features.0", "features.6", "classifier.6"}
    for name, inputs in (("features.3", 25 * 12), ("classifier.1", 36 * 64)):  # of which there are half, of groups
        np.testing.assert_allclose(params[name]["kernel"].std(), (2 / inputs) ** 0.5, rtol=0.05)


@pytest.mark.parametrize("tensorflow_padding", [False, True])
def test_mobilenet_s_stem_under_both_paddings(tensorflow_padding: bool) -> None:
    x = draw(1, 8, 8, 3)
    module: Any = MODELS["mobilenet_v1"](width=0.25, tensorflow_padding=tensorflow_padding, epsilon=0.1)
    variables = fill(module, x)
    p, s = variables["params"], variables["batch_stats"]["bn1"]
    padding = ((0, 1), (0, 1)) if tensorflow_padding else ((1, 1), (1, 1))
    y = lax.conv_general_dilated(x, p["conv_stem"]["kernel"], (2, 2), padding, dimension_numbers=NHWC)
    y = (y - s["mean"]) / np.sqrt(s["var"] + 0.1) * p["bn1"]["scale"] + p["bn1"]["bias"]
    found = quick(lambda variables: module.apply(variables, 1.0 * x)[1]["stem"])(variables)
    np.testing.assert_allclose(found, np.clip(y, 0, 6), rtol=1e-4, atol=1e-5)


def test_inverted_residuals_are_linear_between_and_wide_within() -> None:
    conv, norm = conv_and_norm(False, jnp.float32, jnp.float32, None)
    layers = (conv, partial(conv, kernel_size=(3, 3), padding=1), norm)
    x = draw(1, 4, 4, 3)
    block: Any = InvertedResidual(3, 1, 6, *layers)
    variables = fill(block, x)
    params = variables["params"]
    assert params["conv.1.0"]["kernel"].shape == (3, 3, 1, 18)
    params["conv.3"] = {key: 0 * value for key, value in params["conv.3"].items()}
    np.testing.assert_array_equal(quick(block.apply)(variables, x), x)  # with negative values: nothing is cut off
    one = draw(1, 1, 1, 3)  # of which a stride of 2 leaves one pixel as well
    down: Any = InvertedResidual(3, 2, 6, *layers)
    np.testing.assert_array_equal(quick(down.apply)(variables, one), 0 * one)


def test_gradients_do_not_vanish_in_plain_networks_with_batch_norm() -> None:
    """So that is not what shortcuts are there to cure (section 4.1 of ResNet's paper): of 20 plain layers the first has
    a larger gradient than the last, where a factor of 4 a layer, as of sigmoids, would leave 1e-11 of it.
    """
    x, labels = draw(8, 8, 8, 3), np.arange(8)

    def norms(name: str) -> tuple[float, float]:
        module: Any = MODELS[name](width=0.25)
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)
        rng = np.random.default_rng(0)  # He's, without compiling `init`
        constants = {"scale": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}

        def initial(path: Any, leaf: Any) -> np.ndarray:
            name = path[-1].key
            if name in constants:
                return np.full(leaf.shape, constants[name], np.float32)
            return (rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))).astype(np.float32)

        variables = jax.tree.map_with_path(initial, shapes)

        @quick
        @jax.grad
        def gradient(params: Any) -> Any:
            apply = partial(module.apply, train=True, mutable=["batch_stats"])
            (logits, _), _ = apply({**variables, "params": params}, x)
            return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], -1).mean()

        found = gradient(variables["params"])
        ends = (found["conv1"]["kernel"], found["layer3.2"]["conv2"]["kernel"])
        return tuple(float(jnp.linalg.norm(end)) for end in ends)

    first, last = norms("plain20")
    assert 1 < first / last < 100
