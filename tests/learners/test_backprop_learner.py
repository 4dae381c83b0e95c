"""The learner of back-propagation: by hand as by autodiff, however it is run, and with batches of any size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners.backprop import backprop
from dlfx.ops.backprop import network
from dlfx.types import UserError
from tests.compiling import quick

SIZES = (4, 6, 3)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {"image": jnp.array(rng.normal(size=(8, 2, 2, 1)), jnp.float32), "label": jnp.arange(8) % 3}


def steps(learner, state, batch, count):
    return quick(lambda state: jax.lax.scan(lambda s, _: learner.step(s, batch), state, None, count))(state)


def test_one_step_without_hidden_layer_is_softmax_regression(batch):
    learner = backprop(network((4, 3)), optax.sgd(0.1))
    before = learner.init(jax.random.key(0), batch)
    after, metrics = quick(learner.step)(before, batch)
    x, y = np.asarray(batch["image"]).reshape(8, 4), np.eye(3)[batch["label"]]
    kernel, bias = before.params[0]
    logits = x @ kernel + bias
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(after.params[0].kernel, kernel - 0.1 * x.T @ (p - y) / 8, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.params[0].bias, bias - 0.1 * (p - y).mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], -(y * np.log(p)).sum(-1).mean(), rtol=1e-5)
    assert metrics["accuracy"] == np.float32((logits.argmax(-1) == batch["label"]).mean())
    norm = np.sqrt(((x.T @ (p - y) / 8) ** 2).sum() + ((p - y).mean(0) ** 2).sum())
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    assert after.step == 1 and (jax.random.key_data(after.key) == jax.random.key_data(before.key)).all()


@pytest.mark.parametrize(("loss", "output"), [("cross_entropy", ""), ("squared", "sigmoid")])
def test_by_hand_and_by_autodiff_train_alike(batch, loss, output):
    ends = []
    with jax.enable_x64(True):
        batch = {"image": jnp.asarray(np.asarray(batch["image"]), jnp.float64), "label": batch["label"]}
        net = network(SIZES, "sigmoid", loss, output, dtype=jnp.float64, param_dtype=jnp.float64)
        for gradient in ("hand", "autodiff"):
            learner = backprop(net, optax.adam(0.05), gradient=gradient)
            state, metrics = steps(learner, learner.init(jax.random.key(0), batch), batch, 30)
            assert metrics["loss"][-1] < metrics["loss"][0]
            ends.append((state.params, metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *ends)


def test_it_survives_vmap_and_scan_and_learns(batch):
    learner = backprop(network(SIZES), optax.adam(0.05))
    states = jax.vmap(learner.init, (0, None))(jax.random.split(jax.random.key(0), 4), batch)

    def run(state):
        return jax.lax.scan(lambda s, _: learner.step(s, batch), state, None, 200)[1]["loss"]

    losses = quick(jax.vmap(run))(states)
    assert (losses[:, -1] < 0.1).all() and len(set(losses[:, -1].tolist())) == 4


def test_it_traces_once_and_repeats_to_the_bit(batch):
    learner, traces = backprop(network(SIZES), optax.adam(0.05)), []

    @quick
    def step(state, batch):
        traces.append(1)
        return learner.step(state, batch)

    ends = []
    for _ in range(2):
        state = learner.init(jax.random.key(3), batch)
        for _ in range(3):
            state, _ = step(state, batch)
        ends.append(state.params)
    assert len(traces) == 1 and jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), *ends))


def test_parts_of_a_batch_under_an_axis_are_the_whole(batch):
    whole, split = (backprop(network(SIZES), optax.sgd(0.1), axis_name=axis) for axis in (None, "data"))
    state = whole.init(jax.random.key(0), batch)
    halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch)
    got, metrics = quick(jax.vmap(split.step, (None, 0), axis_name="data"))(state, halves)
    wanted, told = quick(whole.step)(state, batch)
    for i in range(2):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-7), got.params, wanted.params
        )
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), metrics, told)


def test_a_state_can_be_donated(batch):
    learner = backprop(network(SIZES), optax.adam(0.05))
    state = jax.jit(learner.init)(jax.random.key(0), batch)
    state, _ = jax.jit(learner.step, donate_argnums=0)(state, batch)
    assert state.step == 1


def test_all_batches_of_a_size_average_to_the_full_gradient(batch):
    """Stochastic and mini-batch gradients are unbiased, and vary as 1 / B with the correction for a finite set."""
    net = network(SIZES)
    learner = backprop(net, optax.sgd(1.0))  # a step of which is the gradient
    state = learner.init(jax.random.key(0), batch)

    def gradient(batch):
        after, _ = learner.step(state, batch)
        moved = jax.tree.map(jnp.subtract, state.params, after.params)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moved)])

    full, spread = np.asarray(gradient(batch)), {}
    for size in (1, 2, 4):
        draws = np.array(list(itertools.combinations(range(8), size)))
        every = np.asarray(quick(jax.vmap(gradient))(jax.tree.map(lambda x, draws=draws: x[draws], batch)))
        np.testing.assert_allclose(every.mean(0), full, atol=1e-6)
        spread[size] = ((every - full) ** 2).sum(-1).mean()
    np.testing.assert_allclose(spread[2], spread[1] / 2 * (8 - 2) / 7, rtol=1e-4)
    np.testing.assert_allclose(spread[4], spread[1] / 4 * (8 - 4) / 7, rtol=1e-4)


def test_batch_descent_falls_at_every_step_and_stochastic_descent_does_not(batch):
    learner = backprop(network(SIZES), optax.sgd(0.2))
    state = learner.init(jax.random.key(0), batch)
    net = network(SIZES)

    def whole(params):
        return net.losses(net.forward(params, batch["image"]), batch["label"]).mean()

    def run(state, rows):
        def body(state, rows):
            loss = whole(state.params)
            return learner.step(state, jax.tree.map(lambda x: x[rows], batch))[0], loss

        return jax.lax.scan(body, state, rows)[1]

    everything = np.tile(np.arange(8), (150, 1))
    single = np.random.default_rng(0).integers(8, size=(150, 1))
    assert (np.diff(quick(run)(state, everything)) < 0).all()
    noisy = np.diff(quick(run)(state, single))
    assert (noisy > 0).sum() > 15 and noisy.sum() < 0


def test_mistakes(batch):
    with pytest.raises(UserError, match="unknown gradient 'hands'; did you mean hand"):
        backprop(network(SIZES), optax.sgd(0.1), gradient="hands")
    with pytest.raises(UserError, match="an input of 4 numbers does not fit the first width, 5"):
        backprop(network((5, 3)), optax.sgd(0.1)).init(jax.random.key(0), batch)
