"""What a convolutional layer is: as a sum, as a matrix, as other convolutions; how many weights it has."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from scipy import signal

from dlfx.nn.convolution import Conv
from dlfx.nn.factorised import FactorisedConv, SeparableConv
from dlfx.ops.pooling import max_pool
from tests.compiling import quick

RNG = np.random.default_rng(0)
NHWC = ("NHWC", "HWIO", "NHWC")


def weights(layer, *shape):
    """How many parameters the layer has on an input of that shape."""
    params = jax.eval_shape(layer.init, jax.random.key(0), jnp.ones(shape))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def apply(layer, x, **params):
    return layer.apply({"params": {name: jnp.asarray(value) for name, value in params.items()}}, x)


def convolve(x, kernel, strides=(1, 1), padding="VALID", **how):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NHWC, **how)


def test_the_layer_correlates_where_signal_processing_convolves():
    """A convolution turns its kernel by 180 degrees; a learned kernel does not care."""
    image, kernel = RNG.normal(size=(7, 8)).astype(np.float32), RNG.normal(size=(3, 2)).astype(np.float32)
    layer = Conv(1, (3, 2), padding="VALID", use_bias=False)
    y, turned = (
        apply(layer, image[None, :, :, None], kernel=k[:, :, None, None])[0, :, :, 0]
        for k in (kernel, kernel[::-1, ::-1])
    )
    np.testing.assert_allclose(y, signal.correlate2d(image, kernel, "valid"), atol=1e-5)
    np.testing.assert_allclose(turned, signal.convolve2d(image, kernel, "valid"), atol=1e-5)
    assert not np.allclose(y, turned, atol=0.1)


def test_sources_add_up_and_a_convolution_is_a_filter():
    """A song is the sum of voice and instruments, not their convolution. What is convolved is one sound with a room."""
    voice, instrument = RNG.normal(size=(2, 40))
    echo = np.zeros(12)
    echo[[0, 11]] = 1, 0.5  # the sound, and half of it 11 samples later
    room = lambda sound: np.convolve(sound, echo)[:40]  # noqa: E731
    np.testing.assert_allclose(room(voice)[11:], voice[11:] + 0.5 * voice[:-11])
    np.testing.assert_allclose(room(voice + instrument), room(voice) + room(instrument))
    assert not np.allclose(np.convolve(voice, instrument)[:40], voice + instrument)


def test_it_is_a_dense_layer_with_few_and_shared_weights():
    """The matrix of a convolution, written out: k^2 C entries in a row, the same ones in each row of a channel."""
    x, kernel, stride, pad = RNG.normal(size=(5, 6, 2)), RNG.normal(size=(3, 3, 2, 3)), 2, 1
    matrix = np.zeros((3, 3, 3, 5, 6, 2))
    for i, j, u, v in np.ndindex(3, 3, 3, 3):
        r, s = i * stride + u - pad, j * stride + v - pad
        if 0 <= r < 5 and 0 <= s < 6:
            matrix[i, j, :, r, s] = kernel[u, v].T
    layer = Conv(3, (3, 3), stride, pad, use_bias=False, dtype=jnp.float64, param_dtype=jnp.float64)
    with jax.enable_x64(True):
        run = lambda x: apply(layer, x[None], kernel=kernel)[0]  # noqa: E731
        y, jacobian = quick(lambda x: (run(x), jax.jacrev(run)(x)))(x)
    np.testing.assert_allclose(y, np.einsum("ijorsc,rsc->ijo", matrix, x), atol=1e-12)
    np.testing.assert_allclose(jacobian, matrix, atol=1e-12)
    assert {int((row != 0).sum()) for row in np.asarray(jacobian[1, 1])} == {9 * 2}  # an output sees a patch


def test_it_moves_with_its_input():
    layer = Conv(3, (3, 3), padding="CIRCULAR")
    x = RNG.normal(size=(1, 6, 7, 2)).astype(np.float32)
    shift = lambda x: jnp.roll(x, (2, 3), (1, 2))  # noqa: E731
    y, variables = layer.init_with_output(jax.random.key(0), x)
    np.testing.assert_allclose(layer.apply(variables, shift(x)), shift(y), atol=1e-6)


def test_dilation_puts_zeros_between_the_taps():
    x, kernel = RNG.normal(size=(1, 12, 11, 2)).astype(np.float32), RNG.normal(size=(3, 2, 2, 3)).astype(np.float32)
    stuffed = np.zeros((7, 3, 2, 3), np.float32)  # k + (k - 1) (d - 1)
    stuffed[::3, ::2] = kernel
    layer = Conv(3, (3, 2), padding="VALID", kernel_dilation=(3, 2), use_bias=False)
    np.testing.assert_allclose(apply(layer, x, kernel=kernel), convolve(x, stuffed), atol=1e-5)


@pytest.mark.parametrize("groups, count", [(1, 73_728), (2, 36_864), (4, 18_432)])
def test_groups_divide_the_weights_as_they_do_the_work(groups, count):
    layer = Conv(128, (3, 3), feature_group_count=groups, use_bias=False)
    assert weights(layer, 1, 8, 8, 64) == 9 * 64 * 128 // groups == count
    assert weights(Conv(128, (3, 3), feature_group_count=groups), 1, 8, 8, 64) == count + 128  # a bias each channel


def test_groups_are_convolutions_side_by_side():
    x, kernel = RNG.normal(size=(2, 5, 6, 6)).astype(np.float32), RNG.normal(size=(3, 3, 2, 9)).astype(np.float32)
    layer = Conv(9, (3, 3), padding="VALID", feature_group_count=3, use_bias=False)
    parts = [convolve(a, b) for a, b in zip(np.split(x, 3, 3), np.split(kernel, 3, 3), strict=True)]
    np.testing.assert_allclose(apply(layer, x, kernel=kernel), np.concatenate(parts, 3), atol=1e-5)


def test_pointwise_is_a_dense_layer_at_every_pixel():
    x, kernel = RNG.normal(size=(2, 4, 5, 3)).astype(np.float32), RNG.normal(size=(3, 7)).astype(np.float32)
    y = apply(Conv(7, (1, 1), use_bias=False), x, kernel=kernel[None, None])
    np.testing.assert_allclose(y, nn.Dense(7, use_bias=False).apply({"params": {"kernel": kernel}}, x), atol=1e-5)
    np.testing.assert_allclose(y, np.einsum("bijc,co->bijo", x, kernel), atol=1e-5)


def test_a_separable_convolution_has_a_kernel_that_is_a_product():
    layer = SeparableConv(8, strides=(2, 2), dilation=(1, 2))
    x = RNG.normal(size=(2, 7, 8, 4)).astype(np.float32)
    y, variables = quick(lambda x: layer.init_with_output(jax.random.key(0), x))(x)
    params = variables["params"]
    kernel = params["depthwise"]["kernel"][:, :, 0, :, None] * params["pointwise"]["kernel"]
    expected = convolve(x, kernel, (2, 2), ((1, 1), (2, 2)), rhs_dilation=(1, 2))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    whole = 9 * 64 * 128
    assert weights(SeparableConv(128, use_bias=False), 1, 8, 8, 64) / whole == pytest.approx(1 / 128 + 1 / 9)  # 0.1189


def test_a_factorised_convolution_has_a_kernel_that_is_a_product():
    layer = FactorisedConv(6, size=5)
    x = RNG.normal(size=(2, 7, 8, 4)).astype(np.float32)
    y, variables = quick(lambda x: layer.init_with_output(jax.random.key(0), x))(x)
    down, right = (variables["params"][name]["kernel"] for name in ("vertical", "horizontal"))
    kernel = np.einsum("ucm,vmo->uvco", down[:, 0], right[0])
    np.testing.assert_allclose(y, convolve(x, kernel, padding=((2, 2), (2, 2))), atol=1e-5)
    assert weights(FactorisedConv(16, use_bias=False), 1, 8, 8, 16) / (9 * 16 * 16) == 6 / 9


def test_in_three_dimensions():
    """Frames stacked: kt times the weights of one frame's kernel."""
    x, kernel = RNG.normal(size=(2, 4, 5, 6, 2)).astype(np.float32), RNG.normal(size=(3, 2, 3, 2, 4)).astype(np.float32)
    layer = Conv(4, (3, 2, 3), (1, 2, 1), "VALID", use_bias=False)
    y = apply(layer, x, kernel=kernel)
    expected = np.zeros((2, 2, 2, 4, 4))
    for t, i, j in np.ndindex(2, 2, 4):
        expected[:, t, i, j] = np.einsum("btuvc,tuvco->bo", x[:, t : t + 3, 2 * i : 2 * i + 2, j : j + 3], kernel)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    assert weights(layer, 1, 4, 5, 6, 2) == 3 * weights(Conv(4, (2, 3), use_bias=False), 1, 5, 6, 2)


def test_in_three_dimensions_as_in_pytorch():
    torch = pytest.importorskip("torch")
    x, kernel = RNG.normal(size=(1, 4, 5, 6, 4)).astype(np.float32), RNG.normal(size=(3, 3, 3, 2, 6)).astype(np.float32)
    layer = Conv(6, (3, 3, 3), (1, 2, 1), [(1, 1)] * 3, kernel_dilation=(1, 1, 2), feature_group_count=2)
    bias = np.arange(6.0, dtype=np.float32)
    theirs = torch.nn.functional.conv3d(
        *(torch.tensor(array) for array in (x.transpose(0, 4, 1, 2, 3), kernel.transpose(4, 3, 0, 1, 2), bias)),
        stride=(1, 2, 1), padding=1, dilation=(1, 1, 2), groups=2,
    )  # fmt: skip
    np.testing.assert_allclose(
        apply(layer, x, kernel=kernel, bias=bias), theirs.numpy().transpose(0, 2, 3, 4, 1), atol=1e-4
    )


def test_max_pooling_leaves_no_weight_without_gradient():
    """It has none itself, and it routes the gradient of activations: every weight of the filters still learns."""
    x = jnp.asarray(RNG.normal(size=(2, 8, 8, 2)), jnp.float32)
    layer = Conv(3, (3, 3), padding="VALID")
    variables = layer.init(jax.random.key(0), x)

    @quick
    def run(variables, y):
        grad = jax.grad(lambda v: (max_pool(layer.apply(v, x), 2) ** 2).sum())(variables)
        return grad, jax.grad(lambda y: (max_pool(y, 2) ** 2).sum())(y)

    gradient, activations = run(variables, layer.apply(variables, x))
    assert all((leaf != 0).all() for leaf in jax.tree.leaves(gradient))
    assert (np.asarray(activations) != 0).mean() == 1 / 4
