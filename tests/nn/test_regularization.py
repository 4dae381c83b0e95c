"""Dropout, of units, channels and branches: what is dropped together, what stays on average, and what still moves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.nn.regularization import SpatialDropout, StochasticDepth, stochastic_depth_rates

RATE = 0.25


@pytest.mark.parametrize(
    "layer, together",
    [(nn.Dropout, ()), (SpatialDropout, (1, 2)), (StochasticDepth, (1, 2, 3))],
    ids=["units", "channels", "branches"],
)
def test_what_is_dropped_together_and_the_mean_that_stays(layer, together):
    shape = (400, 2, 3, 20)
    y = np.asarray(layer(RATE, deterministic=False).apply({}, jnp.ones(shape), rngs={"dropout": jax.random.key(0)}))
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - RATE)], rtol=1e-6)
    blocks = y.mean(together) if together else y
    np.testing.assert_allclose(np.unique(blocks.round(4)), [0, 1.3333], rtol=1e-4)  # whole, or not at all
    kept = blocks > 0
    spread = np.sqrt(RATE * (1 - RATE) / kept.size)
    assert abs(kept.mean() - (1 - RATE)) < 4 * spread
    assert abs(y.mean() - 1) < 4 * spread / (1 - RATE)
    for axis in range(kept.ndim):  # and apart from each other
        assert (kept != kept.take([0], axis)).any()
    still = layer(RATE, deterministic=True).apply({}, jnp.ones(shape))
    np.testing.assert_array_equal(still, 1)


def test_the_deeper_the_block_the_more_often_it_is_dropped():
    assert stochastic_depth_rates(5) == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    # Of 54 blocks that end at a half, 54 - 55 / 4 = 40.25 are there on average: "approximately 3/4 L" of the paper.
    assert sum(1 - rate for rate in stochastic_depth_rates(54)) == pytest.approx(40.25)


@pytest.mark.parametrize(
    "rule, moves",
    [
        (optax.sgd(0.1), False),
        (optax.sgd(0.1, momentum=0.9), True),
        (optax.adam(0.1), True),
        (optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1)), True),
    ],
    ids=["sgd", "momentum", "adam", "weight decay"],
)
def test_weights_of_a_dropped_unit_have_no_gradient_and_may_move_all_the_same(rule, moves):
    x, w = jnp.array([1.0, 2.0]), jnp.array([[0.3, -0.2], [0.1, 0.4]])

    def slope(w, mask):
        return jax.grad(lambda w: ((jnp.tanh(x @ w) * mask) ** 2).sum())(w)

    state = rule.init(w)
    updates, state = rule.update(slope(w, jnp.array([1.0, 1.0])), state, w)  # a step with both units
    w = optax.apply_updates(w, updates)
    dropped = slope(w, jnp.array([1.0, 0.0]))
    np.testing.assert_array_equal(dropped[:, 1], 0)
    assert (dropped[:, 0] != 0).all()
    updates, _ = rule.update(dropped, state, w)
    assert (updates[:, 1] != 0).all() == moves and (updates[:, 1] != 0).any() == moves
