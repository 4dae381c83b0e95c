"""What every image classifier keeps to."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dlfx.models.classification import MODELS
from dlfx.types import UserError

SIDES = {"inception_v3": 75}  # of models that take no images of 32x32


@pytest.mark.parametrize("name", MODELS)
def test_one_way_to_make_and_to_call_them(name: str) -> None:
    module: Any = MODELS[name](num_classes=10, dtype=jnp.float32, param_dtype=jnp.float32, axis_name=None)
    images = jnp.zeros((2, *2 * (SIDES.get(name, 32),), 1))
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    assert {"params"} <= set(variables) <= {"params", "batch_stats"}
    (logits, features), updated = jax.eval_shape(
        partial(module.apply, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}),
        variables,
        images,
    )
    assert logits.shape == (2, 10) and logits.dtype == jnp.float32
    assert all(isinstance(key, str) and value.shape[0] == 2 for key, value in features.items())
    kept = {key: value for key, value in variables.items() if key != "params"}
    assert updated == kept  # the shapes and types, so that a step can be scanned


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "resnet20"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_dtypes(name: str, dtype: Any) -> None:
    """Computed in one type; parameters, statistics and logits in at least float32, and the same after a step."""
    with jax.enable_x64(dtype == jnp.float64):
        least32 = jnp.promote_types(dtype, jnp.float32)
        module: Any = MODELS[name](dtype=dtype, param_dtype=least32)
        images = jnp.zeros((2, 32, 32, 1), dtype)
        (logits, features), variables = jax.eval_shape(module.init_with_output, jax.random.key(0), images)
        _, updated = jax.eval_shape(partial(module.apply, train=True, mutable=["batch_stats"]), variables, images)
        assert logits.dtype == least32
        assert {leaf.dtype for leaf in jax.tree.leaves(features)} == {jnp.dtype(dtype)}
        assert {leaf.dtype for leaf in jax.tree.leaves((variables, updated))} == {least32}


@pytest.mark.parametrize("shape", [(1, 7, 8, 3), (1, 8, 4, 3), (8, 8, 3)])
@pytest.mark.parametrize("name", ["resnet20", "resnet50"])
def test_resnets_refuse_sizes(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError) as error:
        jax.eval_shape(MODELS[name]().init, jax.random.key(0), jnp.zeros(shape))
    assert str(error.value) == f"{name} takes images [B, H, W, C] whose sides are at least 8; got {list(shape)}"
