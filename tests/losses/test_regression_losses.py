"""Losses of regression against their definitions one number at a time, scikit-learn, SciPy and PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import huber as scipy_huber
from sklearn.metrics import mean_absolute_error, mean_squared_error

from dlfx.losses import regression
from dlfx.types import UserError
from tests.compiling import quick

RNG = np.random.default_rng(0)
Y, A = RNG.normal(size=(2, 6, 3)) * 2
TABLE = {
    "squared_error": ({}, lambda e: e * e, lambda e: 2 * e),
    "half_squared_error": ({}, lambda e: e * e / 2, lambda e: e),
    "absolute_error": ({}, lambda e: e if e > 0 else -e, lambda e: 1 if e > 0 else -1),
    "huber": (
        {"delta": 0.7},
        lambda e: e * e / 2 if abs(e) <= 0.7 else 0.7 * (abs(e) - 0.35),
        lambda e: min(max(e, -0.7), 0.7),
    ),
    "smooth_l1": (
        {"beta": 0.7},
        lambda e: e * e / 1.4 if abs(e) < 0.7 else abs(e) - 0.35,
        lambda e: min(max(e / 0.7, -1), 1),
    ),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients_are_the_definition_of_each_number(name, dtype):
    options, value, slope = TABLE[name]
    with jax.enable_x64(dtype == np.float64):
        y, a, tolerance = jnp.array(Y, dtype), jnp.array(A, dtype), 100 * np.finfo(dtype).eps

        def loss(y, a):
            return getattr(regression, name)(y, a, **options)

        found = quick(loss)(y, a)
        assert found.shape == y.shape and found.dtype == dtype
        np.testing.assert_allclose(found, np.vectorize(value)(Y - A), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(jax.vmap(loss)(y, a), found, rtol=tolerance)
        towards_y, towards_a = jax.grad(lambda y, a: loss(y, a).sum(), (0, 1))(y, a)
        np.testing.assert_allclose(towards_y, np.vectorize(slope)(Y - A), rtol=tolerance, atol=tolerance)
        np.testing.assert_array_equal(towards_a, -towards_y)
        for extreme in (0.0, 1e4, -1e4):
            slope = jax.grad(loss)(jnp.array(extreme, dtype), jnp.array(0, dtype))
            assert np.isfinite(slope) and (extreme or slope == 0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_costs_are_means_of_losses_and_squares_and_their_mean_are_one_thing(dtype):
    """MSE is the mean of the squared losses: whatever lists both lists one loss twice. So with MAE."""
    with jax.enable_x64(dtype == np.float64):
        y, a = jnp.array(Y, dtype), jnp.array(A, dtype)
        rtol = 20 * np.finfo(dtype).eps
        mse, mae = quick(regression.mean_squared_error)(y, a), quick(regression.mean_absolute_error)(y, a)
        assert mse.shape == mae.shape == () and mse.dtype == mae.dtype == dtype
        np.testing.assert_allclose(mse, mean_squared_error(A, Y), rtol=rtol)
        np.testing.assert_allclose(mae, mean_absolute_error(A, Y), rtol=rtol)
        # The cost is the mean over examples of what each loses, in whatever order the two means are taken.
        np.testing.assert_allclose(mse, jax.vmap(regression.mean_squared_error)(y, a).mean(), rtol=rtol)
        np.testing.assert_allclose(mse, 2 * regression.half_squared_error(y, a).mean(), rtol=rtol)
        step = jax.grad(regression.mean_squared_error)(y, a)
        np.testing.assert_allclose(step, 2 * (Y - A) / Y.size, rtol=rtol, atol=rtol)


def test_huber_is_scipy_s_and_smooth_l1_is_huber_over_beta():
    e = jnp.linspace(-3, 3, 61)
    zero = jnp.zeros(61)
    for delta in (0.3, 1.0, 2.5):
        np.testing.assert_allclose(regression.huber(e, zero, delta), scipy_huber(delta, np.asarray(e)), atol=1e-6)
        np.testing.assert_allclose(
            regression.smooth_l1(e, zero, delta) * delta, regression.huber(e, zero, delta), atol=1e-6
        )
    np.testing.assert_allclose(regression.smooth_l1(e, zero), regression.huber(e, zero))
    np.testing.assert_allclose(regression.smooth_l1(e, zero, 1e-6), regression.absolute_error(e, zero), atol=1e-6)
    np.testing.assert_allclose(regression.huber(e, zero, 1e3), regression.half_squared_error(e, zero))


def test_losses_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    y, a = torch.tensor(Y), torch.tensor(A)
    with jax.enable_x64(True):
        for ours, theirs in [
            (regression.squared_error(Y, A), functional.mse_loss(y, a, reduction="none")),
            (regression.absolute_error(Y, A), functional.l1_loss(y, a, reduction="none")),
            (regression.huber(Y, A, 0.7), functional.huber_loss(y, a, reduction="none", delta=0.7)),
            (regression.smooth_l1(Y, A, 0.7), functional.smooth_l1_loss(y, a, reduction="none", beta=0.7)),
            (regression.mean_squared_error(Y, A), functional.mse_loss(y, a)),
        ]:
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", [*TABLE, "mean_squared_error", "mean_absolute_error"])
def test_a_column_is_no_row(name):
    with pytest.raises(UserError, match=r"predictions \(4, 1\) and targets \(4,\) must have one shape"):
        getattr(regression, name)(jnp.zeros((4, 1)), jnp.zeros(4))


@pytest.mark.parametrize("width", [0.0, -1.0, float("nan")])
def test_widths_are_positive(width):
    with pytest.raises(UserError, match="delta is .* must be positive"):
        regression.huber(jnp.zeros(1), jnp.zeros(1), width)
    with pytest.raises(UserError, match="beta is .* must be positive"):
        regression.smooth_l1(jnp.zeros(1), jnp.zeros(1), width)
