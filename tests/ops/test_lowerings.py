"""Convolutions on CPU, shape by shape: each way to compute them equals lax's, gradients and all."""

import os
import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dlfx.learners.norms import global_norm
from dlfx.nn.convolution import Conv
from dlfx.ops import convolution, winograd
from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import UserError
from tests.compiling import quick

# images [B, H, W, C], kernel [kh, kw, C / groups, O], stride, padding, groups
SHAPES = {
    "winograd": ((2, 17, 18, 64), (3, 3, 64, 64), 1, 1, 1),
    "winograd, padding 0": ((8, 10, 8, 64), (3, 3, 64, 72), 1, 0, 1),
    "XLA's": ((2, 6, 5, 64), (3, 3, 64, 80), 1, 1, 1),
    "XLA's, strided": ((2, 9, 8, 64), (3, 3, 64, 64), 2, 1, 1),
    "patches": ((2, 2, 2, 32), (3, 3, 32, 48), 1, 1, 1),
    "1x1, strided": ((2, 5, 6, 8), (1, 1, 8, 12), 2, 0, 1),
    "blocks": ((2, 8, 8, 3), (4, 4, 3, 5), 2, 1, 1),
    "depthwise": ((2, 7, 6, 10), (3, 3, 1, 10), 1, 1, 10),
    "depthwise, strided": ((2, 7, 8, 10), (3, 3, 1, 10), 2, 1, 10),
    "depthwise, two of each": ((2, 5, 6, 4), (3, 3, 1, 8), 1, 1, 4),
    "groups": ((2, 6, 6, 12), (3, 3, 4, 6), 1, 1, 3),
    "groups, strided": ((2, 6, 7, 12), (3, 3, 4, 6), 2, 1, 3),
}


def case(name: str, dtype: Any = np.float32) -> tuple[Any, Any, Any, Any]:
    """(ours, lax's, images, kernel)."""
    images, kernel, stride, padding, groups = SHAPES[name]
    rng = np.random.default_rng(0)
    options = {"window_strides": (stride,) * 2, "padding": ((padding,) * 2,) * 2, "feature_group_count": groups}
    options["dimension_numbers"] = convolution.NHWC
    both = [partial(f, **options) for f in (conv_general_dilated, lax.conv_general_dilated)]
    return *both, rng.standard_normal(images).astype(dtype), rng.standard_normal(kernel).astype(dtype)


def close(found: Any, expected: Any, tolerance: float) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * float(jnp.abs(b).max()))


def with_gradients(f: Any, x: Any, w: Any) -> Any:
    """The value, the gradients of its weighted sum, and a directional derivative."""
    shape = jax.eval_shape(f, x, w).shape
    weights = np.random.default_rng(1).standard_normal(shape).astype(x.dtype)
    value, pull = jax.vjp(f, x, w)
    return value, pull(jnp.asarray(weights)), jax.jvp(f, (x, w), (jnp.cos(x), jnp.sin(w)))[1]


@pytest.mark.parametrize("name", SHAPES)
def test_every_way_equals_lax_in_float32(name: str) -> None:
    ours, theirs, x, w = case(name)
    close(quick(partial(with_gradients, ours))(x, w), quick(partial(with_gradients, theirs))(x, w), 1e-5)


@pytest.mark.parametrize("name", ["winograd", "depthwise, strided", "patches", "groups"])
def test_gradients_of_gradients_in_float64(name: str) -> None:
    with jax.enable_x64(True):
        ours, theirs, x, w = case(name, np.float64)

        def penalty(f: Any, x: Any, w: Any) -> Any:
            def loss(x: Any, w: Any) -> Any:
                return jnp.tanh(f(x, w)).sum()

            return sum((gradient**2).sum() for gradient in jax.grad(loss, (0, 1))(x, w))

        found, expected = (quick(jax.grad(partial(penalty, f), (0, 1)))(x, w) for f in (ours, theirs))
        close(found, expected, 1e-9)


@pytest.mark.parametrize("name", ["XLA's", "patches", "depthwise"])
def test_a_population_and_a_scan_equal_the_members(name: str) -> None:
    ours, theirs, x, w = case(name)
    xs, ws = np.stack([x, 2 * x]), np.stack([w, w[::-1]])
    gradients = jax.grad(lambda f, x, w: (f(x, w) ** 2).mean(), (1, 2))
    members = [gradients(theirs, x, w) for x, w in zip(xs, ws, strict=True)]
    expected = jax.tree.map(lambda *rows: jnp.stack(rows), *members)
    close(quick(jax.vmap(partial(gradients, ours)))(xs, ws), expected, 2e-5)
    scanned = quick(lambda xs, ws: lax.scan(lambda c, xw: (c, gradients(ours, *xw)), 0, (xs, ws))[1])(xs, ws)
    close(scanned, expected, 2e-5)
    shared = quick(jax.vmap(ours, (0, None)))(xs, w)
    close(shared, jnp.stack([theirs(x, w) for x in xs]), 1e-5)


def test_winograds_matrices_multiply_polynomials() -> None:
    """`A^T [(G g) * (B^T d)]` is the correlation, for other sizes and points too."""
    rng = np.random.default_rng(0)
    for outputs, taps, points in ((4, 3, winograd.POINTS), (2, 3, (0, 1, -1)), (3, 4, (0, 1, -1, 2, -2))):
        a, g, b = winograd.cook_toom(points, outputs, taps)
        data, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
        np.testing.assert_allclose(a @ ((g @ kernel) * (b @ data)), np.correlate(data, kernel, "valid"), atol=1e-12)
    assert SHAPES["winograd"][0][3] == 64 and convolution._is_for_winograd(2, (3, 3, 64, 64), (17, 18))


def test_off_the_cpu_lax_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for name in SHAPES:
        ours, theirs, x, w = case(name)
        assert str(jax.make_jaxpr(ours)(x, w)) == str(jax.make_jaxpr(theirs)(x, w)), name


@pytest.mark.parametrize("large", [64, 1000])  # 24 * 16 is large, or small
def test_dense_layers_equal_lax(monkeypatch: pytest.MonkeyPatch, large: int) -> None:
    monkeypatch.setattr(convolution, "LARGE", large)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 24), np.float32), rng.standard_normal((24, 16), np.float32)
    numbers = (((2,), (0,)), ((), ()))
    found, expected = (
        with_gradients(lambda x, w, f=f: f(x, w, numbers), x, w) for f in (convolution.dense, lax.dot_general)
    )
    close(found, expected, 1e-5)


def test_the_norm_of_a_gradient() -> None:
    rng = np.random.default_rng(0)
    tree = {"large": rng.standard_normal((64, 1056), np.float32), "small": rng.standard_normal((7, 3), np.float32)}
    assert tree["large"].size >= 32 * 2048
    flat = np.concatenate([leaf.ravel() for leaf in tree.values()]).astype(np.float64)
    np.testing.assert_allclose(jax.jit(global_norm)(tree), np.linalg.norm(flat), rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "kernel", "strides", "groups", "said"),
    [
        ((1, 5, 5, 4), (3, 3, 4, 8), (0, 1), 1, "strides of [0, 1]: a convolution moves by at least 1"),
        ((1, 5, 5, 4), (3, 3, 1, 8), (1, 1), 3, "3 groups do not divide 4 channels into 8 features"),
        (
            (1, 5, 5, 4),
            (3, 3, 3, 8),
            (1, 1),
            1,
            "kernels that read 3 channels in 1 groups do not fit images of 4 channels",
        ),
        (
            (1, 5, 2, 4),
            (3, 3, 4, 8),
            (1, 1),
            1,
            "a kernel of [3, 3] does not fit into images of [5, 2], padding included",
        ),
    ],
)
def test_bad_input_is_named(images: Any, kernel: Any, strides: Any, groups: int, said: str) -> None:
    with pytest.raises(UserError) as error:
        conv_general_dilated(
            jnp.zeros(images),
            jnp.zeros(kernel),
            strides,
            "VALID",
            dimension_numbers=convolution.NHWC,
            feature_group_count=groups,
        )
    assert str(error.value) == said


def test_a_sharded_batch_equals_one_device() -> None:
    """Eight virtual devices: in a process of its own, see tests/experiments/test_devices.py for whole networks."""
    program = """
import dlfx, jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from dlfx.nn.convolution import Conv
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
for options in ({"features": 64}, {"features": 64, "feature_group_count": 64}, {"features": 32, "strides": 2}):
    layer = Conv(kernel_size=(3, 3), padding=1, **options)
    x = np.random.default_rng(0).standard_normal((8, 16, 16, 64)).astype(np.float32)
    variables = layer.init(jax.random.key(0), x)
    gradient = jax.jit(jax.grad(lambda v, x: (layer.apply(v, x) ** 2).sum()))
    one = gradient(variables, x)
    many = gradient(variables, jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many)):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max(), options
print("equal")
"""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "equal", done.stderr
    assert Conv.keywords["conv_general_dilated"] is conv_general_dilated
