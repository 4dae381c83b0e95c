"""A network cut in two is the same network, and its gradient at the cut is that of the network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.intermediates import cut
from dlfx.types import UserError


def network(x):
    hidden = jax.nn.relu(x @ jnp.arange(12.0).reshape(3, 4) / 10)
    again = jnp.tanh(hidden) + hidden.sum()  # a way around
    return {"logits": again * 2}, {"hidden": hidden, "again": again, "images": x}


@pytest.fixture
def x():
    return jnp.array([[0.3, -0.2, 0.5], [1.0, 0.1, -0.7]])


@pytest.mark.parametrize("name", ["hidden", "again"])
def test_the_parts_make_the_whole(x, name):
    value, rest = cut(network, x, name)
    np.testing.assert_array_equal(value, network(x)[1][name])
    np.testing.assert_array_equal(rest(value)["logits"], network(x)[0]["logits"])


def test_the_rest_depends_on_the_value_alone(x):
    value, rest = cut(network, x, "hidden")
    other = value + 0.1
    np.testing.assert_allclose(rest(other)["logits"], 2 * (np.tanh(other) + other.sum()), rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda a: rest(a)["logits"].sum()))(value)
    np.testing.assert_allclose(gradient, 2 * (1 - np.tanh(value) ** 2) + 2 * value.size, rtol=1e-6)


def test_inside_jit(x):
    def both(x):
        value, rest = cut(network, x, "again")
        return rest(value)["logits"]

    np.testing.assert_allclose(jax.jit(both)(x), network(x)[0]["logits"], rtol=1e-6)


@pytest.mark.parametrize("name, there", [("hiden", "did you mean hidden"), ("images", "there is again, hidden")])
def test_a_result_that_is_none(x, name, there):
    with pytest.raises(UserError, match=there):
        cut(network, x, name)
