"""Deformable convolution against a loop in NumPy, the plain convolution, and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.nn.deformable import DeformableConv
from dlfx.ops.deformable import deformable_conv
from dlfx.ops.same_padding import same_padding
from dlfx.types import UserError
from tests.compiling import quick

# sides, kernel, strides, padding, dilation, groups
CASES = [
    ((5, 6), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), 1),
    ((7, 6), (2, 3), (2, 1), ((0, 1), (2, 0)), (1, 2), 2),
]


def draw(case, seed=0):
    """(x, kernel, offsets, modulation) in float64."""
    sides, size, strides, padding, dilation, groups = case
    rng = np.random.default_rng(seed)
    out = [
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(sides, padding, dilation, size, strides, strict=True)
    ]
    taps = size[0] * size[1]
    x, kernel = rng.normal(size=(2, *sides, 4)), rng.normal(size=(*size, 4, 3))
    return x, kernel, rng.normal(size=(2, *out, 2 * taps * groups)), rng.uniform(size=(2, *out, taps * groups))


def at(image, r, s):
    """One map between its pixels, 0 outside."""
    total = 0.0
    for u in (int(np.floor(r)), int(np.floor(r)) + 1):
        for v in (int(np.floor(s)), int(np.floor(s)) + 1):
            if 0 <= u < image.shape[0] and 0 <= v < image.shape[1]:
                total += (1 - abs(r - u)) * (1 - abs(s - v)) * image[u, v]
    return total


def loop(x, kernel, offsets, modulation, strides, padding, dilation, groups):
    kh, kw, channels, features = kernel.shape
    y = np.zeros((*offsets.shape[:3], features))
    for b, i, j, u, v, c in np.ndindex(*offsets.shape[:3], kh, kw, channels):
        tap = (c // (channels // groups)) * kh * kw + u * kw + v
        down, right = offsets[b, i, j, 2 * tap : 2 * tap + 2]
        r = i * strides[0] - padding[0][0] + u * dilation[0] + down
        s = j * strides[1] - padding[1][0] + v * dilation[1] + right
        y[b, i, j] += modulation[b, i, j, tap] * at(x[b, :, :, c], r, s) * kernel[u, v, c]
    return y


@pytest.mark.parametrize("case", CASES)
def test_it_equals_the_loop_and_with_offsets_of_zero_the_convolution(case):
    _, _, strides, padding, dilation, groups = case
    with jax.enable_x64(True):
        x, kernel, offsets, modulation = (jnp.asarray(array) for array in draw(case))

        @quick
        def run(x, kernel, offsets, modulation):
            how = (strides, padding, dilation)
            return (
                deformable_conv(x, kernel, offsets, modulation, *how),
                deformable_conv(x, kernel, offsets, None, *how),
                deformable_conv(x, kernel, jnp.zeros_like(offsets), None, *how),
                lax.conv_general_dilated(
                    x, kernel, strides, padding, None, dilation, dimension_numbers=("NHWC", "HWIO", "NHWC")
                ),
            )  # fmt: skip

        second, first, still, plain = run(x, kernel, offsets, modulation)
        given = (np.asarray(x), np.asarray(kernel), np.asarray(offsets))
        np.testing.assert_allclose(
            second, loop(*given, modulation, strides, padding, dilation, groups), rtol=1e-10, atol=1e-12
        )
        np.testing.assert_allclose(
            first, loop(*given, np.ones_like(modulation), strides, padding, dilation, groups), rtol=1e-10, atol=1e-12
        )
        np.testing.assert_allclose(still, plain, rtol=1e-10, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    case = CASES[1]
    with jax.enable_x64(True):
        given = tuple(jnp.asarray(array) for array in draw(case))
        rng = np.random.default_rng(1)
        towards = tuple(jnp.asarray(rng.normal(size=array.shape)) for array in given)

        @quick
        def run(given, towards):
            def f(*given):
                return jnp.sin(deformable_conv(*given, *case[2:5])).sum()

            gradients = jax.grad(f, (0, 1, 2, 3))(*given)
            found = []
            for k in range(4):
                ahead, behind = (f(*given[:k], given[k] + step * towards[k], *given[k + 1 :]) for step in (1e-6, -1e-6))
                found.append(((gradients[k] * towards[k]).sum(), (ahead - behind) / 2e-6))
            return found

        for slope, central in run(given, towards):
            np.testing.assert_allclose(slope, central, rtol=1e-6)


@pytest.mark.parametrize("modulated, groups", [(False, 1), (True, 2)])
def test_the_layer_begins_as_the_plain_convolution(modulated, groups):
    layer = DeformableConv(5, strides=(2, 2), offset_groups=groups, modulated=modulated)
    x = jax.random.normal(jax.random.key(0), (2, 7, 6, 4))

    @quick
    def run(x):
        y, variables = layer.init_with_output(jax.random.key(1), x)
        plain = lax.conv_general_dilated(
            x, variables["params"]["kernel"], (2, 2), same_padding(3), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

        def loss(params):
            return (layer.apply({"params": params}, x) ** 2).sum()

        return y, plain, variables["params"], jax.grad(loss)(variables["params"])

    y, plain, params, gradient = run(x)
    np.testing.assert_allclose(y, plain * (0.5 if modulated else 1), rtol=1e-4, atol=1e-5)
    assert params["offset"]["kernel"].shape == (3, 3, 4, 9 * groups * (3 if modulated else 2))  # 2 k^2: down and right
    assert np.abs(gradient["offset"]["kernel"]).max() > 0  # offsets of 0 learn to move


def test_what_does_not_fit():
    x, kernel, offsets, modulation = draw(CASES[0])
    pad = CASES[0][3]
    for message, given, how in (
        (
            r"offsets \[2, 5, 6, 9\] do not fit: 9 taps and 4 channels need \[2, 5, 6, 18 G\]",
            (x, kernel, offsets[..., :9]),
            {},
        ),
        ("with G that divides the channels", (x, kernel, np.tile(offsets, 3)), {}),
        ("modulation .* 1 groups of 9 taps", (x, kernel, offsets, modulation[..., :4]), {}),
        ("must be at least 1", (x, kernel, offsets), {"strides": 0}),
        ("those of the image, 3", (x[..., :3], kernel, offsets), {}),
        (r"\[2, -1, 0, 18 G\]", (x[:, :1, :2], kernel, offsets), {"padding": ((0, 0), (0, 0))}),
    ):
        with pytest.raises(UserError, match=message):
            deformable_conv(*given, **({"padding": pad} | how))


def test_same_padding_keeps_the_size_or_says_that_it_cannot():
    assert same_padding(3) == ((1, 1), (1, 1))
    assert same_padding((5, 1), 2) == ((4, 4), (0, 0))
    assert same_padding(2, 2) == ((1, 1), (1, 1))  # taps at 0 and 2: its middle is a pixel
    with pytest.raises(UserError, match="ambiguous for an even kernel: 4 x 3 .* covers 4 x 3 pixels"):
        same_padding((4, 3))
    with pytest.raises(UserError, match="must be at least 1"):
        same_padding(3, 0)
