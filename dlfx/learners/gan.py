"""Generative adversarial networks: the losses of generator and critic over batches of examples, for `two_player`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dlfx.learners import two_player
from dlfx.learners.noise import rows
from dlfx.losses.adversarial import Game, gradient_penalty, interpolates, r1
from dlfx.types import Array, Batch, Key, Learner, Metrics


def gan(
    generator: Any,
    critic: Any,
    game: Game,
    critic_optimizer: optax.GradientTransformation,
    generator_optimizer: optax.GradientTransformation,
    *,
    latent: int,
    conditional: bool = False,
    penalty: float = 0.0,
    gamma: float = 0.0,
    critic_steps: int = 1,
    clip: float = 0.0,
    decay: float = 0.0,
    axis_name: str | None = None,
) -> Learner:
    """The learner of a generative adversarial network.

    One step is `critic_steps` turns of the critic, each on its own real and generated examples, then one of the
    generator, on those that the critic has seen last: made once, they serve both. Generated examples take the labels
    of the real ones.

    Args:
      generator: a Linen module; `apply(variables, latents [B, latent], labels [B] or None, train=bool)` gives examples.
      critic: likewise; `apply(variables, examples, labels, train=bool)` gives logits `[B]`.
      game: what each minimises, of `losses.adversarial.GAMES`.
      critic_optimizer: an optax gradient transformation.
      generator_optimizer: likewise.
      latent: the dimension of the standard normal z.
      conditional: whether both are told the labels.
      penalty: weight of the gradient penalty at interpolates, lambda; 0: none. The critic then has no batch norm.
      gamma: weight of R1, the penalty on real examples; 0: none. Likewise.
      critic_steps, clip, decay, axis_name: as of `two_player`.

    Returns:
      A learner over batches `{"image": [critic_steps B, ...], "label": [critic_steps B]}`, on the scale that the
      generator gives (labels only where conditional), with the metrics of `two_player` and
      `d_real` and `d_fake`, the means of D on real and generated examples in the critic's last turn: probabilities
      where the game has them, else the critic's numbers, whose difference estimates the Wasserstein distance in that
      game; `penalty` and `r1`, where they are used, without their weights.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), algorithm 1; Gulrajani et al. 2017 (arXiv:1704.00028),
      algorithm 1; Mescheder et al. 2018 (arXiv:1801.04406), section 4.1.
    """

    def labels_of(batch: Batch) -> Array | None:
        return batch["label"] if conditional else None

    def init(key: Key, batch: Batch) -> tuple[Any, Any, None]:
        keys = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        image, labels = batch["image"], labels_of(batch)
        latents = jnp.zeros((len(image), latent), image.dtype)
        made = generator.init(keys[0], latents, labels, train=False)
        return made, critic.init(keys[1], image, labels, train=False), None

    def generate(params: Any, extra: Any, batch: Batch, key: Key) -> tuple[Array, Any]:
        image = batch["image"]
        latents = rows(lambda n: jax.random.normal(key, (n, latent), image.dtype), len(image), axis_name)
        variables = {"params": params, **extra}
        return generator.apply(variables, latents, labels_of(batch), train=True, mutable=list(extra))

    def judge(params: Any, extra: Any, image: Array, batch: Batch) -> tuple[Array, Any]:
        return critic.apply({"params": params, **extra}, image, labels_of(batch), train=True, mutable=list(extra))

    def critic_loss(params: Any, state: two_player.State, batch: Batch, key: Key) -> tuple[Array, two_player.Turn]:
        real, keys = batch["image"], [jax.random.fold_in(key, i) for i in range(2)]
        fake, _ = generate(state.generator.params, state.generator.extra, batch, keys[0])
        on_real, extra = judge(params, state.critic.extra, real, batch)
        on_fake, extra = judge(params, extra, fake, batch)
        loss = game.critic(on_real, on_fake)
        metrics: Metrics = {"d_real": game.output(on_real).mean(), "d_fake": game.output(on_fake).mean()}

        def alone(image: Array) -> Array:
            return judge(params, extra, image, batch)[0]

        if penalty:
            weights = rows(lambda n: jax.random.uniform(keys[1], (n,), real.dtype), len(real), axis_name)
            found = gradient_penalty(alone, interpolates(real, fake, weights))
            loss, metrics = loss + penalty * found, {**metrics, "penalty": found}
        if gamma:
            found = r1(alone, real)
            loss, metrics = loss + gamma * found, {**metrics, "r1": found}
        return loss, two_player.Turn(extra, None, metrics)

    def generator_loss(params: Any, state: two_player.State, batch: Batch, key: Key) -> tuple[Array, two_player.Turn]:
        fake, extra = generate(params, state.generator.extra, batch, jax.random.fold_in(key, 0))
        logits, _ = judge(state.critic.params, state.critic.extra, fake, batch)
        return game.generator(logits), two_player.Turn(extra, None, {})

    return two_player.two_player(
        init,
        critic_loss,
        generator_loss,
        critic_optimizer,
        generator_optimizer,
        critic_steps=critic_steps,
        clip=clip,
        decay=decay,
        axis_name=axis_name,
    )


def sample(
    generator: Any, state: two_player.State, latents: Array, labels: Array | None = None, averaged: bool = True
) -> Array:
    """The examples `[n, ...]` that latents `[n, latent]` become, by the averaged parameters where there are some."""
    return generator.apply(two_player.generator_variables(state, averaged), latents, labels, train=False)
