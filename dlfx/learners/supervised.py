"""Supervised classification by gradient descent: the plainest learning rule."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners.norms import global_norm
from dlfx.losses.classification import softmax_cross_entropy
from dlfx.types import Array, Batch, Key, Learner, Metrics, example_keys


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any  # trained by gradient
    extra: Any  # the model's other collections, such as running statistics of batch norm
    opt_state: Any
    step: Array  # [] int32
    key: Key  # []


def supervised(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    smoothing: float = 0.0,
    aux_weight: float = 0.0,
    frozen: Callable[[Any], Any] | None = None,
    augment: Callable[[Key, Array], Array] | None = None,
    axis_name: str | None = None,
) -> Learner:
    """The learner of a classifier: one gradient step on the mean cross-entropy of a batch.

    Args:
      model: a Linen module; `apply(variables, images, train=bool)` gives (logits `[B, K]`, named features).
      optimizer: an optax gradient transformation.
      smoothing: label smoothing, see `softmax_cross_entropy`.
      aux_weight: what the cross-entropy of each auxiliary head is multiplied by and added with. Those are the features
        whose names begin with `aux`, `[B, K]`.
      frozen: parameters to a tree of bool: those that stay, to the bit, whatever the optimizer would do to them. No
        gradients are computed for them, and the optimizer keeps nothing for them.
      augment: (key, image `[H, W, C]`) to an image, applied to every training example inside the step.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner over batches `{"image": [B, H, W, C], "label": [B]}`, with the metrics `loss` (of all heads) and
      `accuracy` of each batch before its update, and `grad_norm`, the global norm of the gradient.
    """
    if frozen:
        optimizer = optax.masked(optimizer, lambda params: jax.tree.map(lambda fixed: not fixed, frozen(params)))

    def keep(fixed: Any, free: Any) -> Any:
        """The first of two trees where parameters are frozen, and the second elsewhere."""
        return jax.tree.map(lambda at, a, b: a if at else b, frozen(free), fixed, free) if frozen else free

    def init(key: Key, batch: Batch) -> State:
        # 2**31 - 1 is the one count that no step reaches, so that no step repeats the randomness of the weights.
        variables = model.init(jax.random.fold_in(key, 2**31 - 1), batch["image"], train=False)
        extra = {name: value for name, value in variables.items() if name != "params"}
        return State(variables["params"], extra, optimizer.init(variables["params"]), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        images, labels = batch["image"], batch["label"]
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(images)
        if augment:
            images = jax.vmap(augment)(example_keys(state.key, state.step, first, len(images)), images)
        dropout = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 1)
        if axis_name is not None:
            dropout = jax.random.fold_in(dropout, jax.lax.axis_index(axis_name))

        def objective(params: Any) -> tuple[Array, tuple[Array, Any]]:
            (logits, features), extra = model.apply(
                {"params": keep(jax.lax.stop_gradient(params), params), **state.extra},
                images,
                train=True,
                mutable=list(state.extra),
                rngs={"dropout": dropout},
            )
            loss = softmax_cross_entropy(logits, labels, smoothing).mean()
            if aux_weight:
                heads = [value for name, value in features.items() if name.startswith("aux")]
                loss += aux_weight * sum(softmax_cross_entropy(head, labels, smoothing).mean() for head in heads)
            return loss, (logits, extra)

        (loss, (logits, extra)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        metrics = {"loss": loss, "accuracy": (logits.argmax(-1) == labels).mean(dtype=loss.dtype)}
        if axis_name is not None:
            gradient, metrics = jax.lax.pmean((gradient, metrics), axis_name)
        metrics["grad_norm"] = global_norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = keep(state.params, optax.apply_updates(state.params, updates))
        return State(params, extra, opt_state, state.step + 1, state.key), metrics

    return Learner(init, step)


def predict(model: Any, state: State, images: Array) -> tuple[Array, dict[str, Array]]:
    """The logits `[B, K]` and named features of images `[B, H, W, C]`, with the running statistics of batch norm."""
    return model.apply({"params": state.params, **state.extra}, images, train=False)
