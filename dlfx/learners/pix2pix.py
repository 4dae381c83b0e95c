"""pix2pix: translation learned from pairs, by a critic that sees input and output together and by the distance."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dlfx.learners import two_player
from dlfx.losses.adversarial import GAMES
from dlfx.types import Array, Batch, Key, Learner


def pix2pix(
    generator: Any,
    critic: Any,
    critic_optimizer: optax.GradientTransformation,
    generator_optimizer: optax.GradientTransformation,
    *,
    distance_weight: float = 100.0,
    game: str = "non_saturating",
    axis_name: str | None = None,
) -> Learner:
    """The learner of a generator G of images b from images a, against a critic D of pairs.

    `min_G max_D  E log D(a, b) + E log(1 - D(a, G(a))) + weight E |b - G(a)|`, with the critic's loss halved, as in the
    paper. The generator's noise is its dropout.

    Args:
      generator: a Linen module, images `[B, H, W, C]` to images in [-1, 1]; takes `train` and the rng `dropout`.
      critic: a Linen module, `[B, H, W, 2 C]` to logits `[B, H', W']`. Neither may have other collections.
      critic_optimizer: an optax gradient transformation.
      generator_optimizer: likewise.
      distance_weight: of the mean absolute error; 0: the critic alone.
      game: of `losses.adversarial.GAMES`.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner over batches `{"a": [B, H, W, C], "b": [B, H, W, C]}` in [-1, 1], with the metrics of `two_player`,
      `d_real` and `d_fake` (mean probabilities), and `distance`, the mean absolute error.

    Source: Isola et al. 2016 (arXiv:1611.07004), equations 1 to 4 and section 3.3.
    """
    rule = GAMES[game]

    def init(key: Key, batch: Batch) -> tuple[Any, Any, None]:
        pair = jnp.concatenate([batch["a"], batch["b"]], -1)
        return (
            generator.init(jax.random.fold_in(key, 0), batch["a"], train=False),
            critic.init(jax.random.fold_in(key, 1), pair),
            None,
        )

    def translate(params: Any, batch: Batch, key: Key) -> Array:
        if axis_name is not None:
            key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
        return generator.apply({"params": params}, batch["a"], train=True, rngs={"dropout": key})

    def judge(params: Any, batch: Batch, image: Array) -> Array:
        return critic.apply({"params": params}, jnp.concatenate([batch["a"], image], -1))

    def critic_loss(params: Any, state: two_player.State, batch: Batch, key: Key) -> tuple[Array, two_player.Turn]:
        fake = translate(state.generator.params, batch, key)
        on_real, on_fake = judge(params, batch, batch["b"]), judge(params, batch, fake)
        metrics = {"d_real": rule.output(on_real).mean(), "d_fake": rule.output(on_fake).mean()}
        return rule.critic(on_real, on_fake) / 2, two_player.Turn({}, None, metrics)

    def generator_loss(params: Any, state: two_player.State, batch: Batch, key: Key) -> tuple[Array, two_player.Turn]:
        fake = translate(params, batch, key)
        distance = jnp.abs(fake - batch["b"]).mean()
        loss = rule.generator(judge(state.critic.params, batch, fake)) + distance_weight * distance
        return loss, two_player.Turn({}, None, {"distance": distance})

    return two_player.two_player(
        init, critic_loss, generator_loss, critic_optimizer, generator_optimizer, axis_name=axis_name
    )
