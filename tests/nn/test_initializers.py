"""Linen's initialisers: the variances of their papers, where the fan of a convolution counts the taps of its kernel."""

import flax.linen as nn
import jax
import numpy as np
import pytest

SHAPE = (3, 3, 32, 96)
FAN_IN, FAN_OUT = 9 * 32, 9 * 96


@pytest.mark.parametrize(
    "init, variance",
    [
        (nn.initializers.glorot_normal(), 2 / (FAN_IN + FAN_OUT)),
        (nn.initializers.glorot_uniform(), 2 / (FAN_IN + FAN_OUT)),
        (nn.initializers.he_normal(), 2 / FAN_IN),
        (nn.initializers.he_uniform(), 2 / FAN_IN),
        (nn.initializers.lecun_normal(), 1 / FAN_IN),
        (nn.initializers.orthogonal(), 1 / FAN_IN),
    ],
    ids=["xavier", "xavier uniform", "he", "he uniform", "lecun", "orthogonal"],
)
def test_the_variance(init, variance):
    kernel = np.asarray(init(jax.random.key(0), SHAPE))
    assert abs(kernel.mean()) < 4 * np.sqrt(variance / kernel.size)
    assert kernel.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / kernel.size))


def test_orthogonal_kernels_keep_lengths():
    kernel = np.asarray(nn.initializers.orthogonal()(jax.random.key(0), SHAPE)).reshape(FAN_IN, 96)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(96), atol=1e-5)
