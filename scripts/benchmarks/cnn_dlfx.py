"""The side of dlfx in scripts/bench cnn."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlfx.learners.supervised import supervised
from dlfx.models.classification import MODELS
from dlfx.types import Learner
from scripts.benchmarks import timing


def learner(model: str, dtype: str) -> Learner:
    """Supervised training of a model with 10 classes by SGD with momentum."""
    return supervised(MODELS[model](num_classes=10, dtype=jnp.dtype(dtype)), optax.sgd(0.01, momentum=0.9))


def side(case: Any, images: np.ndarray, labels: np.ndarray, dtype: str) -> timing.Side:
    """One compiled call: one step, or `case.steps` of them by lax.scan, or one of a whole population by vmap."""
    init, step = learner(case.model, dtype)
    batch = jax.device_put({"image": images, "label": labels})
    key = jax.random.key(0)
    if case.population:
        init, step = jax.vmap(init), jax.vmap(step)
        key = jax.random.split(key, case.population)
    one_step = step
    if case.steps > 1:

        def step(state: Any, batch: Any) -> Any:
            return jax.lax.scan(lambda state, _: one_step(state, batch), state, None, case.steps)

    run: Any = jax.jit(step, donate_argnums=0)
    held = [run(jax.jit(init)(key, batch), batch)[0]]

    def call() -> None:
        held[0], metrics = run(held[0], batch)
        jax.block_until_ready((held[0], metrics))

    call()
    if run._cache_size() != 1:
        raise AssertionError("the step was compiled twice")
    return timing.Side("dlfx", case.steps, call)


def flops(case: Any) -> float:
    """Of a step: forward and twice that backward, two for each multiply-add of convolutions and dense layers."""
    image = jnp.zeros((1, *case.image))
    model = MODELS[case.model](num_classes=10)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), image))
    jaxpr = jax.make_jaxpr(lambda variables: model.apply(variables, image, train=False)[0])(variables)
    return 3 * 2 * multiply_adds(jaxpr.jaxpr) * case.batch * (case.population or 1)


def multiply_adds(jaxpr: Any) -> int:
    """Of the products and convolutions of a jaxpr, ours included, and those of the jaxprs within."""
    total = 0
    for equation in jaxpr.eqns:
        shapes = [value.aval.shape for value in equation.invars if hasattr(value.aval, "shape")]
        out = equation.outvars[0].aval
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += int(np.prod(out.shape) * np.prod([shapes[0][axis] for axis in contracted]))
        elif equation.primitive.name in ("conv_general_dilated", "unit_stride_convolution", "depthwise_convolution"):
            total += int(np.prod(out.shape) * np.prod(shapes[1][:-1]))
        else:
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
                inner = getattr(inner, "jaxpr", inner)
                total += multiply_adds(inner) if hasattr(inner, "eqns") else 0
    return total


def peak(dtype: str, size: int) -> float:
    """GFLOP/s of the product of two square matrices, the best of ten."""
    a = jnp.ones((size, size), dtype)
    run = jax.jit(lambda a: a @ a)
    run(a).block_until_ready()
    best = np.inf
    for _ in range(10):
        began = time.perf_counter()
        run(a).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9


def where() -> str:
    """The device in words."""
    return f"{jax.default_backend()} ({jax.devices()[0].device_kind})"
