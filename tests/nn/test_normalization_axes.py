"""Over which axes a norm takes its statistics: batch (N, H, W), layer (H, W, C), instance (H, W), group (H, W, C/G)."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from dlfx.nn.normalization import BatchNorm
from tests.compiling import quick

X = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 8)).astype(np.float32)
LAYER = nn.LayerNorm(reduction_axes=(1, 2, 3), feature_axes=-1, epsilon=1e-5)
NORMS = {
    "batch": (BatchNorm(use_running_average=False), (0, 1, 2)),
    "layer": (LAYER, (1, 2, 3)),
    "instance": (nn.InstanceNorm(epsilon=1e-5), (1, 2)),
    "group": (nn.GroupNorm(2, epsilon=1e-5), None),
    "group of all": (nn.GroupNorm(1, epsilon=1e-5), (1, 2, 3)),
    "groups of one": (nn.GroupNorm(8, epsilon=1e-5), (1, 2)),
}


@pytest.fixture(scope="module")
def told():
    """By name: what becomes of X, and of X with another second image."""
    other = X.copy()
    other[1] *= 3

    @quick
    def run(x, other):
        found = {}
        for name, (norm, _) in NORMS.items():
            variables = norm.init(jax.random.key(0), x)
            found[name] = [norm.apply(variables, images, mutable=["batch_stats"])[0] for images in (x, other)]
        return found

    return jax.tree.map(np.asarray, run(X, other))


def test_the_axes(told):
    for name, (_, axes) in NORMS.items():
        if axes:
            expected = (X - X.mean(axes, keepdims=True)) / np.sqrt(X.var(axes, keepdims=True) + 1e-5)
            np.testing.assert_allclose(told[name][0], expected, atol=2e-5, err_msg=name)
    groups = X.reshape(4, 5, 6, 2, 4)
    expected = (groups - groups.mean((1, 2, 4), keepdims=True)) / groups.std((1, 2, 4), keepdims=True)
    np.testing.assert_allclose(told["group"][0], expected.reshape(X.shape), atol=1e-4)


def test_one_group_is_layer_norm_and_as_many_as_channels_instance_norm(told):
    np.testing.assert_allclose(told["group of all"][0], told["layer"][0], atol=1e-5)
    np.testing.assert_allclose(told["groups of one"][0], told["instance"][0], atol=1e-5)


def test_only_batch_norm_sees_the_other_images(told):
    for name, (before, after) in told.items():
        assert np.array_equal(before[[0, 2, 3]], after[[0, 2, 3]]) == (name != "batch"), name


def test_without_scale_and_bias_everything_has_mean_0_and_variance_1_and_is_not_within_0_and_1(told):
    y = told["batch"][0]
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-4)
    assert ((y < 0) | (y > 1)).mean() > 0.5  # of N(0, 1): 0.659


def test_they_equal_pytorch(told):
    torch = pytest.importorskip("torch")
    x = torch.tensor(X.transpose(0, 3, 1, 2))
    for name, layer in {
        "batch": torch.nn.BatchNorm2d(8), "layer": torch.nn.LayerNorm((8, 5, 6)),
        "instance": torch.nn.InstanceNorm2d(8), "group": torch.nn.GroupNorm(2, 8),
    }.items():  # fmt: skip
        theirs = layer(x).detach().numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(told[name][0], theirs, atol=2e-5, err_msg=name)
