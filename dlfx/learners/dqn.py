"""Deep Q-learning: acting, replay and updates as one step over a state that holds the environments and the memory.

Mnih et al. 2015, with the parts that Rainbow (Hessel et al. 2018) put together, each one an argument: double, n-step,
prioritised, distributional (categorical or quantiles); dueling and noisy heads are the network's. DQN learns values,
and a policy only through them; what the study notes leave out is what makes it work, the replay and the target network.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlfx.learners import replay as memory
from dlfx.learners.episodes import Episodes, after, no_episodes
from dlfx.losses import td
from dlfx.types import Array, Batch, Environment, Key, Learner, Metrics


class State(NamedTuple):
    """Everything that training changes, and the key that it never changes."""

    params: Any
    target: Any  # the parameters that targets are made with
    opt_state: Any
    replay: memory.Replay
    env: Any  # [E, ...]
    observation: Array  # [E, *obs]
    episode: Episodes
    step: Array  # [] int32, iterations
    key: Key  # []


class Head(NamedTuple):
    """What a network's outputs `[A, K]` mean.

    Attributes:
      values: outputs to `[A]` expected returns.
      loss: (outputs_tm1, a_tm1, r_t, discount_t, outputs_t, q_t_selector) to (loss [], size of the error []).
    """

    values: Callable[[Array], Array]
    loss: Callable[..., tuple[Array, Array]]


def expected_head(huber_delta: float) -> Head:
    """K = 1, the expected return. The loss is Huber's, or error^2 where delta is 0 (as in cleanrl)."""

    def loss(out_tm1: Array, a: Array, r: Array, discount: Array, out_t: Array, selector: Array) -> Any:
        error = td.double_q_learning(out_tm1[:, 0], a, r, discount, out_t[:, 0], selector)
        return td.huber(error, huber_delta) if huber_delta else error**2, jnp.abs(error)

    return Head(lambda out: out[..., 0], loss)


def categorical_head(low: float, high: float, atoms: int) -> Head:
    """K logits over returns from low to high (C51, Bellemare et al. 2017)."""
    support = jnp.linspace(low, high, atoms)

    def loss(out_tm1: Array, a: Array, r: Array, discount: Array, out_t: Array, selector: Array) -> Any:
        entropy = td.categorical_q_learning(out_tm1, a, r, discount, out_t, selector, support)
        return entropy, entropy

    return Head(lambda out: jax.nn.softmax(out) @ support, loss)


def quantile_head(huber_delta: float) -> Head:
    """K quantiles of the return (QR-DQN, Dabney et al. 2018)."""

    def loss(out_tm1: Array, a: Array, r: Array, discount: Array, out_t: Array, selector: Array) -> Any:
        size = td.quantile_q_learning(out_tm1, a, r, discount, out_t, selector, huber_delta)
        return size, size

    return Head(lambda out: out.mean(-1), loss)


def dqn(
    env: Environment,
    network: Any,
    head: Head,
    optimizer: optax.GradientTransformation,
    *,
    epsilon: Callable[[Array], Array],
    gamma: float = 0.99,
    num_envs: int = 1,
    unroll: int = 4,
    updates: int = 1,
    batch_size: int = 32,
    capacity: int = 10_000,
    learning_starts: int = 1_000,
    target_every: int = 100,
    n_step: int = 1,
    double: bool = False,
    priority: float = 0.0,
    beta: Callable[[Array], Array] = lambda env_steps: jnp.float32(1),
) -> Learner:
    """The learner of deep Q-learning. One step acts `unroll` times in each environment, then updates `updates` times.

    Args:
      env: the environment.
      network: a Linen module; `apply(variables, observations [B, *obs], rngs={"noise": key} or None)` to `[B, A, K]`.
      head: what K stands for.
      optimizer: an optax gradient transformation; clipping of gradients belongs in it.
      epsilon: environment steps so far to the probability of a random action.
      gamma: discount.
      num_envs: E, environments that act side by side.
      unroll: T, steps of each environment in one iteration.
      updates: gradient steps after them.
      batch_size: transitions in a gradient step.
      capacity: transitions that are kept, a multiple of T E.
      learning_starts: environment steps before the first update, which n_step steps of each environment precede too.
      target_every: iterations between copies of the parameters to the target network.
      n_step: steps of a transition's return.
      double: whether the online network selects the action that the target network judges.
      priority: exponent of prioritised replay, 0 for a uniform one.
      beta: environment steps to the exponent of the importance weights.

    Returns:
      A learner without batches. Its metrics: `loss`; `return`, the mean of the last finished episode of each
      environment; `episodes` finished so far; `epsilon`; `q`, the mean value of the batch's best actions.

    Raises:
      UserError: if the capacity does not fit the batch, the block of an iteration or n.
    """
    block = num_envs * unroll
    memory.check(capacity, batch_size, block, n_step, num_envs)

    def outputs(params: Any, observation: Array, key: Key | None) -> Array:
        return network.apply(params, observation, rngs=None if key is None else {"noise": key})

    def init(key: Key, batch: Batch) -> State:
        env_key, net_key = jax.random.split(jax.random.fold_in(key, 2**31 - 1))
        states, observation = jax.vmap(env.reset)(jax.random.split(env_key, num_envs))
        params = network.init(net_key, observation[:1])
        kept = memory.empty(capacity, env.observation, priority > 0)
        return State(
            params, params, optimizer.init(params), kept, states, observation, no_episodes(num_envs), jnp.int32(0), key
        )

    def draw(key: Key) -> tuple[Array, Array, Key, Key]:
        """What one step of the environments takes of chance."""
        greedy_key, random_key, env_key, noise_key = jax.random.split(key, 4)
        chance = jax.random.uniform(greedy_key, (num_envs,))
        anything = jax.random.randint(random_key, (num_envs,), 0, env.num_actions)
        return chance, anything, jax.random.split(env_key, num_envs), noise_key

    def act(state: State, drawn: tuple[Array, Array, Key, Key], explore: Array) -> tuple[State, memory.Transition]:
        """One step of every environment."""
        chance, anything, env_keys, noise_key = drawn
        greedy = head.values(outputs(state.params, state.observation, noise_key)).argmax(-1)
        action = jnp.where(chance < explore, anything, greedy).astype(jnp.int32)
        env_state, then = jax.vmap(env.step)(env_keys, state.env, action)
        ended = then.terminated | then.truncated
        episode = after(state.episode, then.reward, ended)
        transition = memory.Transition(state.observation, action, then.reward, then.successor, then.terminated, ended)
        return state._replace(env=env_state, observation=then.observation, episode=episode), transition

    def update(key: Key, state: State, exponent: Array) -> tuple[State, Array, Array]:
        """One gradient step on a batch of the replay; the loss and the mean value of the best actions."""
        draw_key, online_key, target_key, select_key = jax.random.split(key, 4)
        batch = memory.sample(draw_key, state.replay, batch_size, num_envs, n=n_step, gamma=gamma, beta=exponent)
        out_t = outputs(state.target, batch.successor, target_key)
        selector = head.values(outputs(state.params, batch.successor, select_key) if double else out_t)

        def objective(params: Any) -> tuple[Array, tuple[Array, Array]]:
            out_tm1 = outputs(params, batch.observation, online_key)
            loss, error = jax.vmap(head.loss)(out_tm1, batch.action, batch.reward, batch.discount, out_t, selector)
            return (batch.weight * loss).mean(), (error, head.values(out_tm1).max(-1).mean())

        (loss, (error, value)), gradient = jax.value_and_grad(objective, has_aux=True)(state.params)
        changes, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        kept = memory.reprioritize(state.replay, batch.places, error, priority) if priority else state.replay
        params = optax.apply_updates(state.params, changes)
        return state._replace(params=params, opt_state=opt_state, replay=kept), loss, value

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        env_steps = state.step * block
        explore = epsilon(env_steps)
        acting, learning = jax.random.split(key)
        draws = jax.vmap(draw)(jax.random.split(acting, unroll))  # all at once: in the loop it costs as much as acting
        state, transitions = jax.lax.scan(lambda state, drawn: act(state, drawn, explore), state, draws)
        state = state._replace(replay=memory.add(state.replay, transitions))

        before = state
        exponent = beta(env_steps)
        if updates == 1:  # XLA compiles a loop of one step worse than the step
            state, loss, value = update(learning, state, exponent)
        else:

            def one(state: State, key: Key) -> tuple[State, tuple[Array, Array]]:
                state, loss, value = update(key, state, exponent)
                return state, (loss, value)

            state, told = jax.lax.scan(one, state, jax.random.split(learning, updates))
            loss, value = jax.tree.map(jnp.mean, told)
        ready = (env_steps + block >= learning_starts) & (state.replay.written >= n_step)
        learned = (state.params, state.opt_state, state.replay.tree, state.replay.largest)
        as_it_was = (before.params, before.opt_state, before.replay.tree, before.replay.largest)
        params, opt_state, tree, largest = jax.tree.map(lambda new, old: jnp.where(ready, new, old), learned, as_it_was)

        copy = (state.step + 1) % target_every == 0
        target = jax.tree.map(lambda new, old: jnp.where(copy, new, old), params, state.target)
        kept = state.replay._replace(tree=tree, largest=largest)
        state = state._replace(params=params, target=target, opt_state=opt_state, replay=kept, step=state.step + 1)
        metrics = {
            "loss": jnp.where(ready, loss, 0.0),
            "return": state.episode.finished.mean(),
            "episodes": state.episode.number,
            "epsilon": explore,
            "q": value,
        }
        return state, metrics

    return Learner(init, step)
