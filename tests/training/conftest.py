"""A learner small enough to run anywhere: linear regression by momentum, with noise from the step's key."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.types import Learner, Stream


class State(NamedTuple):
    params: Any  # {"w": [3]}
    momentum: Any
    step: jax.Array
    key: jax.Array


def regression(rate: float = 0.05, axis_name: str | None = None) -> Learner:
    def init(key, batch):
        w = jax.random.normal(key, (batch["x"].shape[-1],))
        return State({"w": w}, {"w": jnp.zeros_like(w)}, jnp.int32(0), key)

    def step(state, batch):
        noise = 0.01 * jax.random.normal(jax.random.fold_in(state.key, state.step), state.params["w"].shape)

        def objective(params):
            return ((batch["x"] @ (params["w"] + noise) - batch["y"]) ** 2).mean()

        loss, gradient = jax.value_and_grad(objective)(state.params)
        if axis_name:
            loss, gradient = jax.lax.pmean((loss, gradient), axis_name)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + g, state.momentum, gradient)
        params = jax.tree.map(lambda p, m: p - rate * m, state.params, momentum)
        return State(params, momentum, state.step + 1, state.key), {"loss": loss}

    return Learner(init, step)


def host(seed: int, i: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng([seed, i]).normal(size=(8, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.array([1, -2, 3], np.float32)}


@pytest.fixture
def stream() -> Stream:
    return Stream(host)


@pytest.fixture
def learner() -> Learner:
    return regression()


@pytest.fixture
def pmap_learner() -> Learner:
    return regression(axis_name="data")
