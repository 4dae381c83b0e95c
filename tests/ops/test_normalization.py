"""Local response normalisation against its formula in loops and against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.normalization import local_response_norm
from dlfx.types import UserError


@pytest.mark.parametrize("size", [1, 4, 5, 20])
def test_the_formula(size: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 9))
    expected = np.empty_like(x)
    for c in range(9):
        near = x[..., max(0, c - size // 2) : c - size // 2 + size]
        expected[..., c] = x[..., c] / (2 + 0.3 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(local_response_norm(jnp.float32(x), size, alpha=0.3), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 5])
def test_pytorch_s_takes_alpha_times_the_size(size: int) -> None:
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 7)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    y = torch.nn.functional.local_response_norm(theirs, size, alpha=0.1 * size, beta=0.6, k=1.5)
    (y * torch.tensor(weights.transpose(0, 3, 1, 2))).sum().backward()
    ours, pull = jax.vjp(lambda x: local_response_norm(x, size, 0.1, 0.6, 1.5), x)
    np.testing.assert_allclose(ours, y.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pull(weights)[0], theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)


def test_no_channels_to_sum_over() -> None:
    with pytest.raises(UserError, match="at least 1 channel; got 0"):
        local_response_norm(jnp.ones((1, 1)), 0)
