"""Adaptive pooling against loops over the bins, against PyTorch, and the lengths that the paper tells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.adaptive_pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
    global_avg_pool,
    global_max_pool,
    spatial_pyramid_pool,
)
from dlfx.ops.pooling import max_pool
from dlfx.types import UserError
from tests.compiling import quick

POOLS = {"avg": adaptive_avg_pool, "max": adaptive_max_pool}
# sides, size: dividing, overlapping bins, repeated bins, one side kept, the whole image
CASES = [((6, 8), (3, 4)), ((7, 10), (3, 4)), ((2, 3), (5, 7)), ((5, 4), (None, 3)), ((4, 6), 1), ((13, 13), 6)]


def loop(x: np.ndarray, rows: int, columns: int, reduce) -> np.ndarray:
    height, width = x.shape[1:3]
    y = np.empty((len(x), rows, columns, x.shape[3]))
    for i, j in np.ndindex(rows, columns):
        top, bottom = int(np.floor(i * height / rows)), int(np.ceil((i + 1) * height / rows))
        left, right = int(np.floor(j * width / columns)), int(np.ceil((j + 1) * width / columns))
        y[:, i, j] = reduce(x[:, top:bottom, left:right], axis=(1, 2))
    return y


def both(size, sides):
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows or sides[0], columns or sides[1]


@pytest.mark.parametrize("kind", POOLS)
def test_it_equals_the_loop(kind):
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(2, *sides, 3)).astype(np.float32) for sides, _ in CASES]
    pooled = quick(lambda images: [POOLS[kind](x, size) for x, (_, size) in zip(images, CASES, strict=True)])(images)
    for x, y, (sides, size) in zip(images, pooled, CASES, strict=True):
        expected = loop(x, *both(size, sides), {"avg": np.mean, "max": np.max}[kind])
        np.testing.assert_allclose(y, expected, atol=1e-6, err_msg=f"{sides} to {size}")


@pytest.mark.parametrize("kind", POOLS)
def test_it_equals_pytorch_in_value_and_gradient(kind):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    cases = [(sides, size, ties) for sides, size in CASES[1:4] for ties in (False, True)]
    images, weights, expected = [], [], []
    for sides, size, ties in cases:
        shape = (2, 3, *sides)
        x = (rng.integers(0, 2, shape) if ties else rng.normal(size=shape)).astype(np.float32)
        theirs = torch.tensor(x, requires_grad=True)
        out = {"avg": torch.nn.AdaptiveAvgPool2d, "max": torch.nn.AdaptiveMaxPool2d}[kind](size)(theirs)
        out.backward(torch.arange(out.numel(), dtype=torch.float32).reshape(out.shape))
        images.append(x.transpose(0, 2, 3, 1))
        weights.append(np.arange(out.numel(), dtype=np.float32).reshape(out.shape).transpose(0, 2, 3, 1))
        expected.append([t.numpy().transpose(0, 2, 3, 1) for t in (out.detach(), theirs.grad)])

    def run(x, weight, size):
        y, vjp = jax.vjp(lambda x: POOLS[kind](x, size), x)
        return y, vjp(weight)[0]

    told = quick(lambda xs, ws: [run(x, w, size) for x, w, (_, size, _) in zip(xs, ws, cases, strict=True)])
    for ours, theirs, case in zip(told(images, weights), expected, cases, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4, err_msg=str(case))


def test_global_pooling_is_a_grid_of_one():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(global_avg_pool(x), x.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(global_max_pool(x), x.max((1, 2)))


@pytest.mark.parametrize("levels, bins", [((6, 3, 2, 1), 50), ((4, 2, 1), 21)])
def test_a_pyramid_has_one_length_for_every_image(levels, bins):
    for sides in ((13, 13), (10, 7), (5, 24)):
        shape = jax.eval_shape(lambda x: spatial_pyramid_pool(x, levels), jnp.ones((2, *sides, 256))).shape
        assert shape == (2, bins * 256)  # 12,800 of the paper for the first


def test_a_pyramid_is_its_levels_one_after_the_other():
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype(np.float32)
    expected = [loop(x, n, n, np.max).reshape(2, -1) for n in (3, 1)]
    np.testing.assert_array_equal(quick(lambda x: spatial_pyramid_pool(x, (3, 1)))(x), np.concatenate(expected, 1))
    mean = spatial_pyramid_pool(x[0], (1,), adaptive_avg_pool)
    np.testing.assert_allclose(mean, x[0].mean((0, 1)), atol=1e-6)


def test_on_13_by_13_the_bins_are_the_paper_s_sliding_windows():
    """Windows of ceil(a / n) at steps of floor(a / n). Elsewhere, as at a = 10 and n = 6, those are not n x n."""
    x = np.random.default_rng(0).normal(size=(1, 13, 13, 2)).astype(np.float32)
    ours, windows = quick(
        lambda x: [
            [f(x, n) for n in (6, 3, 2, 1)] for f in (adaptive_max_pool, lambda x, n: max_pool(x, -(-13 // n), 13 // n))
        ]
    )(x)
    jax.tree.map(np.testing.assert_array_equal, ours, windows)
    assert jax.eval_shape(lambda x: max_pool(x, 2, 1), jnp.ones((1, 10, 10, 1))).shape[1] == 9


def test_bad_sizes():
    x = jnp.ones((1, 4, 4, 1))
    with pytest.raises(UserError, match="4 pixels cannot be pooled to 0 bins"):
        adaptive_avg_pool(x, (2, 0))
    with pytest.raises(UserError, match="a side of 0 pixels"):
        adaptive_max_pool(x[:, :0], 2)
    with pytest.raises(UserError, match="at least one level"):
        spatial_pyramid_pool(x, ())
