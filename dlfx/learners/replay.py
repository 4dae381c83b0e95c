"""A replay memory as arrays: uniform or prioritised sampling of n-step transitions from a ring of time steps.

The ring holds `size` rows of `num_envs` transitions each; row r of environment e lies at r num_envs + e. Rows are
written in blocks that never wrap, so that writing is one slice. Sampled transitions never cross the writing head.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dlfx.losses.td import n_step_return
from dlfx.types import Array, Key, UserError

FAN_OUT = 8  # of the tree of priorities


class Transition(NamedTuple):
    """Steps of environments, in arrays with any leading axes."""

    observation: Array  # [..., *obs]
    action: Array  # [...] int32
    reward: Array  # [...]
    successor: Array  # [..., *obs]
    terminated: Array  # [...] bool
    ended: Array  # [...] bool, terminated or truncated


class Replay(NamedTuple):
    """The memory and how much was ever written to it."""

    rows: Transition  # [capacity, ...]
    written: Array  # [] int32, rows of num_envs transitions
    tree: tuple[Array, ...] | None  # priorities and their sums, see `set_priorities`; None if sampling is uniform
    largest: Array  # [] the largest priority so far


class Sample(NamedTuple):
    """A batch for an update.

    Attributes:
      observation: `[B, *obs]`.
      action: `[B]` taken there.
      reward: `[B]` discounted sum over the n steps.
      discount: `[B]` of the value of the successor.
      successor: `[B, *obs]` after n steps, or at the end of the episode.
      weight: `[B]` importance weights, 1 if sampling is uniform.
      places: `[B]` int32, where the transitions lie.
    """

    observation: Array
    action: Array
    reward: Array
    discount: Array
    successor: Array
    weight: Array
    places: Array


def check(capacity: int, batch_size: int, block: int, n: int, num_envs: int) -> None:
    """Raises a UserError if a replay of that capacity cannot serve such batches or be written in such blocks."""
    if capacity < batch_size:
        raise UserError(f"a replay of {capacity} transitions is smaller than a batch of {batch_size}")
    if capacity % block:
        below = capacity // block * block
        sizes = f"{below} or {below + block}" if below else f"{block}"
        raise UserError(
            f"a replay of {capacity} transitions is not a multiple of the {block} that one iteration writes "
            f"(environments x steps); try {sizes}"
        )
    if capacity < (n + 1) * num_envs:
        raise UserError(f"a replay of {capacity} transitions is too small for {n} steps of {num_envs} environments")


def empty(capacity: int, observation: jax.ShapeDtypeStruct, prioritized: bool) -> Replay:
    """A memory of so many transitions, with nothing in it."""

    def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
        return jnp.zeros((capacity, *shape), dtype)

    rows = Transition(
        zeros(observation.shape, observation.dtype),
        zeros((), jnp.int32),
        zeros((), jnp.float32),
        zeros(observation.shape, observation.dtype),
        zeros((), bool),
        zeros((), bool),
    )
    depth = 1
    while FAN_OUT**depth < capacity:
        depth += 1
    tree = tuple(jnp.zeros(FAN_OUT**level) for level in range(depth, -1, -1))
    return Replay(rows, jnp.int32(0), tree if prioritized else None, jnp.float32(1))


def add(replay: Replay, block: Transition) -> Replay:
    """Writes transitions `[T, E, ...]` over the oldest; new ones get the largest priority so far."""
    steps, num_envs = block.action.shape
    capacity = replay.rows.action.shape[0]
    first = replay.written % (capacity // num_envs) * num_envs

    def write(memory: Array, new: Array) -> Array:
        flat = new.reshape(steps * num_envs, *new.shape[2:])
        return jax.lax.dynamic_update_slice_in_dim(memory, flat, first, 0)

    rows = jax.tree.map(write, replay.rows, block)
    tree = replay.tree
    if tree is not None:
        index = first + jnp.arange(steps * num_envs)
        tree = set_priorities(tree, index, jnp.full(steps * num_envs, replay.largest))
    return Replay(rows, replay.written + steps, tree, replay.largest)


def set_priorities(tree: tuple[Array, ...], index: Array, priority: Array) -> tuple[Array, ...]:
    """The tree of sums with new leaves: every node is the sum of its children. Where an index repeats, one holds.

    Eight children a node rather than two: fewer levels, and each is one gather of neighbours.

    Args:
      tree: levels from the leaves `[8^d]`, the priorities of the transitions, to the root `[1]`; node k of a level has
        the children 8k ... 8k + 7 in the one before.
      index: `[B]` of transitions.
      priority: `[B]`.
    """
    levels = [tree[0].at[index].set(priority)]
    for level in tree[1:]:
        index = index // FAN_OUT
        # Summed anew rather than added to, so that repeated indices and rounding do no harm.
        sums = levels[-1].reshape(-1, FAN_OUT)[index].sum(-1)
        levels.append(level.at[index].set(sums))
    return tuple(levels)


def find(tree: tuple[Array, ...], mass: Array) -> Array:
    """The transitions `[B]` at which the running sum of priorities passes `mass` `[B]`, by descent from the root."""
    node = jnp.zeros(mass.shape, jnp.int32)
    for level in tree[-2::-1]:
        children = level.reshape(-1, FAN_OUT)[node]  # [B, 8]
        sums = [children[:, 0]]
        for i in range(1, FAN_OUT):
            sums.append(sums[-1] + children[:, i])
        passed = jnp.stack(sums, -1) <= mass[:, None]
        # Rounding may leave a mass beyond the last sum: then it is the last child that has any.
        last = jnp.where(children > 0, jnp.arange(FAN_OUT), 0).max(-1)
        child = jnp.minimum(passed.sum(-1), last)
        mass = mass - jnp.where(jnp.arange(FAN_OUT) < child[:, None], children, 0).sum(-1)
        node = FAN_OUT * node + child
    return node


def sample(
    key: Key,
    replay: Replay,
    batch_size: int,
    num_envs: int,
    *,
    n: int = 1,
    gamma: float = 0.99,
    beta: Array | float = 0,
) -> Sample:
    """Draws n-step transitions, uniformly or in proportion to their priorities.

    Prioritised (Schaul et al. 2016, section 3.3): one draw from each of `batch_size` equal shares of the whole
    priority, P(i) = p_i / sum_k p_k, with weights (N P(i))^-beta divided by the largest in the batch.

    Args:
      key: of the draw.
      replay: with at least n rows written.
      batch_size: B.
      num_envs: transitions in a row.
      n: steps that a transition spans.
      gamma: discount.
      beta: how far the weights make up for the unequal draw.
    """
    capacity = replay.rows.action.shape[0]
    size = capacity // num_envs
    filled = jnp.minimum(replay.written, size)
    oldest = replay.written - filled
    starts = jnp.maximum(filled - n + 1, 1)  # rows from which n steps are there
    weight = jnp.ones(batch_size)
    if replay.tree is not None:
        share = (jnp.arange(batch_size) + jax.random.uniform(key, (batch_size,))) / batch_size
        index = jnp.minimum(find(replay.tree, share * replay.tree[-1][0]), capacity - 1)
        # The newest n - 1 rows lack their continuation: the newest row that has one stands in.
        age = (index // num_envs - oldest) % size
        row = (oldest + jnp.minimum(age, starts - 1)) % size
        index = row * num_envs + index % num_envs
        priority = replay.tree[0][index]
        weight = jnp.maximum(priority, 1e-12) ** -beta  # N and the sum of priorities cancel in the quotient
        weight = weight / weight.max()
    else:
        draw = jax.random.randint(key, (batch_size,), 0, starts * num_envs)
        index = (oldest + draw // num_envs) % size * num_envs + draw % num_envs
    rows = replay.rows
    if n == 1:
        reward, last = rows.reward[index], index
        discount = gamma * (1.0 - rows.terminated[index])
    else:
        path = (index[:, None] + num_envs * jnp.arange(n)) % capacity  # [B, n]
        reward, discount, steps = jax.vmap(n_step_return, (0, 0, 0, None))(
            rows.reward[path], rows.terminated[path], rows.ended[path], gamma
        )
        last = jnp.take_along_axis(path, steps[:, None], 1)[:, 0]
    return Sample(rows.observation[index], rows.action[index], reward, discount, rows.successor[last], weight, index)


def reprioritize(replay: Replay, places: Array, error: Array, exponent: float) -> Replay:
    """The memory after an update: priorities (|error| + 1e-6)^exponent for those transitions (Schaul et al. 2016)."""
    assert replay.tree is not None
    priority = (jnp.abs(error) + 1e-6) ** exponent
    return replay._replace(
        tree=set_priorities(replay.tree, places, priority), largest=jnp.maximum(replay.largest, priority.max())
    )
