"""The learner of sums: parts and devices make no difference, and it descends as written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners.likelihood import likelihood

X = jax.random.normal(jax.random.key(0), (8, 5, 3))
MASK = (jnp.arange(5) < jnp.array([5, 1, 2, 5, 3, 4, 1, 2])[:, None]).astype(jnp.float32)
BATCH = {"x": X, "mask": MASK}


def init(key, batch):
    return {"params": {"w": jax.random.normal(key, (3,))}, "seen": jnp.float32(0)}


def objective(variables, batch, key):
    error = jnp.square(batch["x"] @ variables["params"]["w"] - 1) * batch["mask"]
    seen = variables["seen"] + batch["mask"].sum()
    return {"loss": error.sum(), "count": batch["mask"].sum(), "large": (error > 1).sum()}, {"seen": seen}


def train(batch=BATCH, **options):
    learner = likelihood(init, objective, optax.sgd(0.1), **options)
    state = learner.init(jax.random.key(3), batch)
    return jax.jit(learner.step)(state, batch)


def test_one_step_by_hand():
    start = likelihood(init, objective, optax.sgd(0.1)).init(jax.random.key(3), BATCH)
    w, x, mask = (np.asarray(v, np.float64) for v in (start.params["w"], X, MASK))
    residual = (x @ w - 1) * mask
    gradient = 2 * np.einsum("bt,btd->d", residual, x) / mask.sum()
    state, metrics = train()
    np.testing.assert_allclose(state.params["w"], w - 0.1 * gradient, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], (residual**2).sum() / mask.sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["large"], (residual**2 > 1).sum() / mask.sum(), rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=1e-5)
    assert state.step == 1 and state.extra["seen"] == mask.sum()


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_make_the_whole(parts):
    whole, in_parts = train(), train(accumulate=parts)
    for a, b in zip(jax.tree.leaves(whole[0].params), jax.tree.leaves(in_parts[0].params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    for name in whole[1]:
        np.testing.assert_allclose(whole[1][name], in_parts[1][name], rtol=1e-5)
    assert in_parts[0].extra["seen"] == MASK.sum()


def test_an_axis_makes_no_difference():
    learner = likelihood(init, objective, optax.sgd(0.1), axis_name="data")
    start = likelihood(init, objective, optax.sgd(0.1)).init(jax.random.key(3), BATCH)
    halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), BATCH)
    state, metrics = jax.vmap(learner.step, (None, 0), axis_name="data")(start, halves)
    whole, alone = train()
    np.testing.assert_allclose(state.params["w"][0], whole.params["w"], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"][1], alone["loss"], rtol=1e-5)


def test_keys_differ_by_step_and_by_part():
    def told(variables, batch, key):
        draw = jax.random.uniform(key)
        return {"loss": variables["params"]["w"].sum() * 0 + draw, "count": jnp.float32(1)}, {"seen": draw}

    learner = likelihood(init, told, optax.sgd(0.1), accumulate=2)
    state = learner.init(jax.random.key(3), BATCH)
    draws = []
    for _ in range(2):
        state, metrics = learner.step(state, BATCH)
        draws += [float(metrics["loss"] * 2 - state.extra["seen"]), float(state.extra["seen"])]
    assert len({round(draw, 5) for draw in draws}) == 4
