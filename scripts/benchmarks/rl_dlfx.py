"""dlfx's side of the comparison, through the program that an experiment runs, and what its arithmetic amounts to."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from dlfx.envs.gymnax_envs import gymnax_environment
from dlfx.envs.worlds import world
from dlfx.learners import dqn
from dlfx.learners.tabular.interaction import interaction
from dlfx.learners.tabular.policies import epsilon_greedy
from dlfx.learners.tabular.q_learning import q_learning
from dlfx.learners.tabular.schedules import constant
from dlfx.models.reinforcement.q_network import QNetwork
from dlfx.models.reinforcement.torsos import MLP
from dlfx.training import mesh
from dlfx.types import NO_BATCHES, Learner
from scripts.benchmarks.rl_setting import (
    ALPHA,
    BATCH,
    CAPACITY,
    COPY_EVERY,
    EPSILON,
    EXPLORING,
    GAMMA,
    LEARNING_RATE,
    LEARNING_STARTS,
    TRAIN_EVERY,
    WIDTHS,
)
from scripts.benchmarks.timing import Side


def training(name: str, learner: Learner, seeds: int, block: int, steps: int, warm: int = 2) -> Side:
    """A learner as a population, compiled and warmed up; a call is `steps` learner steps and fetches their metrics.

    Args:
      name: of the side.
      learner: without batches.
      seeds: members of the population.
      block: environment steps of a member in one learner step.
      steps: learner steps of a call, compiled into one scan.
      warm: calls before the first one that is timed.
    """
    program = mesh.jit_program(learner, NO_BATCHES, mesh.make_mesh(), range(seeds))
    state = program.init()

    def call() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = program.step(state, program.put(()), steps)
        jax.block_until_ready(state)
        return jax.device_get(metrics)

    for _ in range(warm):
        call()
    return Side(name, seeds * block * steps, call)


def q_learning_side(seeds: int, steps: int, unroll: int = 100) -> Side:
    """Q-learning on the cliff, `unroll` environment steps in each of the `steps` learner steps of a call."""
    learner = interaction(
        world("cliff").environment,
        q_learning(),
        epsilon_greedy(constant(EPSILON)),
        gamma=1.0,
        step_size=constant(ALPHA),
        unroll=unroll,
    )
    return training(f"q_learning-{seeds}", learner, seeds, unroll, steps)


def dqn_side(seeds: int, steps: int, learning_starts: int = LEARNING_STARTS) -> Side:
    """DQN on CartPole-v1 in the setting of `rl_setting`, warmed up beyond the first gradient steps."""
    learner = dqn.dqn(
        gymnax_environment("CartPole-v1"),
        QNetwork(MLP(WIDTHS[1:-1]), WIDTHS[-1]),
        dqn.expected_head(0.0),
        optax.adam(LEARNING_RATE),
        epsilon=optax.constant_schedule(EXPLORING),
        gamma=GAMMA,
        unroll=TRAIN_EVERY,
        batch_size=BATCH,
        capacity=CAPACITY,
        learning_starts=learning_starts,
        target_every=COPY_EVERY // TRAIN_EVERY,
    )
    warm = learning_starts // (steps * TRAIN_EVERY) + 2
    return training(f"dqn-{seeds}", learner, seeds, TRAIN_EVERY, steps, warm)


def flops_per_step(widths: Sequence[int] = WIDTHS, batch: int = BATCH, every: int = TRAIN_EVERY) -> float:
    """Floating-point operations of DQN per environment step: those of its matrix products, two for a multiply-add.

    A layer n -> m costs 2 n m forward on one row, as much for the gradient of its weights, and as much for that of its
    inputs, which the first layer does not need. Acting takes one forward row; a gradient step `batch` forward rows
    with the target network, and as many forward and backward. Adam, biases and activations are left out.

    Args:
      widths: of the layers, inputs and outputs included.
      batch: transitions in a gradient step.
      every: environment steps for each gradient step.
    """
    layers = [2 * n * m for n, m in zip(widths[:-1], widths[1:], strict=True)]
    forward = sum(layers)
    backward = 2 * forward - layers[0]
    return forward + batch * (2 * forward + backward) / every


def matmul_side(size: int = 2048) -> Side:
    """A float32 product of square matrices, the peak that other arithmetic is a share of; its amount is operations."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size))
    product = jax.jit(jnp.matmul)
    product(a, b).block_until_ready()
    return Side("matmul", 2 * size**3, lambda: product(a, b).block_until_ready())
