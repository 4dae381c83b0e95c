"""Positions against loops, and what they are said to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.nn.positions import LearnedPositions, rotary, sinusoidal
from dlfx.types import UserError


def test_sinusoidal_positions_are_those_of_the_paper():
    found = np.asarray(sinusoidal(jnp.arange(30), 6))
    for position in range(30):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(found[position, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=2e-6)
    np.testing.assert_allclose((found**2).sum(-1), 3, rtol=1e-5)  # all of one length


def test_a_step_of_sinusoidal_positions_is_a_rotation_that_does_not_depend_on_where_it_begins():
    with jax.enable_x64(True):
        positions = np.asarray(sinusoidal(jnp.arange(40), 8, jnp.float64))
        step = np.linalg.lstsq(positions[:-7], positions[7:], rcond=None)[0]
        np.testing.assert_allclose(positions[:-7] @ step, positions[7:], atol=1e-12)
        np.testing.assert_allclose(step @ step.T, np.eye(8), atol=1e-10)


def test_positions_far_on_stay_apart_in_bfloat16():
    positions = jnp.arange(500, 516)
    assert len(np.unique(np.asarray(sinusoidal(positions, 16, jnp.bfloat16).astype(jnp.float32)), axis=0)) == 16
    x = jnp.ones((1, 16, 1, 16), jnp.bfloat16)
    assert rotary(x, positions).dtype == jnp.bfloat16
    assert len(np.unique(np.asarray(rotary(x, positions)[0, :, 0].astype(jnp.float32)), axis=0)) == 16


def test_rotary_turns_every_pair():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    found = np.asarray(rotary(jnp.asarray(x), jnp.arange(5)))
    for b, t, h, i in np.ndindex(2, 5, 3, 2):
        angle = t / 10000 ** (2 * i / 4)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(found[b, t, h, 2 * i : 2 * i + 2], turn @ x[b, t, h, 2 * i : 2 * i + 2], atol=1e-5)


def test_products_of_rotary_queries_and_keys_depend_on_their_distance_alone():
    with jax.enable_x64(True):
        query, key = np.random.default_rng(1).normal(size=(2, 8))
        turned_queries, turned_keys = (
            rotary(jnp.broadcast_to(x, (1, 12, 1, 8)), jnp.arange(12))[0, :, 0] for x in (query, key)
        )
        products = np.asarray(turned_queries @ turned_keys.T)
        for distance in range(-11, 12):
            diagonal = np.diagonal(products, distance)
            np.testing.assert_allclose(diagonal, diagonal[0], atol=1e-12)
        assert np.ptp(products) > 0.1  # and do depend on it
        added = sinusoidal(jnp.arange(12), 8, jnp.float64)
        plain = np.asarray((query + added) @ (key + added).T)
        assert np.ptp(np.diagonal(plain, 2)) > 0.1  # sinusoidal positions, which are added, have no such property


def test_learned_positions_end():
    module = LearnedPositions(4, 3)
    variables = module.init(jax.random.key(0), jnp.arange(4))
    found = module.apply(variables, jnp.array([3, 0, 4]))
    table = variables["params"]["embedding"]
    np.testing.assert_array_equal(found[:2], table[jnp.array([3, 0])])
    assert np.isnan(found[2]).all()


@pytest.mark.parametrize(
    "make", [lambda: sinusoidal(jnp.arange(3), 5), lambda: rotary(jnp.ones((1, 3, 1, 5)), jnp.arange(3))]
)
def test_odd_features_are_refused(make):
    with pytest.raises(UserError, match="even number of them; got 5"):
        make()
