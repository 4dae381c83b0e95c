"""The lowering of convolutions to patches equals lax, in values and in gradients."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.ops.convolution import NHWC, conv_general_dilated, conv_transpose, im2col

CASES = [
    # images, kernels, strides, padding
    ((2, 8, 8, 3), (3, 3, 3, 4), (1, 1), "SAME"),
    ((2, 8, 9, 3), (5, 5, 3, 2), (1, 1), "VALID"),
    ((1, 7, 9, 2), (3, 2, 2, 5), (2, 3), "VALID"),
    ((2, 9, 8, 2), (3, 3, 2, 3), (2, 2), "SAME"),
    ((2, 8, 8, 2), (4, 2, 2, 3), (2, 1), "SAME_LOWER"),
    ((1, 6, 5, 1), (3, 3, 1, 2), (2, 2), ((1, 1), (1, 1))),
    ((1, 6, 5, 1), (2, 3, 1, 2), (1, 2), ((0, 2), (3, 1))),
    ((1, 6, 6, 2), (2, 2, 2, 2), (1, 1), ((-1, 0), (0, -1))),
    ((3, 4, 4, 3), (1, 1, 3, 2), (2, 2), "VALID"),
    ((2, 5, 5, 3), (5, 5, 3, 4), (1, 1), "VALID"),
    ((2, 8, 10, 3), (4, 4, 3, 2), (2, 2), ((1, 1), (1, 1))),
    ((1, 9, 7, 2), (4, 2, 2, 5), (2, 2), "VALID"),
    ((2, 6, 6, 33), (3, 3, 33, 40), (1, 1), "SAME"),
    ((2, 6, 6, 40), (3, 3, 40, 33), (1, 1), "SAME"),
]
SMALL = ((2, 6, 6, 2), (3, 3, 2, 3), (1, 1), "SAME")


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def cpu() -> None:
    if jax.default_backend() != "cpu":
        pytest.skip("convolutions are lowered on CPU only")


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape))


def both(strides: Any, padding: Any) -> tuple[Any, Any]:
    """Ours and lax's, as functions of images and kernels."""
    options = {"window_strides": strides, "padding": padding, "dimension_numbers": NHWC}
    return partial(conv_general_dilated, **options), partial(lax.conv_general_dilated, **options)


def close(found: Any, expected: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), found, expected)


def primitives(function: Any, *args: Any) -> set[str]:
    return {equation.primitive.name for equation in jax.make_jaxpr(function)(*args).eqns}


@pytest.mark.parametrize("images, kernels, strides, padding", CASES)
def test_values_and_gradients_equal_lax(images: Any, kernels: Any, strides: Any, padding: Any, cpu: None) -> None:
    x, w = draw(*images), draw(*kernels)
    ours, expected = both(strides, padding)
    assert "conv_general_dilated" not in primitives(ours, x, w)

    def pullback(f: Any) -> Any:
        def run(x: jax.Array, w: jax.Array) -> Any:
            y, vjp = jax.vjp(f, x, w)
            return y, vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

        return jax.jit(run)(x, w)

    close(pullback(ours), pullback(expected))


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_under_vmap(axes: tuple[int | None, int | None]) -> None:
    images, kernels, strides, padding = SMALL
    x, w = draw(3, *images)[0 if axes[0] is None else ...], draw(3, *kernels)[0 if axes[1] is None else ...]

    def run(f: Any) -> Any:
        def value_and_gradients(x: jax.Array, w: jax.Array) -> Any:
            y = f(x, w)
            return y, jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w))), argnums=(0, 1))(x, w)

        return jax.jit(jax.vmap(value_and_gradients, axes))(x, w)

    ours, expected = both(strides, padding)
    close(run(ours), run(expected))


def test_inside_scan() -> None:
    images, kernels, strides, padding = SMALL
    xs, w = draw(3, *images), draw(*kernels)

    def train(f: Any) -> Any:
        def step(w: jax.Array, x: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(lambda w: jnp.mean(jnp.sin(f(x, w))))(w)
            return w - gradient, value

        return jax.jit(lambda: lax.scan(step, w, xs))()

    ours, expected = both(strides, padding)
    close(train(ours), train(expected))


def test_forward_mode_equals_lax() -> None:
    images, kernels, strides, padding = SMALL
    primals, tangents = (draw(*images), draw(*kernels)), (draw(*images) + 1, draw(*kernels) - 1)
    run = jax.jit(lambda f: jax.jvp(f, primals, tangents), static_argnums=0)
    ours, expected = both(strides, padding)
    close(run(ours), run(expected))


def test_patches_are_windows() -> None:
    x = draw(2, 7, 6, 3)
    patches = im2col(x, (3, 2), (2, 1))
    assert patches.shape == (2, 3, 5, 3 * 2 * 3)
    np.testing.assert_array_equal(patches[1, 2, 3], x[1, 4:7, 3:5].reshape(-1))


@pytest.mark.parametrize("padding", ["SAME", "VALID", 1, ((1, 0), (2, 1))])
def test_a_drop_in_for_linen(padding: Any, cpu: None) -> None:
    x = draw(2, 8, 8, 3)
    options = {"features": 4, "kernel_size": (3, 3), "strides": 2, "padding": padding, "param_dtype": jnp.float64}
    stock, ours = nn.Conv(**options), nn.Conv(**options, conv_general_dilated=conv_general_dilated)
    variables = stock.init(jax.random.key(0), x)
    run = jax.jit(lambda model, x: (model.apply(variables, x), model.apply(variables, x[0])), static_argnums=0)
    close(run(ours, x), run(stock, x))  # without a batch axis, Linen adds one
    assert "conv_general_dilated" not in primitives(lambda x: ours.apply(variables, x), x)


@pytest.mark.parametrize(
    "images, kernels, options",
    [
        ((2, 6, 6, 4), (3, 3, 4, 4), {"batch_group_count": 2}),
        ((1, 6, 6, 4), (3, 3, 4, 2), {"rhs_dilation": (2, 2)}),
        ((1, 6, 6, 4), (3, 3, 4, 2), {"lhs_dilation": (2, 1)}),
        ((1, 4, 6, 6), (2, 4, 3, 3), {"dimension_numbers": None}),  # lax's default, NCHW
        ((1, 6, 4), (3, 4, 2), {"dimension_numbers": ("NHC", "HIO", "NHC")}),
    ],
)
def test_everything_else_goes_to_lax(images: Any, kernels: Any, options: Any) -> None:
    x, w, strides = draw(*images), draw(*kernels), (1,) * (len(images) - 2)
    padding = ((0, 1),) * len(strides)
    ours, expected = (partial(f, **options) for f in both(strides, padding))
    assert "conv_general_dilated" in primitives(ours, x, w)
    close(ours(x, w), expected(x, w))


def test_dilation_of_one_is_none(cpu: None) -> None:
    x, w = draw(1, 6, 6, 2), draw(3, 3, 2, 2)
    numbers = lax.conv_dimension_numbers(x.shape, w.shape, NHWC)
    ours, _ = both((1, 1), "SAME")
    ours = partial(ours, lhs_dilation=(1, 1), rhs_dilation=(1, 1), dimension_numbers=numbers)
    assert "conv_general_dilated" not in primitives(ours, x, w)


def test_other_platforms_keep_their_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ours, _ = both((1, 1), "SAME")
    assert "conv_general_dilated" in primitives(ours, draw(1, 6, 6, 2), draw(3, 3, 2, 2))


def test_accumulates_in_the_type_asked_for() -> None:
    x, w = draw(1, 6, 6, 2).astype(jnp.bfloat16), draw(3, 3, 2, 2).astype(jnp.bfloat16)
    wide = conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC, preferred_element_type=jnp.float32)
    expected = both((1, 1), "SAME")[1](x.astype(jnp.float32), w.astype(jnp.float32))
    assert wide.dtype == jnp.float32
    np.testing.assert_allclose(wide, expected, rtol=1e-5, atol=1e-5)
    assert conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC).dtype == jnp.bfloat16


@pytest.mark.parametrize("channels, features", [(2, 3), (3, 1)])
@pytest.mark.parametrize("size, stride, padding", [(4, 2, 1), (3, 2, 1), (2, 2, 0), (5, 3, 2), (3, 1, 1), (2, 3, 0)])
def test_the_transposed_convolution(size: int, stride: int, padding: int, channels: int, features: int) -> None:
    """By its definition, in a loop; and it is the transpose: the pullback of the convolution with the same kernel."""
    if size < stride:
        size = stride
    x, w = draw(2, 4, 5, channels), draw(size, size, channels, features)
    found = conv_transpose(x, w, (stride, stride), padding)
    full = np.zeros((2, stride * 3 + size, stride * 4 + size, features))
    for i in range(4):
        for j in range(5):
            rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
            full[:, rows, columns] += np.einsum("bc,uvco->buvo", x[:, i, j], w)
    close(found, full[:, padding : full.shape[1] - padding, padding : full.shape[2] - padding])

    def convolution(y: jax.Array) -> jax.Array:
        pads = [(padding, padding)] * 2
        return lax.conv_general_dilated(y, w.swapaxes(2, 3), (stride, stride), pads, dimension_numbers=NHWC)

    shape = jax.eval_shape(convolution, found).shape
    if shape == x.shape:
        close(found, jax.vjp(convolution, jnp.zeros(found.shape))[1](x)[0])


def test_the_transposed_convolution_under_vmap_and_twice_differentiated() -> None:
    x, w = draw(3, 2, 4, 4, 2), draw(3, 4, 4, 2, 3)
    together = jax.vmap(lambda x, w: conv_transpose(x, w, (2, 2), 1))(x, w)
    close(together[1], conv_transpose(x[1], w[1], (2, 2), 1))

    def penalty(w: jax.Array) -> jax.Array:
        slope = jax.grad(lambda x: jnp.sin(conv_transpose(x, w, (2, 2), 1)).sum())(x[0])
        return (slope**2).sum()

    towards, step = draw(4, 4, 2, 3), 1e-5
    numeric = (penalty(w[0] + step * towards) - penalty(w[0] - step * towards)) / (2 * step)
    np.testing.assert_allclose((jax.grad(penalty)(w[0]) * towards).sum(), numeric, rtol=1e-6)
