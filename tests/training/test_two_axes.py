"""A GPT on a mesh of two axes: the state is shared out as the rule says, and training equals that of one device."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from jax.sharding import PartitionSpec as P

from dlfx.models.sequence.partition import transformer
from dlfx.training import mesh
from dlfx.types import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, optax
jax.config.update("jax_enable_x64", True)
from dlfx.data.text import window_stream
from dlfx.learners.likelihood import likelihood
from dlfx.models.sequence.gpt import GPT
from dlfx.models.sequence.partition import transformer
from dlfx.training import mesh

types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
model = GPT(10, 8, 2, 2, 8, dropout=0.0, remat=True, **types)

def objective(variables, batch, key):
    logits = model.apply(variables, batch["tokens"][:, :-1], train=True, rngs={"dropout": key})
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["tokens"][:, 1:])
    return {"loss": losses.sum(), "count": jnp.asarray(losses.size, losses.dtype)}, {}

def init(key, batch):
    return model.init(key, batch["tokens"][:, :-1])

learner = likelihood(init, objective, optax.adam(0.01), accumulate=2)
stream = window_stream(np.random.default_rng(0).integers(0, 10, 300), 8, 8)
batches = jax.tree.map(lambda *x: np.stack(x), *[stream.host(0, i) for i in range(4)])

def train(devices, model):
    program = mesh.jit_program(learner, stream, mesh.make_mesh(devices, model), [0], transformer)
    state = program.restore(program.host(program.init()))
    state, metrics = program.step(state, program.put(batches), 4)
    return program, state, metrics

one = train(jax.devices()[:1], 1)
program, state, metrics = train(jax.devices(), 2)
blocks = state.params["stack"]["blocks"]
shapes = {
    "query": blocks["attention"]["query"]["kernel"],
    "out": blocks["attention"]["out"]["kernel"],
    "moment": state.opt_state[0].mu["stack"]["blocks"]["mlp_in"]["kernel"],
    "tokens": state.params["embedding"]["embedding"],
    "norm": blocks["mlp_norm"]["scale"],
}
local = {name: leaf.addressable_shards[0].data.shape for name, leaf in shapes.items()}
assert local == {"query": (2, 8, 4), "out": (2, 4, 8), "moment": (2, 8, 16), "tokens": (5, 8), "norm": (2, 8)}, local
assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(program.view(state)))
for a, b in zip(jax.tree.leaves(one[0].host(one[1])), jax.tree.leaves(program.host(state)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
np.testing.assert_allclose(one[2]["loss"], metrics["loss"], rtol=1e-10)
"""


def test_eight_devices_in_two_axes_equal_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_rule():
    assert transformer("params/stack/blocks/attention/query/kernel", (2, 8, 8), 2) == P(None, None, "model")
    assert transformer("opt_state/0/nu/stack/blocks/cross_attention/out/kernel", (2, 8, 8), 2) == P(None, "model", None)
    assert transformer("params/embedding/embedding", (65, 8), 2) == P()  # 65 tokens cannot be halved
    assert transformer("params/stack/norm/scale", (8,), 2) == P()
    assert transformer("step", (), 2) == P()


def test_devices_that_make_no_such_mesh():
    with pytest.raises(UserError, match="1 devices cannot be laid out with 2 along the axis 'model'"):
        mesh.make_mesh(model=2)
