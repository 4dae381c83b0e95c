"""Blocks that networks share: attention over channels, pre-activation, bottlenecks, the hourglass, widths."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.nn.channel_attention import SqueezeExcite
from dlfx.nn.conv_norm import conv_and_norm, scaled
from dlfx.nn.hourglass import Hourglass
from dlfx.nn.residual import PreactivationBlock, ResidualBlock
from dlfx.types import UserError
from tests.compiling import quick

LAYERS = conv_and_norm(False, jnp.float32, jnp.float32, None)


def fill(module: Any, x: Any, seed: int = 0) -> Any:
    """Variables away from ones and zeros, which would hide mistakes."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_squeeze_and_excitation_written_out() -> None:
    module, x = SqueezeExcite(reduction=4), draw(2, 3, 5, 8)
    variables = jax.tree.map(lambda leaf: leaf - 1, fill(module, x))
    p = variables["params"]
    assert p["fc1"]["kernel"].shape == (1, 1, 8, 2)  # C / r hidden units
    hidden = np.maximum(x.mean((1, 2)) @ p["fc1"]["kernel"][0, 0] + p["fc1"]["bias"], 0)
    gates = 1 / (1 + np.exp(-(hidden @ p["fc2"]["kernel"][0, 0] + p["fc2"]["bias"])))
    np.testing.assert_allclose(quick(module.apply)(variables, x), x * gates[:, None, None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("squeezed", [None, 2])
def test_a_preactivated_block_without_its_branch_is_the_identity(squeezed: int | None) -> None:
    """Of negative values too, which the ReLU after the sum of the first form would cut off."""
    x = draw(1, 4, 4, 8)
    last = "conv3" if squeezed else "conv2"
    for kind, expected in ((PreactivationBlock, x), (ResidualBlock, np.maximum(x, 0))):
        block = kind(8, *LAYERS, squeezed=squeezed)
        variables = fill(block, x)
        params, norm = variables["params"], last.replace("conv", "bn")
        params[last] = {"kernel": 0 * params[last]["kernel"]}
        if kind is ResidualBlock:
            params[norm] = {key: 0 * value for key, value in params[norm].items()}
        np.testing.assert_array_equal(quick(block.apply)(variables, x), expected)


def test_preactivation_comes_before_each_convolution_and_the_first_shortcut() -> None:
    x = draw(2, 4, 4, 3)
    for first in (False, True):
        block: Any = PreactivationBlock(6, *LAYERS, strides=2, first=first)
        variables = fill(block, x)
        p, s = variables["params"], variables["batch_stats"]
        assert set(p) == {"bn1", "conv1", "bn2", "conv2", "downsample.0"}  # no norm after the projection

        def activate(x: Any, name: str, p: Any = p, s: Any = s) -> Any:
            y = (x - s[name]["mean"]) / np.sqrt(s[name]["var"] + 1e-5) * p[name]["scale"] + p[name]["bias"]
            return np.maximum(y, 0)

        def conv(x: Any, kernel: Any, stride: int) -> Any:
            padding = ((kernel.shape[0] // 2,) * 2,) * 2
            return jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        begin = activate(x, "bn1")
        y = conv(activate(conv(begin, p["conv1"]["kernel"], 2), "bn2"), p["conv2"]["kernel"], 1)
        y += conv(begin if first else x, p["downsample.0"]["kernel"], 2)
        np.testing.assert_allclose(quick(block.apply)(variables, x), y, rtol=1e-4)


def test_a_bottleneck_costs_an_eighth_of_a_plain_convolution() -> None:
    """Multiply-adds for each position, of 256 channels squeezed to 64: 69,632 against 589,824."""

    def cost(module: Any) -> int:
        params = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 4, 4, 256)))["params"]
        return sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 4)

    squeezed = cost(ResidualBlock(256, *LAYERS, squeezed=64))
    assert squeezed == 256 * 64 + 9 * 64 * 64 + 64 * 256
    assert cost(nn.Conv(256, (3, 3))) == 589_824 and 8.4 < 589_824 / squeezed < 8.5
    grouped = cost(ResidualBlock(256, *LAYERS, squeezed=128, groups=32))
    assert grouped == 2 * 256 * 128 + 9 * 4 * 128 and 0.98 < grouped / squeezed < 1.02  # ResNeXt's at the same cost


class Identity(nn.Module):
    """A block that passes on what it is given."""

    def __call__(self, x: Any) -> Any:
        return x


def test_an_hourglass_of_identities_is_a_sum_over_scales() -> None:
    x = draw(1, 8, 4, 2)

    def expected(x: np.ndarray, depth: int) -> np.ndarray:
        if depth == 0:
            return x
        height, width = x.shape[1] // 2, x.shape[2] // 2
        pooled = x.reshape(1, height, 2, width, 2, -1).max((2, 4))
        return x + np.kron(expected(pooled, depth - 1), np.ones((1, 2, 2, 1), np.float32))

    for depth in (1, 2):
        np.testing.assert_allclose(Hourglass(depth, Identity).apply({}, x), expected(x, depth), rtol=1e-6)
    with pytest.raises(UserError, match=r"depth 3 takes sides that are multiples of 8; got \[1, 8, 4, 2\]"):
        Hourglass(3, Identity).apply({}, x)


def test_an_hourglass_sees_the_whole_image() -> None:
    """With as many blocks as an hourglass of depth 3 has, one after the other, a pixel sees 21x21 and not 32x32."""
    block = partial(PreactivationBlock, 2, *LAYERS, squeezed=1)
    x = draw(1, 32, 32, 2)

    def support(module: Any) -> np.ndarray:
        variables = fill(module, x)
        gradient = quick(jax.grad(lambda x: module.apply(variables, x)[0, 16, 16].sum()))(jnp.abs(x))
        return np.abs(np.asarray(gradient)[0]).sum(-1) > 0

    hourglass = Hourglass(3, block)
    params = jax.eval_shape(hourglass.init, jax.random.key(0), x)["params"]
    blocks = [path for path, _ in jax.tree.leaves_with_path(params) if path[-2].key == "conv2"]
    assert len(blocks) == 3 * 3 + 1
    seen = support(hourglass)
    assert seen[0].any() and seen[-1].any() and seen[:, 0].any() and seen[:, -1].any()
    rows = np.flatnonzero(support(nn.Sequential([block() for _ in blocks])).any(1))
    assert rows[0] == 16 - 10 and rows[-1] == 16 + 10


@pytest.mark.parametrize(
    "channels, width, multiple, expected",
    [(64, 1.0, 1, 64), (6, 0.25, 1, 2), (6, 0.01, 1, 1), (128, 0.1, 32, 32), (32, 0.75, 8, 24), (24, 0.75, 8, 24)],
)
def test_widths(channels: int, width: float, multiple: int, expected: int) -> None:
    """Of MobileNet's: 0.75 of 24 is 18, and 16 would be more than a tenth less."""
    assert scaled(channels, width, multiple) == expected
