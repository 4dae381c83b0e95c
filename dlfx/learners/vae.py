"""Variational autoencoders by gradient ascent on the evidence lower bound, or on the importance-weighted one."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners.noise import rows
from dlfx.losses import elbo
from dlfx.types import Array, Batch, Key, Learner, Metrics, UserError, unknown


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any  # trained by gradient
    opt_state: Any
    step: Array  # [] int32
    key: Key  # []


class Bound(NamedTuple):
    """The terms of the bound, of each image.

    Attributes:
      log_likelihood: `log p(x | z)` of each draw `[B, k]`.
      log_ratio: `log p(z) - log q(z | x)` of each draw `[B, k]`.
      kl: the divergence of q(z | x) from the prior `[B, D]`.
      mean: of q(z | x) `[B, D]`.
    """

    log_likelihood: Array
    log_ratio: Array
    kl: Array
    mean: Array

    @property
    def value(self) -> Array:
        """The bound on log p(x) `[B]`, of one draw with the divergence in closed form."""
        if self.log_ratio.shape[-1] == 1:
            return self.log_likelihood[:, 0] - self.kl.sum(-1)
        return elbo.importance_weighted(self.log_likelihood + self.log_ratio)


def vae(
    model: Any,
    optimizer: optax.GradientTransformation,
    latent: int,
    *,
    likelihood: str = "bernoulli",
    samples: int = 1,
    beta: float = 1.0,
    warmup_steps: int = 0,
    free_bits: float = 0.0,
    binarize: bool = False,
    axis_name: str | None = None,
) -> Learner:
    """The learner of a variational autoencoder.

    With one draw it descends `-log p(x | z) + w KL(q(z | x) || p(z))`, the divergence in closed form; with k draws
    `-log 1/k sum_i p(x | z_i) (p(z_i) / q(z_i | x))^w`. The weight w rises linearly to `beta` over the warm-up.

    Args:
      model: a Linen module with the methods `encode` (images, labels) to (mu, log s^2), both `[B, latent]`, and
        `decode` (latents, labels) to (logits or means `[B, H, W, C]`, log-variance `[]`).
      optimizer: an optax gradient transformation.
      latent: dimensions of z.
      likelihood: one of `elbo.LIKELIHOODS`.
      samples: k, the draws of z for each image.
      beta: the weight of the divergence after the warm-up; above 1 it buys independent latents with likelihood.
      warmup_steps: steps over which the weight rises.
      free_bits: nats below which the divergence of a latent, in the mean over the batch, is not lowered further.
      binarize: draw black and white pixels from the greys anew at every step.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner over batches `{"image": [B, H, W, C] in [0, 1], "label": [B]}`. Its metrics, of each batch before its
      update in nats an image: `loss`, minus the bound without any weight; `reconstruction`, minus log p(x | z); `kl`;
      and `grad_norm`.

    Raises:
      UserError: for what the above does not allow.

    Source: Kingma and Welling 2013 (arXiv:1312.6114), equation 10; k draws: Burda et al. 2015 (arXiv:1509.00519),
      equation 8; beta: Higgins et al. 2017, beta-VAE; warm-up: Bowman et al. 2016 (arXiv:1511.06349), section 3.1;
      free bits: Kingma et al. 2016 (arXiv:1606.04934), equation 15.
    """
    check(likelihood, latent, samples, beta, free_bits, binarize)

    def init(key: Key, batch: Batch) -> State:
        # 2**31 - 1 is the one count that no step reaches, so that no step repeats the randomness of the weights.
        params = model.init(jax.random.fold_in(key, 2**31 - 1), batch["image"], batch["label"])["params"]
        return State(params, optimizer.init(params), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        images, labels = batch["image"], batch["label"]
        exact = jnp.promote_types(images.dtype, jnp.float32)
        noise = rows(
            lambda n: jax.random.normal(jax.random.fold_in(key, 0), (n, samples, latent), exact), len(images), axis_name
        )
        if binarize:
            images = binarized(jax.random.fold_in(key, 1), images, axis_name)
        weight = beta * jnp.minimum(1.0, (state.step + 1) / max(warmup_steps, 1)).astype(exact)

        def objective(params: Any) -> tuple[Array, Bound]:
            found = bound(model, params, images, labels, noise, likelihood)
            if samples > 1:
                return -elbo.importance_weighted(found.log_likelihood + weight * found.log_ratio).mean(), found
            kl = found.kl.mean(0)
            if free_bits:
                level = jax.lax.stop_gradient(kl if axis_name is None else jax.lax.pmean(kl, axis_name))
                kl = jnp.where(level > free_bits, kl, free_bits)
            return -found.log_likelihood.mean() + weight * kl.sum(), found

        (_, found), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        metrics = {
            "loss": -found.value.mean(),
            "reconstruction": -found.log_likelihood.mean(),
            "kl": found.kl.sum(-1).mean(),
        }
        if axis_name is not None:
            gradient, metrics = jax.lax.pmean((gradient, metrics), axis_name)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, state.step + 1, state.key), metrics

    return Learner(init, step)


def check(likelihood: str, latent: int, samples: int, beta: float, free_bits: float, binarize: bool) -> None:
    """Raises a UserError for what no variational autoencoder can be."""
    if likelihood not in elbo.LIKELIHOODS:
        raise unknown("likelihood", likelihood, elbo.LIKELIHOODS)
    for name, value, least in (
        ("latent", latent, 1),
        ("samples", samples, 1),
        ("beta", beta, 0),
        ("free_bits", free_bits, 0),
    ):
        if value < least:
            raise UserError(f"{name} = {value:g} is not possible; it is at least {least}")
    if binarize and likelihood != "bernoulli":
        raise UserError(f"pixels that are binarized are of a bernoulli likelihood, not of a {likelihood} one")
    if free_bits and samples > 1:
        raise UserError("free bits are of the bound of one sample; set samples = 1 or free_bits = 0")


def binarized(key: Key, images: Array, axis_name: str | None) -> Array:
    """Images `[B, H, W, C]` with pixels 0 and 1 drawn anew from their greys, the same however devices share them."""
    bits = rows(lambda n: jax.random.bits(key, (n, *images.shape[1:]), jnp.uint16), len(images), axis_name)
    return elbo.binarize(bits, images)


def bound(model: Any, params: Any, images: Array, labels: Array, noise: Array, likelihood: str) -> Bound:
    """The bound on the log-likelihood of images `[B, H, W, C]` with the given noise `[B, k, D]`."""
    mean, log_variance = model.apply({"params": params}, images, labels, method="encode")
    drawn = _draws(model, params, images, labels, mean, log_variance, noise, likelihood)
    return Bound(*drawn, elbo.gaussian_kl(mean, log_variance), mean)


def _draws(
    model: Any,
    params: Any,
    images: Array,
    labels: Array,
    mean: Array,
    log_variance: Array,
    noise: Array,
    likelihood: str,
) -> tuple[Array, Array]:
    """log p(x | z) and log p(z) - log q(z | x), both `[B, k]`, of the draws that the noise `[B, k, D]` makes."""
    size, samples, latent = noise.shape
    latents = elbo.reparameterize(mean[:, None], log_variance[:, None], noise)
    repeated = labels.repeat(samples, 0)
    outputs, scale = model.apply({"params": params}, latents.reshape(-1, latent), repeated, method="decode")
    outputs = outputs.reshape(size, samples, *outputs.shape[1:])
    log_ratio = 0.5 * (noise**2 + log_variance[:, None] - latents**2).sum(-1)  # (z - mu) / s is the noise
    return elbo.LIKELIHOODS[likelihood](outputs, scale, images[:, None]), log_ratio


def row_noise(keys: Key, samples: int, latent: int, dtype: Any) -> Array:
    """Standard normal noise `[B, samples, latent]`, each image's from a key of its own `[B]`."""
    return jax.vmap(lambda key: jax.random.normal(key, (samples, latent), dtype))(keys)


def log_evidence(
    model: Any,
    params: Any,
    images: Array,
    labels: Array,
    keys: Key,
    likelihood: str,
    samples: int,
    chunk: int = 20,
) -> Array:
    """The importance-weighted bound on log p(x) with many draws, a few at a time: memory does not grow with them.

    Args:
      model, params, likelihood: as of `vae`.
      images: `[B, H, W, C]`.
      labels: `[B]`.
      keys: one for each image `[B]`.
      samples: k.
      chunk: draws at once.

    Returns:
      `[B]` in nats.

    Source: Burda et al. 2015 (arXiv:1509.00519), equation 8 and section 5 (k = 5000).
    """
    mean, log_variance = model.apply({"params": params}, images, labels, method="encode")

    def add(total: Array, i: Array) -> tuple[Array, None]:
        noise = row_noise(jax.vmap(lambda key: jax.random.fold_in(key, i))(keys), chunk, mean.shape[-1], mean.dtype)
        log_weights = sum(_draws(model, params, images, labels, mean, log_variance, noise, likelihood))
        log_weights = jnp.where(i * chunk + jnp.arange(chunk) < samples, log_weights, -jnp.inf)
        return jnp.logaddexp(total, jax.nn.logsumexp(log_weights, -1)), None

    nothing = jnp.full(len(images), -jnp.inf, mean.dtype)
    return jax.lax.scan(add, nothing, jnp.arange(-(-samples // chunk)))[0] - math.log(samples)
