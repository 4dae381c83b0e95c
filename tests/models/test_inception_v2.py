"""Inception-v2: its blocks and its first convolutions written out in lax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.models.classification.inception_v2 import Inception, InceptionV2, Widths
from dlfx.nn.conv_norm import BasicConv2d
from tests.compiling import quick

NHWC = ("NHWC", "HWIO", "NHWC")


def fill(module: Any, x: Any) -> Any:
    rng = np.random.default_rng(0)

    def values(path: Any, leaf: Any) -> np.ndarray:
        if leaf.ndim == 1:
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return (rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))).astype(np.float32)

    return jax.tree.map_with_path(values, jax.eval_shape(module.init, jax.random.key(0), x))


def unit(variables: Any, x: Any, name: str, stride: int = 1) -> Any:
    """Convolution, batch norm and ReLU."""
    p, s = variables["params"][name], variables["batch_stats"][name]["bn"]
    pad = ((p["conv"]["kernel"].shape[0] // 2,) * 2,) * 2
    y = lax.conv_general_dilated(x, p["conv"]["kernel"], (stride, stride), pad, dimension_numbers=NHWC)
    return jax.nn.relu((y - s["mean"]) / (s["var"] + 1e-3) ** 0.5 * p["bn"]["scale"] + p["bn"]["bias"])


def pooled(x: Any, how: str, stride: int) -> Any:
    window, strides, pads = (1, 3, 3, 1), (1, stride, stride, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
    if how == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)
    sums, ones = (lax.reduce_window(v, 0.0, lax.add, window, strides, pads) for v in (x, jnp.ones_like(x)))
    return sums / ones  # of the pixels that are there


@pytest.mark.parametrize("how", ["mean", "max", "stride"])
def test_a_block_written_out(how: str) -> None:
    stride = 2 if how == "stride" else 1
    widths = Widths(0, 3, 4, 2, 5, 0, 2) if how == "stride" else Widths(2, 3, 4, 2, 5, 6)
    module: Any = Inception(widths, how == "max", BasicConv2d)
    x = np.random.default_rng(1).normal(size=(2, 5, 6, 3)).astype(np.float32)
    v = fill(module, x)
    b = unit(v, unit(v, x, "branch2.0"), "branch2.1", stride)
    c = unit(v, unit(v, unit(v, x, "branch3.0"), "branch3.1"), "branch3.2", stride)
    if how == "stride":
        branches = [b, c, pooled(x, "max", 2)]  # the input's maxima pass through
    else:
        branches = [unit(v, x, "branch1"), b, c, unit(v, pooled(x, how, 1), "branch4.1")]
    found = quick(module.apply)(v, x)
    assert found.shape == (2, 3, 3, 4 + 5 + 3) if stride == 2 else (2, 5, 6, 2 + 4 + 5 + 6)
    np.testing.assert_allclose(found, jnp.concatenate(branches, -1), rtol=1e-4, atol=1e-5)


def test_the_stem_begins_with_a_separable_convolution() -> None:
    module: Any = InceptionV2(width=0.25, num_classes=3)
    x = np.random.default_rng(1).normal(size=(1, 16, 16, 3)).astype(np.float32)
    v = fill(module, x)
    kernel = v["params"]["conv1_depthwise"]["kernel"]
    assert kernel.shape == (7, 7, 1, 24)  # eight of each channel
    y = lax.conv_general_dilated(x, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=NHWC, feature_group_count=3)
    y = pooled(unit(v, y, "conv1"), "max", 2)
    y = unit(v, unit(v, y, "conv2"), "conv3")
    found = quick(lambda v: module.apply(v, x)[1]["stem"])(v)
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)
