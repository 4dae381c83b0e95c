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


class TwoHeads(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        x = x.reshape(len(x), -1)
        return nn.Dense(3, name="main")(x), {"aux1": nn.Dense(3, name="aux1")(x), "auxiliary": nn.Dense(3, name="b")(x)}


def test_auxiliary_heads_weigh_in_the_loss_where_asked_for(batch):
    plain, weighted = (supervised(TwoHeads(), optax.sgd(1.0), aux_weight=w) for w in (0.0, 0.3))
    before = plain.init(jax.random.key(0), batch)
    logits, features = TwoHeads().apply({"params": before.params}, batch["image"])
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(z, batch["label"]).mean() for z in (logits, *features.values())
    ]
    (first, told), (second, all_told) = (jax.jit(learner.step)(before, batch) for learner in (plain, weighted))
    np.testing.assert_allclose(told["loss"], losses[0], rtol=1e-6)
    np.testing.assert_allclose(all_told["loss"], losses[0] + 0.3 * (losses[1] + losses[2]), rtol=1e-6)
    assert told["accuracy"] == all_told["accuracy"]
    assert (first.params["aux1"]["kernel"] == before.params["aux1"]["kernel"]).all()
    gradient = jax.grad(
        lambda kernel: optax.softmax_cross_entropy_with_integer_labels(
            batch["image"].reshape(6, -1) @ kernel, batch["label"]
        ).mean()
    )(before.params["aux1"]["kernel"])
    moved = before.params["aux1"]["kernel"] - second.params["aux1"]["kernel"]
    np.testing.assert_allclose(moved, 0.3 * gradient, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_to_the_bit_and_cost_the_optimizer_nothing(batch):
    def frozen(params):
        return {layer: dict.fromkeys(leaves, layer == "aux1") for layer, leaves in params.items()}

    decay = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(0.1, weight_decay=0.5))
    learner = supervised(TwoHeads(), decay, aux_weight=0.5, frozen=frozen)
    before = learner.init(jax.random.key(0), batch)
    signed = jnp.zeros(3).at[1].set(-0.0)  # which 0.0 + 0.0 would not give back
    before = before._replace(params=before.params | {"aux1": before.params["aux1"] | {"bias": signed}})
    after = before
    for _ in range(3):
        after, metrics = jax.jit(learner.step)(after, batch)
    for leaf in ("kernel", "bias"):
        assert np.asarray(after.params["aux1"][leaf]).tobytes() == np.asarray(before.params["aux1"][leaf]).tobytes()
        assert (after.params["main"][leaf] != before.params["main"][leaf]).any()
    moments = [x for x in jax.tree.leaves(after.opt_state) if x.ndim]
    assert len(moments) == 2 * 4  # two of each of the four parameters that are trained
    free = supervised(TwoHeads(), optax.sgd(0.0), aux_weight=0.5)
    unfrozen = before._replace(opt_state=free.init(jax.random.key(0), batch).opt_state)
    assert jax.jit(free.step)(unfrozen, batch)[1]["grad_norm"] > jax.jit(learner.step)(before, batch)[1]["grad_norm"]
