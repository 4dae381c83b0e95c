"""Max-pooling with its places and unpooling: against max_pool, PyTorch, and what is left of an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.pooling import max_pool
from dlfx.ops.unpooling import max_pool_with_argmax, max_unpool
from dlfx.types import UserError
from tests.compiling import quick

NONE = ((0, 0), (0, 0))
# sides, window, stride, padding
CASES = [((6, 8), 2, None, NONE), ((7, 6), (3, 2), (2, 1), NONE), ((8, 8), 3, 2, ((1, 1), (1, 1)))]


def image(sides, ties, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 2, (2, *sides, 3)) if ties else rng.normal(size=(2, *sides, 3))
    return x.astype(np.float32)


@pytest.mark.parametrize("ties", [False, True])
def test_the_indices_point_at_the_maxima_and_the_gradient_goes_there(ties):
    images = [image(sides, ties) for sides, *_ in CASES]

    def run(x, how):
        def both(x):
            y, indices = max_pool_with_argmax(x, *how)
            return (y * jnp.arange(1.0, 1 + y.size).reshape(y.shape)).sum(), (y, indices)

        gradient, (y, indices) = jax.grad(both, has_aux=True)(x)
        expected = jax.grad(
            lambda x: (z := max_pool(x, *how), (z * jnp.arange(1.0, 1 + z.size).reshape(z.shape)).sum())[1]
        )
        return y, indices, gradient, max_pool(x, *how), expected(x)

    told = quick(lambda xs: [run(x, how) for x, (_, *how) in zip(xs, CASES, strict=True)])(images)
    for x, (y, indices, gradient, pooled, expected) in zip(images, told, strict=True):
        flat, shape = x.reshape(2, -1, 3), y.shape
        np.testing.assert_array_equal(
            np.take_along_axis(flat, np.asarray(indices).reshape(2, -1, 3), 1).reshape(shape), y
        )
        np.testing.assert_array_equal(y, pooled)
        np.testing.assert_array_equal(gradient, expected)  # where the first maximum is


def test_it_equals_pytorch():
    torch = pytest.importorskip("torch")
    images = [image(sides, ties=True) for sides, *_ in CASES]

    def run(x, sides, *how):
        y, indices = max_pool_with_argmax(x, *how)
        return indices, max_unpool(y, indices, sides)

    told = quick(lambda xs: [run(x, *case) for x, case in zip(xs, CASES, strict=True)])(images)
    for x, ours, (sides, window, stride, padding) in zip(images, told, CASES, strict=True):
        how = (window, stride, padding[0][0])
        theirs, places = torch.nn.functional.max_pool2d(
            torch.tensor(x.transpose(0, 3, 1, 2)), *how, return_indices=True
        )
        theirs = torch.nn.functional.max_unpool2d(theirs, places, *how, output_size=sides)
        for a, b in zip(ours, (places, theirs), strict=True):
            np.testing.assert_array_equal(a, b.numpy().transpose(0, 2, 3, 1))


pool_by_2 = quick(lambda x: max_pool_with_argmax(x, 2))
unpool_to_6_by_8 = quick(lambda y, indices: max_unpool(y, indices, (6, 8)))


def test_unpooling_keeps_exactly_the_maxima():
    x = image((6, 8), ties=False)
    y, indices = pool_by_2(x)
    back = unpool_to_6_by_8(y, indices)
    largest = np.asarray(y).repeat(2, 1).repeat(2, 2)
    np.testing.assert_array_equal(back, np.where(x == largest, x, 0))
    again, same = pool_by_2(np.abs(x))
    np.testing.assert_array_equal(pool_by_2(unpool_to_6_by_8(again, same))[0], again)
    single = max_unpool(y[0], indices[0], (6, 8))  # no batch
    np.testing.assert_array_equal(single, back[0])


def test_the_gradient_of_unpooling_is_read_where_values_were_put():
    x = image((6, 8), ties=False)
    y, indices = pool_by_2(x)
    weights = image((6, 8), ties=False, seed=1)
    gradient = quick(jax.grad(lambda y: (max_unpool(y, indices, (6, 8)) * weights).sum()))(y)
    np.testing.assert_array_equal(
        gradient,
        np.take_along_axis(weights.reshape(2, -1, 3), np.asarray(indices).reshape(2, -1, 3), 1).reshape(y.shape),
    )


def test_padding_is_never_the_maximum():
    @quick
    def run():
        lowest, special, integers = (
            np.full((1, 2, 2, 1), -np.inf, np.float32),
            np.array([[[1.0], [np.nan]], [[2.0], [3.0]]], np.float32),
            np.array([[[3], [-8]], [[-5], [4]]], np.int8),
        )
        return (
            max_pool_with_argmax(lowest, 2, 2, ((1, 1), (1, 1)))[1],
            max_pool_with_argmax(special, 2)[1],
            max_pool_with_argmax(integers, 2),
        )

    lowest, special, (largest, place) = run()
    np.testing.assert_array_equal(lowest[0, :, :, 0], [[0, 1], [2, 3]])
    assert special.item() == 1  # the NaN
    assert largest.dtype == jnp.int8 and (largest.item(), place.item()) == (4, 3)


def test_foreign_indices():
    y, indices = pool_by_2(image((8, 8), ties=False))
    with pytest.raises(UserError, match="one integer index for each value"):
        max_unpool(y, indices[:, :2], (8, 8))
    with pytest.raises(UserError, match="float32 do not belong together"):
        max_unpool(y, y, (8, 8))
    with pytest.raises(UserError, match=r"lies outside of an image of 4 x 4, whose last is 15"):
        max_unpool(y, indices, (4, 4))
    with pytest.raises(UserError, match="index -1 lies outside"):
        max_unpool(y, indices * 0 - 1, (8, 8))
    with pytest.raises(UserError, match="smaller than the window"):
        max_pool_with_argmax(y, 2, 2, ((2, 0), (0, 0)))
    kept = jax.jit(max_unpool, static_argnums=2)(y, indices - 20, (4, 8))  # nothing can be raised: dropped
    inside = (indices >= 20) & (indices < 20 + 32)
    np.testing.assert_allclose(kept.sum(), np.where(inside, y, 0).sum(), rtol=1e-5)
