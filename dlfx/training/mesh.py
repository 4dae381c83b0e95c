"""One learner, compiled for all devices: `jit` over a `data` mesh, or `pmap`; alone, or as a population of seeds.

A batch travels as `[K, (N,) B, ...]`: K steps of one call, N members of a population, B rows. `jit` shards the rows
over the mesh and keeps the state replicated, so that sums over the batch, batch norm's included, are global. `pmap`
gives each device its rows and a copy of the state; there the learner averages gradients itself (`axis_name="data"`).
A population without batches, such as agents that make their own experience, shards its members under `jit` instead,
where the devices divide them. A mesh may have a second axis, `model`, over which `jit` shards the parameters and what
the optimizer keeps of them, as a rule says (tensor parallelism).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dlfx.training.checkpoints import leaf_names
from dlfx.types import Batch, Key, Learner, State, Stream, UserError

AXIS = "data"
MODEL = "model"

# (name of a tensor of the state, its shape, devices along the model axis) to how it is sharded over that axis.
Partition = Callable[[str, tuple[int, ...], int], P]


class Program(NamedTuple):
    """A learner and its stream, compiled for the devices of this run.

    Attributes:
      init: the initial state, on the devices.
      template: shapes and types of `host(state)`.
      put: host batches `[K, (N,) b, ...]`, this process's rows, to the devices.
      step: (state, batches, K) to (state, metrics `[K, (N)]`). Donates the state.
      host: the state as NumPy arrays, keys as their data; on every process the whole.
      restore: the reverse of `host`.
      view: the state as one replicated array a leaf, for evaluation.
      mesh: the devices.
      population: whether leaves have a leading axis of members.
    """

    init: Callable[[], State]
    template: Any
    put: Callable[[Batch], Batch]
    step: Callable[[State, Batch, int], tuple[State, Any]]
    host: Callable[[State], Any]
    restore: Callable[[Any], State]
    view: Callable[[State], State]
    mesh: Mesh
    population: bool


def make_mesh(devices: Sequence[jax.Device] | None = None, model: int = 1) -> Mesh:
    """All devices (or those given) in one axis, `data`; or `model` neighbours of them along a second axis.

    Raises:
      UserError: if `model` does not divide the devices.
    """
    chosen = np.asarray(devices or jax.devices())
    if model == 1:
        return Mesh(chosen, (AXIS,))
    if model < 1 or chosen.size % model:
        raise UserError(f"{chosen.size} devices cannot be laid out with {model} along the axis {MODEL!r}")
    return Mesh(chosen.reshape(-1, model), (AXIS, MODEL))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises a UserError if the devices do not divide a batch of that many rows."""
    if batch_size % mesh.size:
        below = batch_size // mesh.size * mesh.size
        sizes = f"{below} or {below + mesh.size}" if below else str(mesh.size)
        raise UserError(f"a batch of {batch_size} is not divisible by {mesh.size} devices; try {sizes}")


def _chunk(learner: Learner, stream: Stream, population: bool) -> Callable[..., tuple[State, Any]]:
    """K steps as one function of (state, arrays, batches, K)."""

    def chunk(state: State, arrays: Any, batches: Batch, length: int) -> tuple[State, Any]:
        def one(state: State, batch: Batch) -> tuple[State, Any]:
            def member(state: State, batch: Batch) -> tuple[State, Any]:
                return learner.step(state, stream.fetch(arrays, batch))

            return (jax.vmap(member) if population else member)(state, batch)

        if length == 1:  # XLA compiles a loop of one step worse than the step
            state, metrics = one(state, jax.tree.map(lambda x: x[0], batches))
            return state, jax.tree.map(lambda x: x[None], metrics)
        return jax.lax.scan(one, state, batches, length)

    return chunk


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _unwrap(state: State) -> State:
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def jit_program(
    learner: Learner, stream: Stream, mesh: Mesh, seeds: Sequence[int], partition: Partition | None = None
) -> Program:
    """The program of a learner under `jit`: batches sharded over the mesh and the state replicated, or members sharded.

    Members are sharded where a population has no batches and the devices divide it: no device waits for another then.

    Args:
      learner: what is compiled.
      stream: its batches.
      mesh: the devices.
      seeds: of the members.
      partition: how tensors of the state are sharded over a mesh's axis `model`; None replicates them.

    Raises:
      UserError: for a population whose tensors are to be sharded.
    """
    population = len(seeds) > 1
    empty = not jax.tree.leaves(stream.host(seeds[0], 0))
    shared = population and empty and mesh.axis_names == (AXIS,) and len(seeds) % mesh.size == 0 and mesh.size > 1
    replicated = NamedSharding(mesh, P())
    init, template, is_key = _initial(learner, stream, seeds)
    if partition and MODEL in mesh.axis_names:
        if population:
            raise UserError("several seeds at once do not go with a mesh that shards the model; train them one by one")
        parts = mesh.shape[MODEL]
        specs = [
            partition(name, leaf.shape, parts)
            for name, leaf in zip(leaf_names(template), jax.tree.leaves(template), strict=True)
        ]
        sharding = [NamedSharding(mesh, spec) for spec in specs]
    else:
        sharding = [NamedSharding(mesh, P(AXIS)) if shared else replicated] * len(jax.tree.leaves(template))
    placed = jax.tree.unflatten(jax.tree.structure(template), sharding)
    whole_everywhere = all(spec == replicated for spec in sharding)
    rows = NamedSharding(mesh, P(None, None, AXIS) if population else P(None, AXIS))
    arrays = jax.tree.map(lambda x: _place(x, replicated), stream.arrays)
    whole = _chunk(learner, stream, population)

    def members(state: State, arrays: Any, batches: Batch, length: int) -> tuple[State, Any]:
        return jax.shard_map(
            lambda state, arrays: whole(state, arrays, batches, length),
            mesh=mesh,
            in_specs=(P(AXIS), P()),
            out_specs=(P(AXIS), P(None, AXIS)),
            check_vma=False,  # the members know nothing of one another, so nothing is replicated
        )(state, arrays)

    chunk = jax.jit(
        members if shared else whole,
        static_argnums=3,
        donate_argnums=0,
        out_shardings=(placed, replicated),
    )
    gather = jax.jit(lambda state: state, out_shardings=replicated)

    def restore(saved: Any) -> State:
        return _wrap(jax.tree.map(_place, saved, placed), is_key)

    def view(state: State) -> State:
        return state if whole_everywhere else gather(state)

    return Program(
        init=lambda: restore(init()),
        template=template,
        put=lambda batch: jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, x), batch),
        step=lambda state, batches, length: chunk(state, arrays, batches, length),
        host=lambda state: jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), _unwrap(view(state))),
        restore=restore,
        view=view,
        mesh=mesh,
        population=population,
    )


def pmap_program(learner: Learner, stream: Stream, mesh: Mesh, seeds: Sequence[int]) -> Program:
    """The program of a learner under `pmap(axis_name="data")`: every device holds a copy of the state."""
    population = len(seeds) > 1
    replicated = NamedSharding(mesh, P())
    stacked = NamedSharding(mesh.local_mesh, P(AXIS))  # pmap takes and gives the rows of this process alone
    local = mesh.local_mesh.size
    row_axis = 2 if population else 1

    def copies(x: np.ndarray) -> jax.Array:
        return jax.device_put(np.broadcast_to(x, (local, *np.shape(x))), stacked)

    arrays = jax.tree.map(lambda x: copies(np.asarray(x)), stream.arrays)
    chunk = jax.pmap(
        _chunk(learner, stream, population),
        axis_name=AXIS,
        static_broadcasted_argnums=3,
        donate_argnums=0,
        devices=list(mesh.devices.flat),
    )
    init, template, is_key = _initial(learner, stream, seeds)

    def put(batch: Batch) -> Batch:
        def split(x: np.ndarray) -> jax.Array:
            shape = (*x.shape[:row_axis], local, x.shape[row_axis] // local, *x.shape[row_axis + 1 :])
            return jax.device_put(np.moveaxis(x.reshape(shape), row_axis, 0), stacked)

        return jax.tree.map(split, batch)

    def step(state: State, batches: Batch, length: int) -> tuple[State, Any]:
        state, metrics = chunk(state, arrays, batches, length)
        return state, jax.tree.map(lambda x: x.addressable_data(0)[0], metrics)

    def host(state: State) -> Any:
        return jax.tree.map(lambda x: np.asarray(x.addressable_data(0))[0], _unwrap(state))

    def restore(saved: Any) -> State:
        return _wrap(jax.tree.map(copies, saved), is_key)

    return Program(
        init=lambda: restore(init()),
        template=template,
        put=put,
        step=step,
        host=host,
        restore=restore,
        view=lambda state: _wrap(jax.tree.map(lambda x: _place(x, replicated), host(state)), is_key),
        mesh=mesh,
        population=population,
    )


PROGRAMS = {"jit": jit_program, "pmap": pmap_program}


def _initial(learner: Learner, stream: Stream, seeds: Sequence[int]) -> tuple[Callable[[], Any], Any, Any]:
    """(a function that gives the initial state as NumPy arrays, its shapes, which of its leaves are keys)."""
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    batch = jax.tree.map(lambda x: x[:1], stream.host(seeds[0], 0))  # only its shapes matter

    def init(keys: Key, arrays: Any, batch: Batch) -> State:
        batch = stream.fetch(arrays, batch)
        return jax.vmap(learner.init, (0, None))(keys, batch) if len(seeds) > 1 else learner.init(keys[0], batch)

    def plain(*args: Any) -> State:
        return _unwrap(init(*args))

    is_key = jax.tree.map(_is_key, jax.eval_shape(init, keys, stream.arrays, batch))
    template = jax.eval_shape(plain, keys, stream.arrays, batch)
    # It runs once: on CPU, compiling the random initialisers at full optimisation costs five seconds, like this one.
    quick = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    compiled = jax.jit(plain, compiler_options=quick)
    return lambda: jax.tree.map(np.asarray, compiled(keys, stream.arrays, batch)), template, is_key


def _wrap(state: State, is_key: Any) -> State:
    return jax.tree.map(lambda x, key: jax.random.wrap_key_data(x) if key else x, state, is_key)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])
