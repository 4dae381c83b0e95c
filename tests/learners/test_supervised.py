"""The supervised learner: one step is one step of textbook gradient descent, and pure in its state and batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners.supervised import predict, supervised


class Linear(nn.Module):
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(len(x), -1)
        features = {"flat": x}
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(3)(x), features


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return {"image": jnp.array(rng.normal(size=(6, 2, 2, 1)), jnp.float32), "label": jnp.array([0, 1, 2, 0, 1, 2])}


def test_one_step_of_softmax_regression_is_the_closed_form(batch):
    learner = supervised(Linear(), optax.sgd(0.1))
    before = learner.init(jax.random.key(0), batch)
    after, metrics = jax.jit(learner.step)(before, batch)
    x, y = np.asarray(batch["image"]).reshape(6, 4), np.eye(3)[batch["label"]]
    weights = before.params["Dense_0"]
    logits = x @ weights["kernel"] + weights["bias"]
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = x.T @ (p - y) / 6
    np.testing.assert_allclose(
        after.params["Dense_0"]["kernel"], weights["kernel"] - 0.1 * gradient, rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(metrics["loss"], -(y * np.log(p)).sum(-1).mean(), rtol=1e-5)
    assert metrics["accuracy"] == np.float32((logits.argmax(-1) == batch["label"]).mean())
    norm = np.sqrt((gradient**2).sum() + ((p - y).mean(0) ** 2).sum())
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
    assert after.step == 1 and (jax.random.key_data(after.key) == jax.random.key_data(before.key)).all()


def test_label_smoothing_is_of_the_loss_alone(batch):
    plain, smooth = (supervised(Linear(), optax.sgd(0.0), smoothing=s) for s in (0.0, 0.3))
    state = plain.init(jax.random.key(0), batch)
    assert plain.step(state, batch)[1]["loss"] != smooth.step(state, batch)[1]["loss"]
    assert plain.step(state, batch)[1]["accuracy"] == smooth.step(state, batch)[1]["accuracy"]


def test_dropout_differs_from_step_to_step_and_repeats_with_the_state(batch):
    learner = supervised(Linear(dropout=0.5), optax.sgd(0.0))
    state = learner.init(jax.random.key(0), batch)
    losses = [learner.step(state._replace(step=jnp.int32(i)), batch)[1]["loss"] for i in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_the_augmentation_of_an_example_depends_on_its_row_alone(batch):
    """So that a batch split over devices is augmented as the whole one."""

    def mark(key, image):
        return image + jax.random.normal(key, ())

    learner = supervised(Linear(), optax.sgd(0.0), augment=mark)
    split = supervised(Linear(), optax.sgd(0.0), augment=mark, axis_name="data")
    state = learner.init(jax.random.key(0), batch)
    whole = learner.step(state, batch)[1]
    halves = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), batch)
    parts = jax.vmap(split.step, (None, 0), axis_name="data")(state, halves)[1]
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-5)


def test_predict_gives_logits_and_features(batch):
    learner = supervised(Linear(), optax.sgd(0.1))
    logits, features = predict(Linear(), learner.init(jax.random.key(0), batch), batch["image"])
    assert logits.shape == (6, 3) and features["flat"].shape == (6, 4)


def test_it_survives_vmap_and_scan_and_learns(batch):
    learner = supervised(Linear(), optax.adam(0.1))
    states = jax.vmap(learner.init, (0, None))(jax.random.split(jax.random.key(0), 4), batch)

    def run(state):
        return jax.lax.scan(lambda s, _: learner.step(s, batch), state, None, 300)[1]["loss"]

    assert (jax.jit(jax.vmap(run))(states)[:, -1] < 0.1).all()
