"""SGD on rows: equal to SGD on whole tables, to one example after another, and on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.learners.row_sgd import row_sgd

RNG = np.random.default_rng(0)
TABLE = jnp.asarray(RNG.normal(size=(9, 4)), jnp.float32)
BATCH = {
    "index": jnp.asarray(RNG.integers(0, 8, (6, 3)), jnp.int32),  # row 8 is not read
    "real": jnp.asarray([[1, 1, 1], [1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 1, 0], [1, 1, 1]], jnp.float32),
}


def objective(values, batch):
    losses = jnp.square(values["table"].sum(-1) - 1) * batch["real"]
    return {"loss": losses.sum(), "count": batch["real"].sum(), "double": 2 * losses.sum()}


def learner(most=jnp.inf, axis_name=None, rate=lambda step: 0.1 / (1 + step)):
    rows = lambda batch: {"table": (batch["index"], batch["real"])}  # noqa: E731
    return row_sgd(lambda key, batch: {"table": TABLE}, rows, objective, rate, most=most, axis_name=axis_name)


def whole(table):
    return objective({"table": table[BATCH["index"]]}, BATCH)["loss"]


def test_it_is_sgd_on_the_whole_table():
    start = learner().init(jax.random.key(0), BATCH)
    state, metrics = jax.jit(learner().step)(start, BATCH)
    np.testing.assert_allclose(state.params["table"], TABLE - 0.1 * jax.grad(whole)(TABLE), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], whole(TABLE) / BATCH["real"].sum(), rtol=1e-5)
    np.testing.assert_allclose(metrics["double"], 2 * metrics["loss"], rtol=1e-6)
    after, _ = jax.jit(learner().step)(state, BATCH)
    change = -0.05 * jax.grad(whole)(state.params["table"])
    np.testing.assert_allclose(after.params["table"] - state.params["table"], change, rtol=1e-4, atol=1e-6)
    assert after.step == 2


@pytest.mark.parametrize("most", [1.0, 2.5])
def test_a_row_that_many_read_moves_by_so_many_means(most):
    state, _ = jax.jit(learner(most).step)(learner().init(jax.random.key(0), BATCH), BATCH)
    gradient = np.asarray(jax.grad(whole)(TABLE))
    times = np.array([((BATCH["index"] == row) * BATCH["real"]).sum() for row in range(9)])
    assert (times > most).any() and (times < most).any()
    step = 0.1 * np.minimum(1, most / np.maximum(times, 1))[:, None] * gradient
    np.testing.assert_allclose(state.params["table"], TABLE - step, rtol=1e-5, atol=1e-6)


def test_devices_make_no_difference():
    start = learner().init(jax.random.key(0), BATCH)
    alone = jax.jit(learner(2.0).step)(start, BATCH)
    parts = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), BATCH)
    spread = jax.jit(jax.vmap(learner(2.0, "data").step, (None, 0), axis_name="data"))(start, parts)
    for device in range(2):
        np.testing.assert_allclose(spread[0].params["table"][device], alone[0].params["table"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(spread[1]["loss"][device], alone[1]["loss"], rtol=1e-5)


def test_a_population_is_its_members():
    starts = [learner().init(jax.random.key(k), BATCH)._replace(params={"table": TABLE * (k + 1)}) for k in range(2)]
    together, _ = jax.jit(jax.vmap(learner(2.0).step, (0, None)))(
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts), BATCH
    )
    for k, start in enumerate(starts):
        one, _ = jax.jit(learner(2.0).step)(start, BATCH)
        np.testing.assert_allclose(together.params["table"][k], one.params["table"], rtol=1e-5, atol=1e-6)
