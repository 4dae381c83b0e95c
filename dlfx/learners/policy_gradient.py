"""Policy gradients: REINFORCE with a baseline, A2C and PPO, over trajectories of several environments.

The three share how they act and what they minimise; they differ in the advantage (complete returns, n-step, GAE), in
how often a trajectory is used, and in PPO's clipped ratio.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners.episodes import Episodes, after, no_episodes
from dlfx.losses import policy_gradient as losses
from dlfx.types import Array, Batch, Environment, Key, Learner, Metrics, UserError


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any
    opt_state: Any
    env: Any  # [E, ...]
    observation: Array  # [E, *obs]
    episode: Episodes
    step: Array  # [] int32
    key: Key  # []


class Trajectory(NamedTuple):
    """Steps of environments, `[T, E, ...]`."""

    observation: Array
    action: Array
    log_prob: Array  # of the action when it was taken
    value: Array
    reward: Array
    successor: Array
    terminated: Array
    ended: Array


def policy_gradient(
    env: Environment,
    network: Any,
    optimizer: optax.GradientTransformation,
    *,
    gamma: float = 0.99,
    num_envs: int = 8,
    unroll: int = 128,
    trace_decay: float = 1.0,
    epochs: int = 1,
    minibatches: int = 1,
    clip: float = 0.0,
    normalize: bool = False,
    whole_episodes: bool = False,
    value_weight: float = 0.5,
    entropy_weight: float = 0.0,
) -> Learner:
    """The learner of a policy and its baseline. One step acts T times in each environment, then updates.

    A2C (Mnih et al. 2016): `trace_decay=1`, one pass, a short `unroll`. REINFORCE (Williams 1992): the same with
    `whole_episodes`, so that returns are never bootstrapped. PPO (Schulman et al. 2017): `trace_decay=0.95`, several
    `epochs` of `minibatches`, `clip=0.2`, `normalize`.

    Args:
      env: the environment.
      network: a Linen module; `apply(variables, observations [B, *obs])` to (logits `[B, A]`, values `[B]`).
      optimizer: an optax gradient transformation; clipping of gradients belongs in it.
      gamma: discount.
      num_envs: E, environments that act side by side.
      unroll: T, steps of each in one learner step.
      trace_decay: lambda of the advantage.
      epochs: passes over the trajectories of a step.
      minibatches: parts that each pass is cut into at random, a gradient step each; divides T E.
      clip: PPO's bound on the ratio of probabilities; 0: the plain gradient of the policy.
      normalize: whether each minibatch's advantages get mean 0 and deviation 1.
      whole_episodes: every step begins new episodes and each counts up to its end, which `unroll` must allow.
      value_weight: weight of the squared error of the values.
      entropy_weight: weight of the policy's entropy, which is to be large.

    Returns:
      A learner without batches. Its metrics: `loss`, `return` (mean of the last finished episode of each environment),
      `episodes` finished so far, `entropy`, `value_loss`.

    Raises:
      UserError: if the minibatches do not divide T E.
    """
    if (unroll * num_envs) % minibatches:
        raise UserError(
            f"{minibatches} minibatches do not divide the {unroll * num_envs} transitions of a step "
            f"({num_envs} environments x {unroll} steps)"
        )

    def begin(key: Key) -> tuple[Any, Array]:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def init(key: Key, batch: Batch) -> State:
        env_key, net_key = jax.random.split(jax.random.fold_in(key, 2**31 - 1))
        states, observation = begin(env_key)
        params = network.init(net_key, observation[:1])
        episode = no_episodes(num_envs)
        return State(params, optimizer.init(params), states, observation, episode, jnp.int32(0), key)

    def act(state: State, key: Key) -> tuple[State, Trajectory]:
        choose_key, env_key = jax.random.split(key)
        logits, value = network.apply(state.params, state.observation)
        action = jax.random.categorical(choose_key, logits).astype(jnp.int32)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
        env_state, then = jax.vmap(env.step)(jax.random.split(env_key, num_envs), state.env, action)
        ended = then.terminated | then.truncated
        seen = Trajectory(
            state.observation, action, log_prob, value, then.reward, then.successor, then.terminated, ended
        )
        episode = after(state.episode, then.reward, ended)
        return state._replace(env=env_state, observation=then.observation, episode=episode), seen

    def objective(params: Any, batch: dict[str, Array]) -> tuple[Array, dict[str, Array]]:
        logits, value = network.apply(params, batch["observation"])
        advantage, weight = batch["advantage"], batch["weight"]
        total = jnp.maximum(weight.sum(), 1.0)

        def mean(x: Array) -> Array:
            return (weight * x).sum() / total

        if normalize:
            centred = advantage - mean(advantage)
            advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
        if clip:
            gain = jax.vmap(losses.clipped_surrogate, (0, 0, 0, 0, None))(
                logits, batch["action"], advantage, batch["log_prob"], clip
            )
        else:
            gain = jax.vmap(losses.policy_gradient)(logits, batch["action"], advantage)
        value_loss = mean((value - batch["goal"]) ** 2)
        spread = mean(jax.vmap(losses.entropy)(logits))
        loss = mean(gain) + value_weight * value_loss - entropy_weight * spread
        return loss, {"loss": loss, "value_loss": value_loss, "entropy": spread}

    def prepare(params: Any, seen: Trajectory) -> dict[str, Array]:
        """The batch of a step, `[T E, ...]`."""
        flat = seen.successor.reshape(-1, *seen.successor.shape[2:])
        following = network.apply(params, flat)[1].reshape(seen.value.shape)
        discount = gamma * (1.0 - seen.terminated)
        weight = jnp.ones_like(seen.value)
        if whole_episodes:
            ended_before = jnp.cumsum(seen.ended, 0) - seen.ended
            weight = 1.0 * (ended_before == 0)
        advantage = jax.vmap(losses.generalized_advantage, (1, 1, 1, 1, 1, None), 1)(
            seen.reward, discount, seen.ended, seen.value, following, trace_decay
        )
        batch = {
            "observation": seen.observation,
            "action": seen.action,
            "log_prob": seen.log_prob,
            "advantage": advantage,
            "goal": advantage + seen.value,
            "weight": weight,
        }
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        acting, shuffling, beginning = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        if whole_episodes:
            env_state, observation = begin(beginning)
            episode = state.episode._replace(so_far=jnp.zeros(num_envs))
            state = state._replace(env=env_state, observation=observation, episode=episode)
        state, seen = jax.lax.scan(act, state, jax.random.split(acting, unroll))
        rows = prepare(state.params, seen)

        def update(carry: tuple[Any, Any], index: Array) -> tuple[tuple[Any, Any], Metrics]:
            params, opt_state = carry
            part = jax.tree.map(lambda x: x[index], rows) if minibatches > 1 else rows
            gradient, metrics = jax.grad(objective, has_aux=True)(params, part)
            changes, opt_state = optimizer.update(gradient, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), metrics

        orders = jax.vmap(lambda key: jax.random.permutation(key, unroll * num_envs))(
            jax.random.split(shuffling, epochs)
        )
        index = orders.reshape(epochs * minibatches, -1)
        (params, opt_state), metrics = jax.lax.scan(update, (state.params, state.opt_state), index)
        state = state._replace(params=params, opt_state=opt_state, step=state.step + 1)
        metrics = {name: value.mean() for name, value in metrics.items()}
        return state, metrics | {"return": state.episode.finished.mean(), "episodes": state.episode.number}

    return Learner(init, step)
