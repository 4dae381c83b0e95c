"""Two players by gradient descent: some steps of the critic, then one of the generator, in one compiled step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.types import Array, Batch, Key, Learner, Metrics


class Player(NamedTuple):
    """One of the two."""

    params: Any  # trained by gradient
    extra: Any  # the other collections: statistics of batch norm, vectors of spectral normalisation
    opt_state: Any


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    generator: Player
    critic: Player
    average: Any  # moving average of the generator's parameters; None without one
    memory: Any  # what the losses keep from step to step, such as an image buffer; None without any
    step: Array  # [] int32
    key: Key  # []


class Turn(NamedTuple):
    """What a player's loss leaves besides its value.

    Attributes:
      extra: the player's other collections after this turn.
      memory: the memory after this turn; looked at in the critic's turns alone.
      metrics: to be logged.
    """

    extra: Any
    memory: Any
    metrics: Metrics


Init = Callable[[Key, Batch], tuple[Any, Any, Any]]
Loss = Callable[[Any, State, Batch, Key], tuple[Array, Turn]]


def two_player(
    init: Init,
    critic_loss: Loss,
    generator_loss: Loss,
    critic_optimizer: optax.GradientTransformation,
    generator_optimizer: optax.GradientTransformation,
    *,
    critic_steps: int = 1,
    clip: float = 0.0,
    decay: float = 0.0,
    axis_name: str | None = None,
) -> Learner:
    """The learner of a game in which each player descends its own loss, alternating.

    Args:
      init: (key, batch) to (variables of the generator, variables of the critic, memory). Variables are Linen's:
        `{"params": ..., other collections}`; either may hold several networks.
      critic_loss: (critic's parameters, state, batch, key) to (loss [], turn). The other player is in the state.
      generator_loss: (generator's parameters, state, batch, key) to the same.
      critic_optimizer: an optax gradient transformation.
      generator_optimizer: likewise.
      critic_steps: k. Row r of a batch is for the critic's turn `r mod k`, so that devices which share a batch take the
        turns that one would; the generator's turn sees the rows of the last one, and has the same key as it.
      clip: after each turn the critic's parameters are clipped to [-clip, clip]; 0: not.
      decay: of the moving average of the generator's parameters, `a <- d a + (1 - d) p` with
        `d = min(decay, (1 + t) / (10 + t))` at step t; 0: none is kept.
      axis_name: the `pmap` axis over which gradients and metrics are averaged; None under `jit`.

    Returns:
      A learner with the metrics of both turns (the critic's of its last), `critic_loss`, `generator_loss`,
      `critic_grad_norm`, `generator_grad_norm`, and `loss`, the sum of the two losses.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), algorithm 1; clipping: Arjovsky, Chintala and Bottou 2017
      (arXiv:1701.07875), algorithm 1; averaging: Yazıcı et al. 2018 (arXiv:1806.04498).
    """

    def player(variables: Any, optimizer: optax.GradientTransformation) -> Player:
        extra = {name: value for name, value in variables.items() if name != "params"}
        return Player(variables["params"], extra, optimizer.init(variables["params"]))

    def begin(key: Key, batch: Batch) -> State:
        generator, critic, memory = init(jax.random.fold_in(key, 2**31 - 1), batch)
        average = jax.tree.map(jnp.copy, generator["params"]) if decay else None
        both = player(generator, generator_optimizer), player(critic, critic_optimizer)
        return State(*both, average, memory, jnp.int32(0), key)

    def turn(
        loss: Loss, optimizer: optax.GradientTransformation, self: Player, state: State, batch: Batch, key: Key
    ) -> tuple[Player, Any, Array, Array, Metrics]:
        (value, told), gradient = jax.value_and_grad(loss, has_aux=True)(self.params, state, batch, key)
        extra, metrics = told.extra, told.metrics
        if axis_name is not None:
            gradient, metrics, value = jax.lax.pmean((gradient, metrics, value), axis_name)
        updates, opt_state = optimizer.update(gradient, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        return Player(params, extra, opt_state), told.memory, value, optax.tree.norm(gradient), metrics

    def critics_turn(state: State, batch: Batch, key: Key) -> tuple[State, Metrics]:
        critic, memory, value, norm, metrics = turn(critic_loss, critic_optimizer, state.critic, state, batch, key)
        if clip:
            critic = critic._replace(params=jax.tree.map(lambda x: x.clip(-clip, clip), critic.params))
        metrics = {**metrics, "critic_loss": value, "critic_grad_norm": norm}
        return state._replace(critic=critic, memory=memory), metrics

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(critic_steps))
        # The generator meets the noise of the critic's last turn: what it makes of that is then computed once.
        parts = jax.tree.map(lambda x: x.reshape(-1, critic_steps, *x.shape[1:]).swapaxes(0, 1), batch)
        last = jax.tree.map(lambda x: x[-1], parts)
        if critic_steps == 1:
            state, critics = critics_turn(state, last, keys[0])
        else:
            state, turns = jax.lax.scan(lambda s, part: critics_turn(s, *part), state, (parts, keys))
            critics = jax.tree.map(lambda x: x[-1], turns)
        generator, _, value, norm, metrics = turn(
            generator_loss, generator_optimizer, state.generator, state, last, keys[-1]
        )
        average = state.average
        if decay:
            d = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
            average = jax.tree.map(lambda a, p: (d * a + (1 - d) * p).astype(a.dtype), average, generator.params)
        both = {**critics, **metrics, "generator_loss": value, "generator_grad_norm": norm}
        both["loss"] = value + critics["critic_loss"]
        return state._replace(generator=generator, average=average, step=state.step + 1), both

    return Learner(begin, step)


def generator_variables(state: State, averaged: bool = True) -> dict[str, Any]:
    """The variables to generate with: the averaged parameters where there are some and they are wanted."""
    params = state.average if averaged and state.average is not None else state.generator.params
    return {"params": params, **state.generator.extra}
