"""Acting on the host's gymnasium: dlfx's callback inside a compiled scan, against a loop around a compiled policy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.envs.gymnasium_envs import gymnasium_environment
from dlfx.models.reinforcement.q_network import QNetwork
from dlfx.models.reinforcement.torsos import MLP
from scripts.benchmarks.rl_setting import WIDTHS
from scripts.benchmarks.timing import Side

NETWORK = QNetwork(MLP(WIDTHS[1:-1]), WIDTHS[-1])


def balancing() -> Any:
    """Parameters that push the cart under the falling pole: with them episodes are as long as after training."""
    params = jax.tree.map(np.zeros_like, NETWORK.init(jax.random.key(0), jnp.zeros((1, WIDTHS[0]))))
    inner = params["params"]
    # Angle plus angular velocity in one unit, its negative in another, each carried through to the action that helps.
    inner["torso"]["Dense_0"]["kernel"][2:, :2] = [[-1, 1], [-1, 1]]
    inner["torso"]["Dense_1"]["kernel"][:2, :2] = np.eye(2)
    inner["values"]["kernel"][:2, :2] = np.eye(2)
    return jax.tree.map(jnp.asarray, params)


@jax.jit
def act(params: Any, observations: jax.Array) -> jax.Array:
    """The greedy actions `[N]`."""
    values: Any = NETWORK.apply(params, observations)
    return values[..., 0].argmax(-1).astype(jnp.int32)


def dlfx_side(envs: int, steps: int) -> Side:
    """dlfx's environment of gymnasium's CartPole-v1, `envs` of them under `vmap`, `steps` steps in one scan."""
    env, params = gymnasium_environment("CartPole-v1"), balancing()

    def one(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        states, observations = carry
        states, seen = jax.vmap(env.step)(jax.random.split(key, envs), states, act(params, observations))
        return (states, seen.observation), seen.terminated | seen.truncated

    scan = jax.jit(lambda carry, key: jax.lax.scan(one, carry, jax.random.split(key, steps)), donate_argnums=0)
    carry = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), envs))
    key, calls = jax.random.key(0), 0

    def call() -> np.ndarray:
        nonlocal carry, calls
        carry, over = scan(carry, jax.random.fold_in(key, calls))
        calls += 1
        return np.asarray(over)

    for _ in range(2):  # the second may compile again, for what the first gave
        call()
    return Side("dlfx", envs * steps, call)


def loop_side(envs: int, steps: int) -> Side:
    """gymnasium's vector environment in a Python loop, its actions from a compiled call."""
    import gymnasium

    worlds = gymnasium.make_vec("CartPole-v1", envs, vectorization_mode="sync")
    params = balancing()
    observations, _ = worlds.reset(seed=0)

    def call() -> int:
        nonlocal observations
        ended = 0
        for _ in range(steps):
            observations, _, terminated, truncated, _ = worlds.step(np.asarray(act(params, observations)))
            ended += int((terminated | truncated).sum())
        return ended

    call()
    return Side("loop", envs * steps, call)
