"""Minimising a sum of losses over however many targets a batch holds: language models and all that have sequences."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners.norms import global_norm
from dlfx.types import Array, Batch, Key, Learner, Metrics

Sums = dict[str, Array]  # of a batch; `count` and `loss` among them


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any  # trained by gradient
    extra: Any  # what else goes from step to step, by name, such as the carried state of a recurrent network
    opt_state: Any
    step: Array  # [] int32
    key: Key  # []

    @property
    def variables(self) -> dict[str, Any]:
        """Parameters and the rest as one dict, `{"params": ..., **extra}`."""
        return {"params": self.params, **self.extra}


def likelihood(
    init: Callable[[Key, Batch], dict[str, Any]],
    objective: Callable[[dict[str, Any], Batch, Key], tuple[Sums, dict[str, Any]]],
    optimizer: optax.GradientTransformation,
    *,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> Learner:
    """The learner that minimises loss / count, both summed over the whole batch, whatever parts it is computed in.

    A mean of the means of parts would weigh a target by how few others its part holds; sums do not.

    Args:
      init: (key, batch) to the variables, `{"params": ..., **extra}`.
      objective: (variables, batch, key) to (sums over the batch, the new extra). `sums["loss"]` is differentiated;
        `sums["count"]` is what it is divided by; the other sums are reported likewise. The key is for dropout.
      optimizer: an optax gradient transformation.
      accumulate: in so many parts, one after another, the batch is computed, to save memory. Part k has the rows
        k, k + accumulate, ..., so that every device has some of each. What `extra` holds goes from part to part.
      axis_name: the `pmap` axis over which sums and gradients are added; None under `jit`.

    Returns:
      A learner with the metrics `loss` and the others, each divided by the count, and `grad_norm`.
    """

    def begin(key: Key, batch: Batch) -> State:
        # 2**31 - 1 is the one count that no step reaches, so that no step repeats the randomness of the weights.
        variables = init(jax.random.fold_in(key, 2**31 - 1), batch)
        extra = {name: value for name, value in variables.items() if name != "params"}
        return State(variables["params"], extra, optimizer.init(variables["params"]), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

        def part(extra: Any, batch: Batch, key: Key) -> tuple[Any, Sums, Any]:
            def loss(params: Any) -> tuple[Array, tuple[Sums, Any]]:
                sums, new = objective({"params": params, **extra}, batch, key)
                return sums["loss"], (sums, new)

            (_, (sums, extra)), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
            return gradient, sums, extra

        if accumulate == 1:
            gradient, sums, extra = part(state.extra, batch, key)
        else:
            parts = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]).swapaxes(0, 1), batch)
            shapes = jax.eval_shape(part, state.extra, jax.tree.map(lambda x: x[0], parts), key)
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[:2])

            def add(carry: Any, given: Any) -> tuple[Any, None]:
                totals, extra = carry
                *found, extra = part(extra, given[1], jax.random.fold_in(key, given[0]))
                return (jax.tree.map(jnp.add, totals, tuple(found)), extra), None

            ((gradient, sums), extra), _ = jax.lax.scan(add, (zeros, state.extra), (jnp.arange(accumulate), parts))
        if axis_name is not None:
            gradient, sums = jax.lax.psum((gradient, sums), axis_name)
        count = jnp.maximum(sums["count"], 1)
        gradient = jax.tree.map(lambda x: (x / count).astype(x.dtype), gradient)
        metrics = {name: value / count for name, value in sums.items() if name != "count"}
        metrics["grad_norm"] = global_norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, extra, opt_state, state.step + 1, state.key), metrics

    return Learner(begin, step)
