"""Greedy layer-wise pretraining: every layer learns to encode the code below it, then all learn to classify."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners.autoencoder import CORRUPTIONS, LOSSES, check_amount, corrupt, reconstruction_loss
from dlfx.losses.classification import softmax_cross_entropy
from dlfx.types import Array, Batch, Key, Learner, Metrics, UserError, unknown


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any  # of layers, decoders and the output
    extra: Any  # the model's other collections, such as running statistics of batch norm
    opt_states: tuple[Any, ...]  # of each stage, over what that stage trains
    pretrained: Any  # parameters and other collections as the last stage found them
    step: Array  # [] int32
    key: Key  # []


def layerwise(
    model: Any,
    optimizer: optax.GradientTransformation,
    pretrain_optimizer: optax.GradientTransformation,
    *,
    depth: int,
    pretrain_steps: int,
    loss: str = "bernoulli",
    corruption: str = "masking",
    amount: float = 0.0,
    axis_name: str | None = None,
) -> Learner:
    """The learner of a deep classifier whose layers are first trained one after the other, without labels.

    Stage n = 0 ... depth - 1, of `pretrain_steps` steps each, minimises over layer n and decoder n alone
    `L(code_n, decoder_n(layer_n(corrupted code_n)))`, where `code_n` is what the layers below make of an image. They
    are frozen, and each stage reconstructs the code before it, not the image. The last stage, all steps after that,
    minimises the cross-entropy of the labels over all layers and the output. The step counter says which stage it is.

    Args:
      model: a Linen module with parameters named `layer_n`, `decoder_n` for n = 0 ... depth - 1, and others; see
        `dlfx.models.generative.autoencoder.StackedAutoencoder`.
      optimizer: of the last stage.
      pretrain_optimizer: of the others; each begins it afresh.
      depth: the number of layers.
      pretrain_steps: of each stage but the last; 0: the last stage alone, from random weights.
      loss: L, see `reconstruction_loss`; `bernoulli` is of codes within [0, 1].
      corruption: what is done to the code that a stage encodes, see `dlfx.learners.autoencoder.corrupt`.
      amount: of it; 0: none.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner over batches `{"image": [B, H, W, C], "label": [B]}`, with the metrics `loss` (of the stage), `stage`,
      `accuracy` (of the classifier, before the update) and `grad_norm`. The members of a population are at one step.

    Raises:
      UserError: for an unknown name, or an amount outside its range.

    Source: Hinton, Osindero and Teh 2006, A Fast Learning Algorithm for Deep Belief Nets; with autoencoders: Bengio et
      al. 2007, Greedy Layer-Wise Training of Deep Networks, section 3; with corruption: Vincent et al. 2010.
    """
    for kind, name, allowed in (("loss", loss, LOSSES), ("corruption", corruption, CORRUPTIONS)):
        if name not in allowed:
            raise unknown(kind, name, allowed)
    check_amount(amount)
    if depth < 1 or pretrain_steps < 0:
        raise UserError(f"{depth} layers of {pretrain_steps} steps each; at least 1 layer and 0 steps are possible")
    optimizers = [pretrain_optimizer] * depth + [optimizer]

    def init(key: Key, batch: Batch) -> State:
        variables = model.init(jax.random.fold_in(key, 2**31 - 1), batch["image"], method="everything")
        params = variables["params"]
        extra = {name: value for name, value in variables.items() if name != "params"}
        opt_states = tuple(each.init(trained(params, n, depth)) for n, each in enumerate(optimizers))
        return State(params, extra, opt_states, jax.tree.map(jnp.copy, variables), jnp.int32(0), key)

    def descend(
        state: State, stage: int, objective: Callable[[Any], tuple[Array, tuple[Array, Any]]]
    ) -> tuple[State, Metrics]:
        part = trained(state.params, stage, depth)
        (value, (accuracy, extra)), gradient = jax.value_and_grad(objective, has_aux=True)(part)
        if axis_name is not None:
            value, accuracy, gradient = jax.lax.pmean((value, accuracy, gradient), axis_name)
        updates, new = optimizers[stage].update(gradient, state.opt_states[stage], part)
        params = {**state.params, **optax.apply_updates(part, updates)}
        metrics = {
            "loss": value,
            "stage": jnp.full((), stage, value.dtype),
            "accuracy": accuracy,
            "grad_norm": optax.tree.norm(gradient),
        }
        opt_states = (*state.opt_states[:stage], new, *state.opt_states[stage + 1 :])
        pretrained = {"params": params, **extra} if stage < depth else state.pretrained
        return State(params, extra, opt_states, pretrained, state.step + 1, state.key), metrics

    def accuracy_of(logits: Array, batch: Batch, dtype: Any) -> Array:
        return (logits.argmax(-1) == batch["label"]).mean(dtype=dtype)

    def pretrain(stage: int, state: State, batch: Batch) -> tuple[State, Metrics]:
        variables = {"params": state.params, **state.extra}
        code = model.apply(variables, batch["image"], stage, method="encode")
        given = corrupt(corruption, amount, jax.random.fold_in(state.key, state.step), code, axis_name)
        logits, _ = model.apply(variables, batch["image"], train=False)

        def objective(part: Any) -> tuple[Array, tuple[Array, Any]]:
            outputs, extra = model.apply(
                {"params": {**state.params, **part}, **state.extra},
                given,
                stage,
                train=True,
                method="reconstruct",
                mutable=list(state.extra),
            )
            value = reconstruction_loss(loss, outputs, code).mean()
            return value, (accuracy_of(logits, batch, value.dtype), extra)

        return descend(state, stage, objective)

    def finetune(state: State, batch: Batch) -> tuple[State, Metrics]:
        def objective(part: Any) -> tuple[Array, tuple[Array, Any]]:
            (logits, _), extra = model.apply(
                {"params": {**state.params, **part}, **state.extra},
                batch["image"],
                train=True,
                mutable=list(state.extra),
            )
            value = softmax_cross_entropy(logits, batch["label"]).mean()
            return value, (accuracy_of(logits, batch, value.dtype), extra)

        return descend(state, depth, objective)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        if not pretrain_steps:
            return finetune(state, batch)
        stages = [lambda state, batch, n=n: pretrain(n, state, batch) for n in range(depth)] + [finetune]
        return jax.lax.switch(stage_of(state.step, pretrain_steps, depth), stages, state, batch)

    return Learner(init, step)


def stage_of(step: Array, pretrain_steps: int, depth: int) -> Array:
    """The stage of a step, [] int32: 0 ... depth - 1 for pretraining, depth for the last."""
    return jnp.minimum(step // pretrain_steps, depth)


def trained(params: Any, stage: int, depth: int) -> dict[str, Any]:
    """The parameters that a stage changes, by name: of one layer and its decoder; of all but decoders in the last."""
    if stage < depth:
        return {name: params[name] for name in (f"layer_{stage}", f"decoder_{stage}")}
    return {name: value for name, value in params.items() if not name.startswith("decoder_")}


def predict(model: Any, state: State, images: Array) -> tuple[Array, dict[str, Array]]:
    """The logits `[B, K]` and named features of images `[B, H, W, C]`, with the running statistics of batch norm."""
    return model.apply({"params": state.params, **state.extra}, images, train=False)
