"""Max-pooling over the edge, against loops over the windows that the rule admits and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.ceil_pooling import max_pool_ceil
from dlfx.types import UserError

# Sides, window, stride, padding: windows that end at the edge, reach over it, and would begin beyond it.
CASES = [(7, 8, 3, 2, 0), (6, 5, 2, 2, 0), (2, 3, 3, 2, 0), (6, 7, 3, 2, 1), (5, 4, 2, 3, 1), (1, 2, 2, 2, 0)]


@pytest.mark.parametrize("height, width, window, stride, padding", CASES)
def test_windows_begin_in_the_image_and_cover_it(height: int, width: int, window: int, stride: int, padding: int):
    x = -1 - np.random.default_rng(0).uniform(size=(2, height, width, 3)).astype(
        np.float32
    )  # below zero, as zeros hide

    def starts(side: int) -> list[int]:
        reached, found = -padding, []
        while reached < side and (not found or found[-1] + window < side + padding):
            found.append(reached)
            reached += stride
        return found

    rows, columns = starts(height), starts(width)
    expected = [[x[:, max(0, i) : i + window, max(0, j) : j + window].max((1, 2)) for j in columns] for i in rows]
    y = max_pool_ceil(jnp.asarray(x), window, stride, padding)
    np.testing.assert_array_equal(y, np.array(expected).transpose(2, 0, 1, 3))


@pytest.mark.parametrize("height, width, window, stride, padding", CASES)
def test_pytorch_s_ceil_mode(height: int, width: int, window: int, stride: int, padding: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32) - 3
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = torch.nn.functional.max_pool2d(theirs, window, stride, padding, ceil_mode=True)
    y.square().sum().backward()
    ours, pull = jax.vjp(lambda x: max_pool_ceil(x, window, stride, padding), x)
    np.testing.assert_array_equal(ours, y.detach().numpy().transpose(0, 2, 3, 1))
    np.testing.assert_allclose(pull(2 * ours)[0], theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6)


def test_an_image_without_a_window() -> None:
    with pytest.raises(UserError, match=r"max-pooling by 3 of stride 2 leaves nothing of \[1, 4\]"):
        max_pool_ceil(jnp.ones((1, 1, 4, 2)), 3, 2)
