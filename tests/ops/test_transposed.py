"""The transposed convolution against its definition in a loop, the pullback of the convolution, and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.ops.transposed import transposed_conv
from dlfx.types import UserError
from tests.compiling import quick

# kernel, stride, padding, output padding, dilation, groups
CASES = [
    ((3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1),
    ((3, 2), (3, 1), (0, 1), (2, 0), (1, 2), 2),
    ((2, 2), (3, 3), (0, 0), (0, 0), (1, 1), 1),  # gaps between what the pixels reach
    ((4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 4),
    ((4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1),
]


def draw(case):
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 4, 5, 4)).astype(np.float32), rng.normal(size=(*case[0], 4, 3)).astype(np.float32)


def loop(x, kernel, case):
    (kh, kw), (sh, sw), (top, left), more, (dh, dw), groups = case
    _, height, width, channels = x.shape
    features = kernel.shape[3]
    sides = [s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in ((sh, height, dh, kh), (sw, width, dw, kw))]
    full = np.zeros((len(x), sides[0] + more[0], sides[1] + more[1], groups * features))
    for i, j, u, v, c in np.ndindex(height, width, kh, kw, channels):
        first = c // (channels // groups) * features
        full[:, i * sh + u * dh, j * sw + v * dw, first : first + features] += x[:, i, j, c, None] * kernel[u, v, c]
    return full[:, top : full.shape[1] - top, left : full.shape[2] - left]


@pytest.fixture(scope="module")
def told():
    """Of each case: y, and the pullback of the convolution that it transposes."""

    def run(x, kernel, case):
        (kh, kw), strides, padding, _, dilation, groups = case
        y = transposed_conv(x, kernel, *case[1:])

        def convolution(y):  # features of a group to channels of that group
            pads = [(rows, rows) for rows in padding]
            return lax.conv_general_dilated(
                y, kernel.swapaxes(2, 3), strides, pads, None, dilation, ("NHWC", "HWIO", "NHWC"), groups
            )

        return y, jax.vjp(convolution, jnp.zeros_like(y))[1](x)[0]

    given = [draw(case) for case in CASES]
    return quick(lambda given: [run(*pair, case) for pair, case in zip(given, CASES, strict=True)])(given)


def test_by_its_definition_and_as_a_pullback(told):
    for case, (y, pulled) in zip(CASES, told, strict=True):
        np.testing.assert_allclose(y, loop(*draw(case), case), atol=1e-5, err_msg=str(case))
        np.testing.assert_allclose(y, pulled, atol=1e-5, err_msg=str(case))


def test_it_equals_pytorch(told):
    torch = pytest.importorskip("torch")
    for case, (y, _) in zip(CASES, told, strict=True):
        x, kernel = draw(case)
        _, stride, padding, output_padding, dilation, groups = case
        theirs = torch.nn.functional.conv_transpose2d(
            torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(kernel.transpose(2, 3, 0, 1)), None,
            stride, padding, output_padding, groups, dilation,
        )  # fmt: skip
        np.testing.assert_allclose(y, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5, err_msg=str(case))


def test_lax_does_not_turn_the_kernel_unless_told(told):
    case = CASES[-1]
    x, kernel = draw(case)
    pads = [(2, 2), (2, 2)]  # d (k - 1) - p
    plain = lax.conv_transpose(x, kernel, (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    assert plain.shape == told[-1][0].shape and not np.allclose(plain, told[-1][0], atol=0.1)
    turned = lax.conv_transpose(x, kernel[::-1, ::-1], (2, 2), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(turned, told[-1][0], atol=1e-5)


def test_what_does_not_fit():
    x, kernel = draw(CASES[0])
    for message, how in (
        (r"strides \(0, 1\)", {"strides": (0, 1)}),
        (
            r"an output padding of \(2, 2\) must be smaller than the stride \(2, 2\)",
            {"strides": 2, "output_padding": 2},
        ),
        ("3 groups of 4 channels", {"groups": 3}),
    ):
        with pytest.raises(UserError, match=message):
            transposed_conv(x, kernel, **how)
