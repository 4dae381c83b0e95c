"""Autoencoders by gradient descent: plain, denoising, sparse and contractive ones."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners import noise
from dlfx.types import Array, Batch, Key, Learner, Metrics, UserError, unknown

LOSSES = ("squared", "bernoulli")
CORRUPTIONS = ("masking", "gaussian")
SPARSITIES = ("kl", "l1")


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any
    opt_state: Any
    step: Array  # [] int32
    key: Key  # []


def autoencoder(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    loss: str = "squared",
    corruption: str = "masking",
    amount: float = 0.0,
    sparsity: str = "kl",
    sparsity_weight: float = 0.0,
    sparsity_target: float = 0.05,
    contraction: float = 0.0,
    axis_name: str | None = None,
) -> Learner:
    """The learner of an autoencoder: it reconstructs images from their codes, whose form the penalties shape.

    `L(x, g(f(corrupted x))) + sparsity_weight S(f) + contraction ||df/dx||^2`, the mean over a batch.

    Args:
      model: a Linen module; `apply(variables, images)` gives (outputs `[B, H, W, C]`, code `[B, n]`), and, for a
        contraction, `apply(variables, images, method="squared_jacobian")` gives `[B]`.
      optimizer: an optax gradient transformation.
      loss: L, see `reconstruction_loss`.
      corruption: what is done to the input, see `corrupt`. The target stays clean.
      amount: of it; 0: none.
      sparsity: `kl`, see `kl_sparsity`, of a code within (0, 1); `l1`: `sum_j |code_j|`.
      sparsity_weight: 0: none.
      sparsity_target: the mean activation that `kl` wants, within (0, 1).
      contraction: the weight of the squared Frobenius norm of the encoder's Jacobian; 0: none.
      axis_name: the `pmap` axis over which gradients, metrics and mean activations are averaged; None under `jit`.

    Returns:
      A learner over batches `{"image": [B, H, W, C]}` with values in [0, 1], with the metrics `loss` (with penalties),
      `reconstruction_loss`, `pixel_error` (the mean squared error of a pixel), `sparsity_loss` and `contraction_loss`
      where there is such a penalty (without its weight), and `grad_norm`.

    Raises:
      UserError: for an unknown name, or a number outside its range.

    Source: Vincent et al. 2010, Stacked Denoising Autoencoders, equation 10; Ng 2011, CS294A Sparse Autoencoder,
      section 3; Rifai et al. 2011, Contractive Auto-Encoders, equation 7.
    """
    for kind, name, allowed in (
        ("loss", loss, LOSSES),
        ("corruption", corruption, CORRUPTIONS),
        ("sparsity", sparsity, SPARSITIES),
    ):
        if name not in allowed:
            raise unknown(kind, name, allowed)
    check_amount(amount)
    if not 0 < sparsity_target < 1:
        raise UserError(f"a mean activation of {sparsity_target:g} is not possible; it must be between 0 and 1")

    def init(key: Key, batch: Batch) -> State:
        # 2**31 - 1 is the one count that no step reaches, so that no step repeats the randomness of the weights.
        params = model.init(jax.random.fold_in(key, 2**31 - 1), batch["image"])["params"]
        return State(params, optimizer.init(params), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        images = batch["image"]
        given = corrupt(corruption, amount, jax.random.fold_in(state.key, state.step), images, axis_name)

        def objective(params: Any) -> tuple[Array, dict[str, Array]]:
            outputs, code = model.apply({"params": params}, given)
            total = reconstruction_loss(loss, outputs, images).mean()
            found = {"reconstruction_loss": total, "pixel_error": jnp.square(mean(loss, outputs) - images).mean()}
            if sparsity_weight:
                if sparsity == "kl":
                    active = code.mean(0)
                    if axis_name is not None:  # the divergence is of the mean over the whole batch
                        active = jax.lax.pmean(active, axis_name)
                    found["sparsity_loss"] = kl_sparsity(active, sparsity_target)
                else:
                    found["sparsity_loss"] = jnp.abs(code).sum(-1).mean()
                total = total + sparsity_weight * found["sparsity_loss"]
            if contraction:
                squared = model.apply({"params": params}, given, method="squared_jacobian")
                found["contraction_loss"] = squared.mean()
                total = total + contraction * found["contraction_loss"]
            return total, {"loss": total, **found}

        gradient, metrics = jax.grad(objective, has_aux=True)(state.params)
        if axis_name is not None:
            gradient, metrics = jax.lax.pmean((gradient, metrics), axis_name)
        metrics = {**metrics, "grad_norm": optax.tree.norm(gradient)}
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state, state.step + 1, state.key), metrics

    return Learner(init, step)


def reconstruct(model: Any, state: State, images: Array, loss: str) -> tuple[Array, Array, Array]:
    """(outputs `[B, H, W, C]`, the images they stand for, codes `[B, n]`) of images `[B, H, W, C]`."""
    outputs, code = model.apply({"params": state.params}, images)
    return outputs, mean(loss, outputs), code


def reconstruction_loss(loss: str, outputs: Array, targets: Array) -> Array:
    """How far the outputs of a decoder are from what was encoded, one value an example.

    `squared`: `sum_i (y_i - x_i)^2`; `bernoulli`: `-sum_i x_i log p_i + (1 - x_i) log(1 - p_i)` with
    `p = sigmoid(y)`, in nats.

    Args:
      loss: which of the two.
      outputs: y, `[B, ...]`.
      targets: x, `[B, ...]`; for `bernoulli` within [0, 1].

    Returns:
      `[B]`, sums over all axes but the first.

    Source: Vincent et al. 2010, Stacked Denoising Autoencoders, section 2.2.
    """
    each = jnp.square(outputs - targets) if loss == "squared" else optax.sigmoid_binary_cross_entropy(outputs, targets)
    return each.reshape(len(each), -1).sum(-1)


def mean(loss: str, outputs: Array) -> Array:
    """The values that outputs stand for: themselves under `squared`, their sigmoid under `bernoulli`."""
    return outputs if loss == "squared" else jax.nn.sigmoid(outputs)


def corrupt(kind: str, amount: float, key: Key, x: Array, axis_name: str | None = None) -> Array:
    """Destroys some of x.

    `masking`: every element is 0 with probability `amount`; `gaussian`: normal noise of standard deviation `amount`
    is added.

    Args:
      kind: which of the two.
      amount: in [0, 1); 0 leaves x as it is.
      key: of this draw.
      x: `[B, ...]`.
      axis_name: the `pmap` axis over which the rows of the batch are split; None under `jit`.

    Returns:
      Of the shape of x.

    Source: Vincent et al. 2010, Stacked Denoising Autoencoders, section 3.3.
    """
    if not amount:
        return x

    def draw(sample: Callable[..., Array]) -> Array:
        return noise.rows(lambda n: sample(key, (n, *x.shape[1:]), x.dtype), len(x), axis_name)

    if kind == "gaussian":
        return x + amount * draw(jax.random.normal)
    return jnp.where(draw(jax.random.uniform) < amount, 0, x)


def kl_sparsity(active: Array, target: float) -> Array:
    """The divergence of a code's mean activations from a wanted one.

    `sum_j r log(r / a_j) + (1 - r) log((1 - r) / (1 - a_j))` with r the target

    Args:
      active: a, `[n]`, each the mean over a batch.
      target: r, in (0, 1).

    Returns:
      [] in nats, 0 where all are r.

    Source: Ng 2011, CS294A Sparse Autoencoder, section 3.
    """
    # A unit that is silent or full on a whole batch would make it infinite.
    active = active.clip(1e-6, 1 - 1e-6)
    ratio, other = target / active, (1 - target) / (1 - active)
    return (target * jnp.log(ratio) + (1 - target) * jnp.log(other)).sum()


def check_amount(amount: float) -> None:
    """Raises a UserError for an amount of corruption outside [0, 1)."""
    if not 0 <= amount < 1:
        raise UserError(f"a corruption of {amount:g} is not possible; it must be at least 0 and below 1")
