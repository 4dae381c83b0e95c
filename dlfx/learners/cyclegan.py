"""CycleGAN: translation learned from two sets of images without pairs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners import two_player
from dlfx.losses.adversarial import GAMES
from dlfx.types import Array, Batch, Key, Learner, Metrics


class Buffer(NamedTuple):
    """Generated images of earlier steps, which the critic goes on seeing."""

    images: Array  # [size, H, W, C]
    filled: Array  # [] int32


def exchange(buffer: Buffer, images: Array, key: Key) -> tuple[Buffer, Array]:
    """Puts images into a buffer, one after the other, and gives as many back.

    While the buffer is not full an image is kept and given back. Then, by the toss of a coin, it is given back
    itself, or takes the place of an image of the buffer, which is given back.

    Args:
      buffer: the buffer.
      images: `[B, H, W, C]`.
      key: of the tosses.

    Returns:
      (the buffer, images `[B, H, W, C]`).

    Source: Shrivastava et al. 2016 (arXiv:1612.07828), section 2.3; Zhu et al. 2017 (arXiv:1703.10593), section 4.
    """
    size = len(buffer.images)
    tosses = jax.random.bernoulli(jax.random.fold_in(key, 0), 0.5, (len(images),))
    places = jax.random.randint(jax.random.fold_in(key, 1), (len(images),), 0, size)

    def one(buffer: Buffer, turn: tuple[Array, Array, Array]) -> tuple[Buffer, Array]:
        image, toss, place = turn
        filling = buffer.filled < size
        place = jnp.where(filling, buffer.filled, place)
        swap = ~filling & toss
        given = jnp.where(swap, buffer.images[place], image)
        kept = jnp.where(filling | swap, image, buffer.images[place])
        return Buffer(buffer.images.at[place].set(kept), jnp.minimum(buffer.filled + 1, size)), given

    return jax.lax.scan(one, buffer, (images, tosses, places))


def cyclegan(
    generator_ab: Any,
    generator_ba: Any,
    critic: Any,
    critic_optimizer: optax.GradientTransformation,
    generator_optimizer: optax.GradientTransformation,
    *,
    cycle_weight: float = 10.0,
    identity_weight: float = 5.0,
    buffer_size: int = 50,
    game: str = "least_squares",
    axis_name: str | None = None,
) -> Learner:
    """The learner of two generators, G of images b from images a and F back again, against a critic of each set.

    Each generator minimises its game plus `cycle_weight (E |F(G(a)) - a| + E |G(F(b)) - b|)` and
    `identity_weight (E |G(b) - b| + E |F(a) - a|)`. The critics see generated images from a buffer; their losses are
    halved.

    Args:
      generator_ab: a Linen module without other collections than parameters, images to images in [-1, 1].
      generator_ba: likewise, the way back.
      critic: a Linen module, images to logits; each set has its own parameters for it.
      critic_optimizer: an optax gradient transformation, of both critics.
      generator_optimizer: likewise, of both generators.
      cycle_weight: lambda.
      identity_weight: 0 where the sets have other numbers of channels.
      buffer_size: images in each of the two buffers; 0: none.
      game: of `losses.adversarial.GAMES`.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner over batches `{"a": [B, H, W, C], "b": [B, H, W, C']}` in [-1, 1], row i of one without relation to row
      i of the other, with the metrics of `two_player`, `cycle` and `identity` (mean absolute errors, summed over both
      directions), and `d_real`, `d_fake`, means over both critics. The parameters of the generator are
      `{"ab": ..., "ba": ...}`, those of the critic `{"a": ..., "b": ...}`.

    Source: Zhu et al. 2017 (arXiv:1703.10593), equations 1 to 3 and sections 4 and 5.2 (identity).
    """
    rule = GAMES[game]

    def init(key: Key, batch: Batch) -> tuple[Any, Any, Any]:
        keys = [jax.random.fold_in(key, i) for i in range(4)]
        a, b = batch["a"], batch["b"]
        generators = {
            "ab": generator_ab.init(keys[0], a)["params"],
            "ba": generator_ba.init(keys[1], b)["params"],
        }
        critics = {"a": critic.init(keys[2], a)["params"], "b": critic.init(keys[3], b)["params"]}

        def buffer(images: Array) -> Buffer:
            return Buffer(jnp.zeros((buffer_size, *images.shape[1:]), images.dtype), jnp.int32(0))

        memory = {"a": buffer(a), "b": buffer(b)} if buffer_size else None
        return {"params": generators}, {"params": critics}, memory

    def ab(params: Any, images: Array) -> Array:
        return generator_ab.apply({"params": params["ab"]}, images)

    def ba(params: Any, images: Array) -> Array:
        return generator_ba.apply({"params": params["ba"]}, images)

    def earlier(buffer: Buffer, images: Array, key: Key) -> tuple[Buffer, Array]:
        """The exchange of a whole batch: every device keeps the same buffer, and takes its own rows."""
        if axis_name is None:
            return exchange(buffer, images, key)
        everything = jax.lax.all_gather(images, axis_name, tiled=True)
        buffer, given = exchange(buffer, everything, key)
        first = jax.lax.axis_index(axis_name) * len(images)
        return buffer, jax.lax.dynamic_slice_in_dim(given, first, len(images))

    def critic_loss(params: Any, state: two_player.State, batch: Batch, key: Key) -> tuple[Array, two_player.Turn]:
        made = {"a": ba(state.generator.params, batch["b"]), "b": ab(state.generator.params, batch["a"])}
        memory = state.memory
        loss = jnp.zeros((), batch["a"].dtype)
        outputs = []
        for i, side in enumerate(("a", "b")):
            if buffer_size:
                kept, made[side] = earlier(memory[side], made[side], jax.random.fold_in(key, i))
                memory = {**memory, side: kept}
            on_real = critic.apply({"params": params[side]}, batch[side])
            on_fake = critic.apply({"params": params[side]}, made[side])
            loss += rule.critic(on_real, on_fake) / 2
            outputs.append((rule.output(on_real).mean(), rule.output(on_fake).mean()))
        real, fake = (sum(pair) / 2 for pair in zip(*outputs, strict=True))
        return loss, two_player.Turn({}, memory, {"d_real": real, "d_fake": fake})

    def generator_loss(params: Any, state: two_player.State, batch: Batch, key: Key) -> tuple[Array, two_player.Turn]:
        a, b = batch["a"], batch["b"]
        to_b, to_a = ab(params, a), ba(params, b)
        cycle = jnp.abs(ba(params, to_b) - a).mean() + jnp.abs(ab(params, to_a) - b).mean()
        critics = state.critic.params
        loss = rule.generator(critic.apply({"params": critics["b"]}, to_b))
        loss += rule.generator(critic.apply({"params": critics["a"]}, to_a)) + cycle_weight * cycle
        metrics: Metrics = {"cycle": cycle}
        if identity_weight:
            identity = jnp.abs(ab(params, b) - b).mean() + jnp.abs(ba(params, a) - a).mean()
            loss, metrics = loss + identity_weight * identity, {**metrics, "identity": identity}
        return loss, two_player.Turn({}, None, metrics)

    return two_player.two_player(
        init, critic_loss, generator_loss, critic_optimizer, generator_optimizer, axis_name=axis_name
    )
