"""Batch norm against Linen's, and what it is there for."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.nn.normalization import BatchNorm


@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5, 2)])
def test_it_is_linens(shape):
    x = 3 * jax.random.normal(jax.random.key(0), shape) + 1
    ours, theirs = (norm(use_running_average=False, momentum=0.8) for norm in (BatchNorm, nn.BatchNorm))
    variables = ours.init(jax.random.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(jax.random.key(1), x))
    weights = jax.random.normal(jax.random.key(2), (2, shape[-1]))
    variables["params"] = {"scale": weights[0], "bias": weights[1]}

    def run(norm):
        def loss(params, x):
            y, changed = norm.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return jnp.sin(y).sum(), (y, changed)

        return jax.grad(loss, (0, 1), has_aux=True)(variables["params"], x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), run(ours), run(theirs))
    still = BatchNorm(use_running_average=True).apply(variables, x)
    np.testing.assert_allclose(still, nn.BatchNorm(use_running_average=True).apply(variables, x), rtol=1e-5, atol=1e-6)


def test_moments_over_devices_are_those_of_the_whole_batch():
    x = jax.random.normal(jax.random.key(0), (6, 4))
    variables = BatchNorm().init(jax.random.key(1), x)
    whole, changed = BatchNorm().apply(variables, x, mutable=["batch_stats"])
    split = BatchNorm(axis_name="data")
    parts, told = jax.vmap(lambda x: split.apply(variables, x, mutable=["batch_stats"]), axis_name="data")(
        x.reshape(2, 3, 4)
    )
    np.testing.assert_allclose(parts.reshape(6, 4), whole, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5), told, changed)


def test_a_value_and_its_gradient_share_one_forward_pass():
    """Products of matrices in the program: 2 forward and 3 backward, where Linen's takes one more."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(nn.relu(BatchNorm()(nn.Dense(8)(x))))

    x = jnp.ones((4, 5))
    variables = Network().init(jax.random.key(0), x)

    def value(params):
        return Network().apply({**variables, "params": params}, x, mutable=["batch_stats"])[0]

    def both(params):
        return value(params), jax.grad(lambda params: (value(params) ** 2).sum())(params)

    text = jax.jit(both).lower(variables["params"]).compile().as_text()
    assert len(re.findall(r" dot\(", text)) == 5


def test_float64_stays_float64():
    with jax.enable_x64(True):
        x = jnp.ones((4, 2), jnp.float64)
        norm = BatchNorm(dtype=jnp.float64, param_dtype=jnp.float64)
        variables = norm.init(jax.random.key(0), x)
        y, changed = norm.apply(variables, x, mutable=["batch_stats"])
        assert {leaf.dtype for leaf in jax.tree.leaves((y, variables, changed))} == {np.dtype("float64")}
