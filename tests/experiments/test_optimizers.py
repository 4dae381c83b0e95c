"""Every optimizer of the flags descends; schedules and weight decay do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import flagsaver

from dlfx.types import UserError
from experiments.optimizers import OPTIMIZERS


@pytest.fixture
def optimizers():
    from experiments import optimizers

    optimizers.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver():
        yield optimizers


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_every_optimizer_descends(optimizers, name, decay):
    with flagsaver.flagsaver(
        optimizer=name, learning_rate={"adadelta": 1.0, "lamb": 0.05}.get(name, 0.02), weight_decay=decay
    ):
        rule = optimizers.optimizer(200)
    params = {"kernel": jnp.array([[2.0, -1.0]]), "bias": jnp.array([1.5])}

    def loss(params):
        return ((params["kernel"] - 1) ** 2).sum() + (params["bias"] ** 2).sum()

    @jax.jit
    def run(params):
        def body(carry, _):
            params, state = carry
            updates, state = rule.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, rule.init(params)), None, 200)[0][0]

    assert loss(run(params)) < (0.98 if name == "adadelta" else 0.7) * loss(params)


def test_schedules(optimizers):
    with flagsaver.flagsaver(learning_rate=2.0, warmup_steps=10, schedule="cosine"):
        rate = optimizers.learning_rate(110)
        np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 1, 2, 1, 0], atol=1e-6)
    with flagsaver.flagsaver(learning_rate=2.0, warmup_steps=10, schedule="linear"):
        rate = optimizers.learning_rate(110)
        np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(35), rate(110)], [0, 1, 2, 1.5, 0], atol=1e-6)
    with flagsaver.flagsaver(learning_rate=1.0, schedule="step", decay_at=["0.5", "0.75"], decay_rate=0.1):
        rate = optimizers.learning_rate(100)
        np.testing.assert_allclose([rate(49), rate(50), rate(74), rate(75)], [1, 0.1, 0.1, 0.01], rtol=1e-6)
    with flagsaver.flagsaver(learning_rate=3.0):
        assert optimizers.learning_rate(100)(99) == 3.0
    with flagsaver.flagsaver(schedule="step", decay_at=["1.5"]), pytest.raises(UserError, match="decay_at"):
        optimizers.learning_rate(100)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_is_of_kernels_alone(optimizers, name):
    with flagsaver.flagsaver(optimizer=name, learning_rate=0.1, weight_decay=0.5):
        rule = optimizers.optimizer(10)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = rule.update(zero, rule.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)
    np.testing.assert_allclose(updates["bias"], 0)


def test_clipping_limits_the_global_norm(optimizers):
    with flagsaver.flagsaver(optimizer="sgd", learning_rate=1.0, clip_norm=1.0):
        rule = optimizers.optimizer(10)
    gradient = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    updates, _ = rule.update(gradient, rule.init(gradient), gradient)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6, -0.8], rtol=1e-6)
