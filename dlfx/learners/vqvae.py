"""VQ-VAE: an autoencoder whose code is a grid of entries of a learned codebook, and the prior over such grids."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners.vae import binarized
from dlfx.losses import elbo
from dlfx.types import Array, Batch, Key, Learner, Metrics, UserError, unknown


class Averages(NamedTuple):
    """Moving averages of which a codebook is made."""

    usage: Array  # [K], vectors that chose each code, in a batch
    totals: Array  # [K, D], their sum


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any  # of the networks
    codebook: Array  # [K, D]
    averages: Averages | None  # None where gradients train the codebook
    opt_state: Any
    step: Array  # [] int32
    key: Key  # []


class Coded(NamedTuple):
    """Images as codes, and what that costs.

    Attributes:
      vectors: of the encoder `[B, h, w, D]`.
      codes: the nearest entry of the codebook `[B, h, w]` int32.
      log_likelihood: `log p(x | codes)` `[B]`.
      log_prior: `log p(codes)` `[B]`.
      distance: the squared distance of vectors from their codes, in the mean over positions `[B]`.
    """

    vectors: Array
    codes: Array
    log_likelihood: Array
    log_prior: Array
    distance: Array


def vqvae(
    model: Any,
    optimizer: optax.GradientTransformation,
    codes: int,
    width: int,
    *,
    likelihood: str = "gaussian",
    commitment: float = 0.25,
    decay: float = 0.99,
    restart: float = 0.0,
    binarize: bool = False,
    axis_name: str | None = None,
) -> Learner:
    """The learner of a VQ-VAE and of the prior over its codes, both at once.

    `-log p(x | e) + |sg[z] - e|^2 + commitment |z - sg[e]|^2 - log p(codes)`, with z the encoder's vectors, e the
    nearest entries of the codebook, sg no gradient, and distances in the mean over positions. The gradient of the first
    term passes from e to z unchanged. The second term is left out where the codebook is the moving average of what
    chose it. The prior sees the codes alone, so its term changes nothing else.

    Args:
      model: a Linen module with the methods `encode` (images) to z `[B, h, w, D]`, `decode` (e) to (logits or means
        `[B, H, W, C]`, log-variance `[]`), and `prior` (codes `[B, h, w]`) to logits `[B, h, w, K]` of each code given
        those before it in row-major order.
      optimizer: an optax gradient transformation.
      codes: K.
      width: D.
      likelihood: one of `elbo.LIKELIHOODS`.
      commitment: beta of the paper.
      decay: of the moving averages; 0 trains the codebook by gradient.
      restart: a code whose average of uses in a batch falls below this begins anew at a random vector of the batch; 0:
        none does. Of moving averages alone.
      binarize: draw black and white pixels from the greys anew at every step.
      axis_name: the `pmap` axis over which gradients, averages and metrics are taken; None under `jit`.

    Returns:
      A learner over batches `{"image": [B, H, W, C] in [0, 1]}`. Its metrics, of each batch before its update in nats
      an image: `loss = reconstruction + prior`, minus a lower bound on log p(x), as q(codes | x) is one point;
      `reconstruction`; `prior`, minus the codes' log-probability; `commitment`, the mean distance; `perplexity`, the
      exponential of the entropy of the batch's codes, at most K; and `grad_norm`.

    Raises:
      UserError: for what the above does not allow.

    Source: van den Oord et al. 2017 (arXiv:1711.00937), equation 3 and appendix A.1; restarts: Dhariwal et al. 2020,
      Jukebox (arXiv:2005.00341), section 3.1. A prior fitted after the rest, PixelCNN, is what the paper has.
    """
    check(likelihood, codes, width, commitment, decay, restart, binarize)

    def init(key: Key, batch: Batch) -> State:
        # 2**31 - 1 is the one count that no step reaches, so that no step repeats the randomness of the weights.
        network, book = jax.random.split(jax.random.fold_in(key, 2**31 - 1))
        params = model.init(network, batch["image"])["params"]
        codebook = jax.random.normal(book, (codes, width), jnp.promote_types(batch["image"].dtype, jnp.float32))
        averages = Averages(jnp.ones(codes, codebook.dtype), jnp.copy(codebook)) if decay else None
        return State(params, codebook, averages, optimizer.init((params, codebook)), jnp.int32(0), key)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        images = binarized(jax.random.fold_in(key, 0), batch["image"], axis_name) if binarize else batch["image"]

        def objective(trained: tuple[Any, Array]) -> tuple[Array, Coded]:
            params, codebook = trained
            found = code(model, params, codebook, images, likelihood)
            losses = commitment * found.distance - found.log_likelihood - found.log_prior
            if not decay:
                to_codes = codebook[found.codes] - jax.lax.stop_gradient(found.vectors)
                losses += (to_codes**2).sum(-1).mean((1, 2))
            return losses.mean(), found

        (_, found), gradient = jax.value_and_grad(objective, has_aux=True)((state.params, state.codebook))
        chosen = jax.nn.one_hot(found.codes.reshape(-1), codes, dtype=found.vectors.dtype)
        vectors = found.vectors.reshape(-1, width)
        usage, totals = chosen.sum(0), chosen.T @ vectors
        metrics = {
            "loss": -(found.log_likelihood + found.log_prior).mean(),
            "reconstruction": -found.log_likelihood.mean(),
            "prior": -found.log_prior.mean(),
            "commitment": found.distance.mean(),
        }
        if axis_name is not None:
            gradient, metrics = jax.lax.pmean((gradient, metrics), axis_name)
            usage, totals = jax.lax.psum((usage, totals), axis_name)
        metrics["perplexity"] = perplexity(usage)
        metrics["grad_norm"] = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, (state.params, state.codebook))
        params, codebook = optax.apply_updates((state.params, state.codebook), updates)
        averages = state.averages
        if averages is not None:
            averages = jax.tree.map(lambda a, x: decay * a + (1 - decay) * x, averages, Averages(usage, totals))
            if restart:
                averages = _restarted(averages, vectors, jax.random.fold_in(key, 1), restart, axis_name)
            # Laplace smoothing, as in the authors' code: a code that nothing chooses keeps a finite place.
            total = averages.usage.sum()
            smoothed = (averages.usage + 1e-5) / (total + codes * 1e-5) * total
            codebook = averages.totals / smoothed[:, None]
        return State(params, codebook, averages, opt_state, state.step + 1, state.key), metrics

    return Learner(init, step)


def check(
    likelihood: str, codes: int, width: int, commitment: float, decay: float, restart: float, binarize: bool
) -> None:
    """Raises a UserError for what no VQ-VAE can be."""
    if likelihood not in elbo.LIKELIHOODS:
        raise unknown("likelihood", likelihood, elbo.LIKELIHOODS)
    if codes < 2 or width < 1:
        raise UserError(f"a codebook of {codes} codes of {width} numbers is not possible; at least 2 of at least 1")
    if commitment < 0 or not 0 <= decay < 1 or restart < 0:
        raise UserError(
            f"commitment = {commitment:g}, decay = {decay:g}, restart = {restart:g} are not possible together: "
            "none is below 0, and decay is below 1"
        )
    if restart and not decay:
        raise UserError("restarts are of codebooks made of moving averages; set restart = 0 or a decay above 0")
    if binarize and likelihood != "bernoulli":
        raise UserError(f"pixels that are binarized are of a bernoulli likelihood, not of a {likelihood} one")


def nearest(vectors: Array, codebook: Array) -> Array:
    """The entry of a codebook `[K, D]` nearest to each of vectors `[..., D]`, `[...]` int32; the first among equals."""
    return ((codebook**2).sum(-1) - 2 * vectors @ codebook.T).argmin(-1).astype(jnp.int32)


def code(model: Any, params: Any, codebook: Array, images: Array, likelihood: str) -> Coded:
    """Images `[B, H, W, C]` through the codes and back; of the codebook no gradient is taken here."""
    vectors = model.apply({"params": params}, images, method="encode")
    fixed = jax.lax.stop_gradient(codebook)
    codes = nearest(jax.lax.stop_gradient(vectors), fixed)
    entries = fixed[codes]
    straight = vectors + jax.lax.stop_gradient(entries - vectors)
    outputs, scale = model.apply({"params": params}, straight, method="decode")
    logits = model.apply({"params": params}, codes, method="prior")
    log_prior = -optax.softmax_cross_entropy_with_integer_labels(logits, codes).sum((1, 2))
    log_likelihood = elbo.LIKELIHOODS[likelihood](outputs, scale, images)
    return Coded(vectors, codes, log_likelihood, log_prior, ((vectors - entries) ** 2).sum(-1).mean((1, 2)))


def perplexity(usage: Array) -> Array:
    """The exponential of the entropy of counts `[..., K]`: as many codes in even use have that entropy."""
    p = usage / usage.sum(-1, keepdims=True)
    return jnp.exp(-jax.scipy.special.xlogy(p, p).sum(-1))


def sample(model: Any, params: Any, shape: tuple[int, int, int], key: Key) -> Array:
    """Codes `[B, h, w]` drawn from the prior, one position after the other."""
    size, positions = shape[0], math.prod(shape[1:])

    def draw(i: Array, codes: Array) -> Array:
        logits = model.apply({"params": params}, codes.reshape(shape), method="prior").reshape(size, positions, -1)
        return codes.at[:, i].set(jax.random.categorical(jax.random.fold_in(key, i), logits[:, i]))

    return jax.lax.fori_loop(0, positions, draw, jnp.zeros((size, positions), jnp.int32)).reshape(shape)


def _restarted(averages: Averages, vectors: Array, key: Key, least: float, axis_name: str | None) -> Averages:
    """The averages with a random one of the vectors `[n, D]` of the whole batch in place of every code hardly used."""
    if axis_name is not None:
        vectors = jax.lax.all_gather(vectors, axis_name, tiled=True)
    chosen = vectors[jax.random.randint(key, averages.usage.shape, 0, len(vectors))]
    dead = averages.usage < least
    return Averages(jnp.where(dead, least, averages.usage), jnp.where(dead[:, None], least * chosen, averages.totals))
