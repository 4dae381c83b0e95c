"""Resizing and sampling against PyTorch, jax.image, loops and planes, which interpolation reproduces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.resampling import bilinear_sample, pixel_shuffle, pixel_unshuffle, resize_bilinear, resize_nearest
from dlfx.types import UserError
from tests.compiling import quick

SIZES = [((5, 7), (10, 14)), ((5, 7), (8, 3)), ((6, 4), (3, 9)), ((1, 3), (4, 1)), ((4, 4), (4, 4))]
X = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)


def test_resizing_equals_pytorch():
    torch = pytest.importorskip("torch")
    ways = {
        "bilinear": (resize_bilinear, {"mode": "bilinear", "align_corners": False}),
        "aligned": (
            lambda x, size: resize_bilinear(x, size, align_corners=True),
            {"mode": "bilinear", "align_corners": True},
        ),
        "nearest": (resize_nearest, {"mode": "nearest"}),
    }
    images = [np.random.default_rng(1).normal(size=(2, *old, 3)).astype(np.float32) for old, _ in SIZES]
    pairs = list(zip(images, SIZES, strict=True))
    told = quick(lambda: {name: [f(x, new) for x, (_, new) in pairs] for name, (f, _) in ways.items()})()
    for name, (_, how) in ways.items():
        for (x, (old, new)), y in zip(pairs, told[name], strict=True):
            theirs = torch.nn.functional.interpolate(torch.tensor(x.transpose(0, 3, 1, 2)), new, **how)
            expected = theirs.numpy().transpose(0, 2, 3, 1)
            np.testing.assert_allclose(y, expected, atol=2e-6, err_msg=f"{name} {old} to {new}")


def test_resizing_by_its_definition():
    """Every output from where it lies; nearest to whole multiples is jax.image's too, and elsewhere is not."""
    rows, columns = np.arange(10) / 2 - 0.25, np.arange(21) / 3 - 1 / 3
    points = np.stack(np.meshgrid(np.clip(rows, 0, 4), np.clip(columns, 0, 6), indexing="ij"), -1)
    corners = np.stack(np.meshgrid(np.arange(9) * 4 / 8, np.arange(4) * 6 / 3, indexing="ij"), -1)

    @quick
    def run():
        resized = resize_bilinear(X, (10, 21)), resize_bilinear(X, (9, 4), align_corners=True)
        nearest = [
            (resize_nearest(X, size), jax.image.resize(X, (2, *size, 3), "nearest")) for size in ((10, 21), (8, 3))
        ]
        return resized, [bilinear_sample(X, jnp.array([p, p], jnp.float32)) for p in (points, corners)], nearest

    resized, sampled, (multiple, other) = run()
    for y, expected in zip(resized, sampled, strict=True):
        np.testing.assert_allclose(y, expected, atol=2e-6)
    np.testing.assert_array_equal(*multiple)
    assert not np.array_equal(*other)


def test_sampling_is_exact_on_the_grid_linear_between_and_zero_outside():
    plane = np.fromfunction(lambda r, s: 2 * r - 3 * s + 1, (6, 8))[None, :, :, None].astype(np.float32)
    points = np.random.default_rng(0).uniform((0, 0), (5, 7), (1, 50, 2)).astype(np.float32)
    sample = quick(bilinear_sample)
    values = sample(plane, points)[..., 0]
    np.testing.assert_allclose(values, 2 * points[..., 0] - 3 * points[..., 1] + 1, atol=1e-5)

    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(7.0), indexing="ij"), -1)
    np.testing.assert_array_equal(sample(X, jnp.array([grid, grid])), X)

    edge = jnp.array([[[-0.25, 2.0], [-1.0, 2.0], [5.5, 1.0], [2.0, 7.75], [-3.0, -9.0]]])
    told = sample(plane, edge)[0, :, 0]
    np.testing.assert_allclose(told, [0.75 * -5, 0, 0.5 * 8, 0.25 * -16, 0], atol=1e-5)


def test_the_gradient_by_the_point_is_that_of_finite_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(X, jnp.float64)
        points = jnp.asarray(np.random.default_rng(1).uniform(-1.5, 6.5, (2, 20, 2)))
        weights = jnp.asarray(np.random.default_rng(2).normal(size=(2, 20, 3)))

        @quick
        def run(x, points):
            f = lambda x, points: (bilinear_sample(x, points) * weights).sum()  # noqa: E731
            step = 1e-6 * jnp.asarray(np.random.default_rng(3).normal(size=points.shape))
            slope = jax.grad(f, 1)(x, points)
            return (
                (slope * step).sum(),
                (f(x, points + step) - f(x, points - step)) / 2,
                (jax.grad(f)(x, points) * x).sum(),
                f(x, points),
            )

        slope, central, linear, value = run(x, points)
        np.testing.assert_allclose(slope, central, rtol=1e-6)
        np.testing.assert_allclose(linear, value, rtol=1e-12)  # linear in the image


def test_pixels_shuffle_as_in_pytorch_and_back():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 18)).astype(np.float32)
    y = pixel_shuffle(x, 3)
    theirs = torch.nn.functional.pixel_shuffle(torch.tensor(x.transpose(0, 3, 1, 2)), 3).numpy()
    np.testing.assert_array_equal(y, theirs.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(pixel_unshuffle(y, 3), x)


def test_the_order_of_shuffled_pixels():
    x = np.arange(2 * 3 * 8).reshape(2, 3, 8)
    y = np.asarray(pixel_shuffle(x, 2))
    for i, j, c, u, v in np.ndindex(2, 3, 2, 2, 2):
        assert y[2 * i + u, 2 * j + v, c] == x[i, j, 4 * c + 2 * u + v]
    np.testing.assert_array_equal(pixel_unshuffle(y, 2), x)


def test_bad_sizes():
    for message, run in {
        "5 x 7 cannot be resized to 0 x 3": lambda: resize_bilinear(X, (0, 3)),
        "0 x 7 cannot be resized to 2 x 2": lambda: resize_nearest(X[:, :0], (2, 2)),
        "3 channels cannot become blocks of 2 x 2": lambda: pixel_shuffle(X, 2),
        "an image of 5 x 7 has no blocks of 2 x 2": lambda: pixel_unshuffle(X, 2),
    }.items():
        with pytest.raises(UserError, match=message):
            run()
