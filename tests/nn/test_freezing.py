"""Batch norms whose parameters are frozen do in training what they do without it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlfx.nn.freezing import with_fixed_norms
from dlfx.nn.normalization import BatchNorm


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        return BatchNorm(not train, name="bn.1")(nn.Dense(3, name="linear")(x))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> Any:
        return BatchNorm(not train, name="bn")(Block(name="block")(x, train=train))


def variables() -> tuple[Any, Any]:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
    drawn = Net().init(jax.random.key(0), x)
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 2, leaf.shape), jnp.float32), drawn), x


def test_all_frozen_is_evaluation() -> None:
    start, x = variables()
    fixed = with_fixed_norms(Net(), lambda name: True)
    found, moved = jax.jit(lambda v, x: fixed.apply(v, x, train=True, mutable=["batch_stats"]))(start, x)
    np.testing.assert_array_equal(found, jax.jit(Net().apply)(start, x))
    jax.tree.map(np.testing.assert_array_equal, moved["batch_stats"], start["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, fixed.init(jax.random.key(0), x), Net().init(jax.random.key(0), x))


def test_only_those_with_all_their_parameters_frozen_are_fixed() -> None:
    start, x = variables()
    names: list[str] = []

    def frozen(name: str) -> bool:
        names.append(name)
        return name.startswith("block.") or name == "bn.scale"

    fixed = with_fixed_norms(Net(), frozen)
    _, moved = fixed.apply(start, x, train=True, mutable=["batch_stats"])
    assert {"block.bn.1.scale", "block.bn.1.bias", "bn.bias"} <= set(names)
    before, after = start["batch_stats"], moved["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, after["block"], before["block"])
    assert (after["bn"]["mean"] != before["bn"]["mean"]).all()
    plain = Net().apply(start, x, train=True, mutable=["batch_stats"])[1]["batch_stats"]
    assert (plain["block"]["bn.1"]["mean"] != before["block"]["bn.1"]["mean"]).all()
