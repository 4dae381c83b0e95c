"""Gradient descent by the three steps of back-propagation: all activations, all derivatives, the update.

The size of the batch makes it batch, stochastic (one example) or mini-batch gradient descent.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.types import Array, Batch, Key, Learner, Metrics, unknown

GRADIENTS = ["hand", "autodiff"]


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any
    opt_state: Any
    step: Array  # [] int32
    key: Key  # []


def backprop(
    network: Any,
    optimizer: optax.GradientTransformation,
    *,
    gradient: str = "hand",
    axis_name: str | None = None,
) -> Learner:
    """The learner of a network that brings its own backward pass.

    Args:
      network: `init(key)` to parameters, `forward(params, inputs)` to a trace whose `before[-1]` are the scores
        `[B, K]`, `losses(trace, labels)` to `[B]`, and `backward(params, trace, labels)` to the gradient of their
        mean; such as `dlfx.ops.backprop.network`.
      optimizer: an optax gradient transformation.
      gradient: `hand`, the network's backward pass, or `autodiff`, which ignores it.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner over batches `{"image": [B, ...], "label": [B]}`, with the metrics `loss` and `accuracy` of each batch
      before its update, and `grad_norm`, the global norm of the gradient.

    Raises:
      UserError: for another `gradient`.
    """
    if gradient not in GRADIENTS:
        raise unknown("gradient", gradient, GRADIENTS)

    def init(key: Key, batch: Batch) -> State:
        params = network.init(jax.random.fold_in(key, 2**31 - 1))
        jax.eval_shape(network.forward, params, batch["image"])  # an input of another size is told before training
        return State(params, optimizer.init(params), jnp.int32(0), key)

    def by_autodiff(params: Any, images: Array, labels: Array) -> Any:
        return jax.grad(lambda params: network.losses(network.forward(params, images), labels).mean())(params)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        images, labels = batch["image"], batch["label"]
        trace = network.forward(state.params, images)
        if gradient == "hand":
            slopes = network.backward(state.params, trace, labels)
        else:
            slopes = by_autodiff(state.params, images, labels)
        loss = network.losses(trace, labels).mean()
        metrics = {"loss": loss, "accuracy": (trace.before[-1].argmax(-1) == labels).mean(dtype=loss.dtype)}
        if axis_name is not None:
            slopes, metrics = jax.lax.pmean((slopes, metrics), axis_name)
        metrics["grad_norm"] = optax.tree.norm(slopes)
        updates, opt_state = optimizer.update(slopes, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, state.step + 1, state.key), metrics

    return Learner(init, step)
