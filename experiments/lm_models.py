"""The models of experiments.lm, as the experiment uses them: what to minimise, and how to write with them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.models.sequence.recurrent_lm import RecurrentLM
from dlfx.types import Array, Batch, Key


class LanguageModel(NamedTuple):
    """A model and its ways.

    Attributes:
      init: (key, batch) to the variables, as `learners.likelihood` wants it.
      objective: (variables, batch, key) to (sums, what goes on to the next step), likewise.
      logits: (variables, `[B, T]` tokens without a past) to `[B, T, V]`.
      window: T of the windows in which a text is evaluated.
      context: how many tokens it can see; None if it carries a state on and on.
      read: (variables, `[N, P]` tokens, how many in the end) to a state that has seen them.
      step: (variables, state, tokens `[N]`) to (state, logits `[N, V]`), as `ops.decoding` wants it.
    """

    init: Callable[[Key, Batch], dict[str, Any]]
    objective: Callable[[dict[str, Any], Batch, Key], tuple[dict[str, Array], dict[str, Any]]]
    logits: Callable[[Any, Array], Array]
    window: int
    context: int | None
    read: Callable[[Any, Array, int], Any]
    step: Callable[[Any, Any, Array], tuple[Any, Array]]


def gpt(model: Any) -> LanguageModel:
    """A GPT, on windows as long as its context. Its state in writing is the cache of keys and values."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["tokens"][:, :-1])

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        logits = model.apply(variables, batch["tokens"][:, :-1], train=True, rngs={"dropout": key})
        return _sums(logits, batch["tokens"]), {}

    def read(variables: Any, tokens: Array, end: int) -> Any:
        count, length = tokens.shape
        cache = model.apply(variables, count, end, method="start")
        if length:
            _, cache = model.apply(variables, tokens, cache, 0, method="decode")
        return cache, jnp.full(count, length)

    def step(variables: Any, state: Any, last: Array) -> tuple[Any, Array]:
        cache, positions = state
        # All sequences are equally long, so that one position serves for all.
        logits, cache = model.apply(variables, last[:, None], cache, positions[0], method="decode")
        return (cache, positions + 1), logits[:, 0]

    return LanguageModel(init, objective, model.apply, model.context, model.context, read, step)


def recurrent(model: RecurrentLM, batch_size: int, window: int, axis_name: str | None) -> LanguageModel:
    """A recurrent model by truncated backpropagation through time, on batches that go on where the last one ended.

    Its state after a batch is `carry` among the variables, `[batch_size, ...]` in all: under `pmap` each device takes
    its rows and gives them back, so that the state of training is the same everywhere.

    Args:
      model: the model.
      batch_size: rows of a batch over all devices.
      window: in which it is evaluated, each begun without a past.
      axis_name: of `pmap`; None under `jit`.
    """

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        variables = model.init(key, batch["tokens"][:, :-1])
        return {**variables, "carry": model.apply(variables, batch_size, method="start")}

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        tokens, begins = batch["tokens"], batch["first"][:, None] > 0
        carry = variables["carry"]
        if axis_name is not None:
            mine = jax.lax.axis_index(axis_name) * len(tokens)
            carry = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, mine, len(tokens)), carry)
        carry = jax.tree.map(lambda x: jnp.where(begins, 0, x), carry)
        logits, carry = model.apply(
            {"params": variables["params"]}, tokens[:, :-1], carry, train=True, rngs={"dropout": key}
        )
        if axis_name is not None:
            carry = jax.lax.all_gather(carry, axis_name, tiled=True)
        return _sums(logits, tokens), {"carry": carry}

    def logits(variables: Any, tokens: Array) -> Array:
        return model.apply({"params": variables["params"]}, tokens)[0]

    def read(variables: Any, tokens: Array, end: int) -> Any:
        params = {"params": variables["params"]}
        if not tokens.shape[1]:
            return model.apply(params, len(tokens), method="start")
        return model.apply(params, tokens)[1]

    def step(variables: Any, state: Any, last: Array) -> tuple[Any, Array]:
        said, state = model.apply({"params": variables["params"]}, last[:, None], state)
        return state, said[:, 0]

    return LanguageModel(init, objective, logits, window, None, read, step)


def _sums(logits: Array, tokens: Array) -> dict[str, Array]:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    return {"loss": losses.sum(), "count": jnp.asarray(losses.size, losses.dtype)}
