"""The surfaces have the minima they say, and descent on them and on quadratics goes as theory says."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

from dlfx.ops.surfaces import SURFACES, beale, rosenbrock, saddle
from tests.compiling import quick


def descend(value, start, rate, steps, noise=0.0, key=None):
    """The points `[steps + 1, ...]` of gradient descent."""

    def body(x, i):
        g = jax.grad(value)(x)
        if noise:
            g = g + noise * jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        return x - rate * g, x

    last, path = jax.lax.scan(body, start, jnp.arange(steps))
    return jnp.concatenate([path, last[None]])


@pytest.mark.parametrize("name", SURFACES)
def test_minima(name):
    surface = SURFACES[name]
    with jax.enable_x64(True):
        for minimum in surface.minima:
            at = jnp.array(minimum)
            np.testing.assert_allclose(surface.value(at), surface.least, atol=1e-15)
            np.testing.assert_allclose(jax.grad(surface.value)(at), 0, atol=1e-14)
            assert (jnp.linalg.eigvalsh(jax.hessian(surface.value)(at)) > 0).all()
        left, right, bottom, top = surface.box
        grid = jnp.stack(jnp.meshgrid(jnp.linspace(left, right, 201), jnp.linspace(bottom, top, 201)), -1)
        assert surface.value(grid).shape == (201, 201) and surface.value(grid).min() >= surface.least - 1e-12
        value, slope = jax.jit(surface.value), jax.jit(jax.grad(surface.value))
        found = optimize.minimize(
            lambda x: float(value(x)), np.array(surface.start), jac=lambda x: np.asarray(slope(x))
        )
    assert min(np.linalg.norm(found.x - np.array(minimum)) for minimum in surface.minima) < 1e-4


def test_values():
    np.testing.assert_allclose(rosenbrock(jnp.array([-1.2, 1.0])), optimize.rosen([-1.2, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(beale(jnp.array([1.0, 1.0])), 1.5**2 + 2.25**2 + 2.625**2)
    np.testing.assert_allclose(beale(jnp.array([2.0, -1.0])), (1.5 - 4) ** 2 + 2.25**2 + (2.625 - 4) ** 2)
    np.testing.assert_allclose(saddle(jnp.array([2.0, 2.0])), 2 + 4 - 2)
    assert (jnp.linalg.eigvalsh(jax.hessian(saddle)(jnp.zeros(2))) == jnp.array([-1, 1])).all()


def test_on_a_quadratic_every_eigenvector_shrinks_by_one_minus_rate_times_eigenvalue():
    """x_t - x* = (1 - eta lambda)^t (x_0 - x*) along each of them; beyond eta = 2 / lambda_max it grows."""
    with jax.enable_x64(True):
        rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        eigenvalues, optimum = np.array([0.2, 1.0, 5.0]), np.array([1.0, -2.0, 0.5])
        matrix = jnp.asarray(rotation @ np.diag(eigenvalues) @ rotation.T)
        start = jnp.array([3.0, 1.0, -1.0])

        def value(x):
            return (x - optimum) @ matrix @ (x - optimum) / 2

        t = np.arange(41)[:, None]
        for rate in (0.1, 0.39, 0.42):
            path = np.asarray(quick(lambda x, rate=rate: descend(value, x, rate, 40))(start))
            wanted = (1 - rate * eigenvalues) ** t * (rotation.T @ (np.asarray(start) - optimum))
            np.testing.assert_allclose((path - optimum) @ rotation, wanted, rtol=1e-9, atol=1e-12)
            fast = abs((path - optimum) @ rotation[:, 2])
            assert (fast[-1] < fast[0]) == (rate < 2 / 5)
        best = 2 / (0.2 + 5.0)  # the contraction is then (kappa - 1) / (kappa + 1) in both extremes
        path = np.asarray(quick(lambda x: descend(value, x, best, 40))(start)) - optimum
        ratio = np.linalg.norm(path[40]) / np.linalg.norm(path[39])
        np.testing.assert_allclose(ratio, (25 - 1) / (25 + 1), rtol=1e-6)


def test_noise_leaves_a_saddle_where_the_full_gradient_stays():
    """Begun on the line that leads into the saddle, exact descent ends there; descent with noisy gradients does not."""
    start = jnp.array([1.5, 0.0])
    exact = np.asarray(quick(lambda x: descend(saddle, x, 0.1, 400))(start))
    assert (exact[:, 1] == 0).all() and np.linalg.norm(exact[-1]) < 1e-6
    keys = jax.random.split(jax.random.key(0), 32)
    noisy = np.asarray(quick(jax.vmap(lambda key: descend(saddle, start, 0.1, 400, 0.01, key)[-1]))(keys))
    distance = np.minimum(np.linalg.norm(noisy - [0, 1], axis=-1), np.linalg.norm(noisy - [0, -1], axis=-1))
    assert (distance < 0.05).all()
    assert 4 < (noisy[:, 1] > 0).sum() < 28  # chance picks the side


def test_sgd_of_optax_is_that_descent():
    rule = optax.sgd(1e-3)

    def body(carry, _):
        x, state = carry
        updates, state = rule.update(jax.grad(rosenbrock)(x), state)
        return (optax.apply_updates(x, updates), state), None

    start = jnp.array([-1.2, 1.0])
    ours = quick(lambda x: descend(rosenbrock, x, 1e-3, 100)[-1])(start)
    theirs = quick(lambda x: jax.lax.scan(body, (x, rule.init(x)), None, 100)[0][0])(start)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
