"""A population without batches on several devices: each holds some members, with the results of one device."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
from typing import NamedTuple
import jax, jax.numpy as jnp, numpy as np
from dlfx.training import mesh
from dlfx.types import NO_BATCHES, Learner

class State(NamedTuple):
    walk: jax.Array
    step: jax.Array
    key: jax.Array

def step(state, batch):
    move = jax.random.normal(jax.random.fold_in(state.key, state.step), (3,))
    state = state._replace(walk=state.walk.at[state.step % 3].add(move[0]), step=state.step + 1)
    return state, {"loss": move.sum()}

learner = Learner(lambda key, batch: State(jnp.zeros(3), jnp.int32(0), key), step)
found = []
for devices in (jax.devices()[:1], jax.devices()):
    program = mesh.jit_program(learner, NO_BATCHES, mesh.make_mesh(devices), range(4))
    state = program.init()
    state = program.restore(program.host(state))
    state, metrics = program.step(state, (), 5)
    walk = state.walk.addressable_shards
    assert {shard.data.shape for shard in walk} == {(4 // len(devices), 3)}, walk
    assert program.view(state).walk.is_fully_replicated
    found.append((program.host(state), np.asarray(metrics["loss"])))
one, several = found
assert one[1].shape == (5, 4)
jax.tree.map(np.testing.assert_array_equal, one, several)
uneven = mesh.jit_program(learner, NO_BATCHES, mesh.make_mesh(), range(3))
assert uneven.step(uneven.init(), (), 2)[0].walk.is_fully_replicated
"""


def test_members_are_shared_out_over_the_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
