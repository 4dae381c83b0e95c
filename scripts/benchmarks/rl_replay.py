"""dlfx's replay memory against flashbax's, inside one compiled scan: blocks of 10 written, batches of 128 drawn."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dlfx.learners import replay as memory
from dlfx.types import Array, Key
from scripts.benchmarks.rl_setting import BATCH, CAPACITY, GAMMA, TRAIN_EVERY
from scripts.benchmarks.timing import Side

OBSERVATION = jax.ShapeDtypeStruct((4,), jnp.float32)
EXPONENT = 0.6
Turn = Callable[
    [Any, memory.Transition, Key], tuple[Any, Array]
]  # (memory, block, key) to (memory, a use of the batch)


def transitions(count: int) -> memory.Transition:
    """A block `[count, 1, ...]` of experience."""
    rows = jnp.arange(count, dtype=jnp.float32)[:, None]
    observation = rows[..., None] + jnp.arange(4.0)
    never = jnp.zeros((count, 1), bool)
    return memory.Transition(observation, rows.astype(jnp.int32) % 2, rows, observation + 1, never, never)


def use(observation: Array, action: Array, reward: Array, discount: Array, successor: Array, weight: Array) -> Array:
    """A number that needs everything that an update would look at."""
    return (observation.sum(-1) + successor.sum(-1) + action + weight * (reward + discount)).sum()


def dlfx_memory(prioritized: bool, capacity: int = CAPACITY, batch: int = BATCH) -> tuple[Any, Turn]:
    """(the empty memory, one turn of it)."""

    def turn(state: memory.Replay, block: memory.Transition, key: Key) -> tuple[memory.Replay, Array]:
        state = memory.add(state, block)
        drawn = memory.sample(key, state, batch, 1, gamma=GAMMA, beta=0.4)
        if prioritized:
            state = memory.reprioritize(state, drawn.places, drawn.reward, EXPONENT)
        return state, use(*drawn[:6])

    return memory.empty(capacity, OBSERVATION, prioritized), turn


def flashbax_memory(prioritized: bool, capacity: int = CAPACITY, batch: int = BATCH) -> tuple[Any, Turn]:
    """The same of flashbax's buffers of single items.

    Raises:
      ImportError: if flashbax is not installed.
    """
    import flashbax

    sizes = {"max_length": capacity, "min_length": 1, "sample_batch_size": batch, "add_sequences": True}
    if prioritized:
        buffer = flashbax.make_prioritised_item_buffer(
            **sizes, priority_exponent=EXPONENT, device=jax.default_backend()
        )
    else:
        buffer = flashbax.make_item_buffer(**sizes)

    def turn(state: Any, block: memory.Transition, key: Key) -> tuple[Any, Array]:
        state = buffer.add(state, jax.tree.map(lambda x: x[:, 0], block))
        drawn = buffer.sample(state, key)
        rows, weight = drawn.experience, jnp.ones(batch)
        if prioritized:
            filled = jnp.where(state.is_full, capacity, state.current_index)
            weight = (drawn.probabilities * filled) ** -0.4
            weight = weight / weight.max()
            state = buffer.set_priorities(state, drawn.indices, jnp.abs(rows.reward) + 1e-6)
        discount = GAMMA * (1.0 - rows.terminated)
        return state, use(rows.observation, rows.action, rows.reward, discount, rows.successor, weight)

    return buffer.init(jax.tree.map(lambda x: x[0, 0], transitions(1))), turn


def side(name: str, made: tuple[Any, Turn], members: int, turns: int) -> Side:
    """A scan of so many turns of one memory, or of several under `vmap`; counts turns of all members."""
    empty, turn = made
    block = transitions(TRAIN_EVERY)

    def one(state: Any, key: Key) -> tuple[Any, Array]:
        return turn(state, block, key)

    def run(states: Any, key: Key) -> tuple[Any, Array]:
        if members == 1:
            return jax.lax.scan(one, states, jax.random.split(key, turns))
        return jax.lax.scan(jax.vmap(one), states, jax.random.split(key, (turns, members)))

    compiled = jax.jit(run, donate_argnums=0)
    wide = (members,) if members > 1 else ()
    state = jax.tree.map(lambda x: jnp.array(jnp.broadcast_to(x, (*wide, *x.shape))), empty)
    key, calls = jax.random.key(0), 0

    def call() -> Any:
        nonlocal state, calls
        state, used = compiled(state, jax.random.fold_in(key, calls))
        calls += 1
        jax.block_until_ready(state)
        return jax.device_get(used)

    for _ in range(2):  # the types of what goes round settle in the first call, so that the second may compile again
        call()
    return Side(name, turns * members, call)
