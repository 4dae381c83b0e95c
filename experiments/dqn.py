"""Trains deep Q-learning agents: DQN, double, dueling, prioritised, n-step, noisy, distributional, and Rainbow.

python -m experiments.dqn --flagfile=experiments/flagfiles/dqn/cartpole.flags
python -m experiments.dqn --env=MinAtar/Breakout --double --dueling --env_steps=1000000
python -m experiments.dqn --workdir=DIR --eval_only --eval_episodes=100
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from absl import flags

from dlfx.learners import dqn
from dlfx.models.reinforcement.q_network import QNetwork
from dlfx.types import UserError
from experiments import agents, common
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Deep Q-learning"):
    flags.DEFINE_integer("train_every", 10, "steps of each environment before the next updates", lower_bound=1)
    flags.DEFINE_integer("updates", 1, "gradient steps then", lower_bound=1)
    flags.DEFINE_integer("batch_size", 128, "transitions in a gradient step", lower_bound=1)
    flags.DEFINE_integer("capacity", 10_000, "transitions in the replay memory", lower_bound=1)
    flags.DEFINE_integer("learning_starts", 10_000, "environment steps before the first update", lower_bound=0)
    flags.DEFINE_integer("target_every", 500, "environment steps between copies to the target network", lower_bound=1)
    flags.DEFINE_integer("n_step", 1, "steps of a return before it is bootstrapped", lower_bound=1)
    flags.DEFINE_float("epsilon_start", 1.0, "probability of a random action in the beginning", 0.0, 1.0)
    flags.DEFINE_float("epsilon_end", 0.05, "... and in the end", 0.0, 1.0)
    flags.DEFINE_float("epsilon_fraction", 0.5, "part of the run over which it falls, linearly", 0.0, 1.0)
    flags.DEFINE_float("huber_delta", 0.0, "where the loss turns from square to line; 0: the squared error", 0.0)
with group("Parts of Rainbow"):
    flags.DEFINE_bool("double", False, "the online network selects the action that the target network judges")
    flags.DEFINE_bool("dueling", False, "a stream for the value and one for the advantages")
    flags.DEFINE_integer(
        "dueling_hidden", 0, "units in each of the two streams; 0: straight from the torso", lower_bound=0
    )
    flags.DEFINE_bool("noisy", False, "explore by noise in the weights; set the epsilons to 0 with it")
    flags.DEFINE_float("priority", 0.0, "exponent of prioritised replay; 0: uniform", 0.0, 1.0)
    flags.DEFINE_float("beta_start", 0.4, "exponent of its importance weights in the beginning; 1 in the end", 0.0, 1.0)
    flags.DEFINE_enum("distribution", "none", ["none", "categorical", "quantile"], "learn it, not only the mean")
    flags.DEFINE_integer("atoms", 51, "of a categorical distribution, or quantiles", lower_bound=2)
    flags.DEFINE_float("v_min", 0.0, "lowest return of the atoms of a categorical distribution")
    flags.DEFINE_float("v_max", 100.0, "highest return of the atoms")


def make_head() -> tuple[dqn.Head, int]:
    """(what the network's outputs mean, how many there are for an action)."""
    if FLAGS.distribution == "categorical":
        if FLAGS.v_min >= FLAGS.v_max:
            raise UserError(f"--v_min={FLAGS.v_min:g} must be below --v_max={FLAGS.v_max:g}")
        return dqn.categorical_head(FLAGS.v_min, FLAGS.v_max, FLAGS.atoms), FLAGS.atoms
    if FLAGS.distribution == "quantile":
        return dqn.quantile_head(FLAGS.huber_delta), FLAGS.atoms
    return dqn.expected_head(FLAGS.huber_delta), 1


def main(_: Any) -> None:
    agents.stored_flags()
    with common.begin("dqn", agents.label()) as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: environment, network, learner, then what all agents share."""
    block = FLAGS.num_envs * FLAGS.train_every
    steps = -(-FLAGS.env_steps // block)
    env = agents.environment(session)
    head, outputs = make_head()
    network: Any = QNetwork(
        agents.torso(env, session.dtype, session.param_dtype),
        env.num_actions,
        outputs,
        dueling=FLAGS.dueling,
        noisy=FLAGS.noisy,
        hidden=FLAGS.dueling_hidden,
        dtype=session.dtype,
        param_dtype=session.param_dtype,
    )
    falling = max(1, round(FLAGS.epsilon_fraction * FLAGS.env_steps))
    learner = dqn.dqn(
        env,
        network,
        head,
        optimizer(steps * FLAGS.updates),
        epsilon=optax.linear_schedule(FLAGS.epsilon_start, FLAGS.epsilon_end, falling),
        gamma=FLAGS.gamma,
        num_envs=FLAGS.num_envs,
        unroll=FLAGS.train_every,
        updates=FLAGS.updates,
        batch_size=FLAGS.batch_size,
        capacity=FLAGS.capacity,
        learning_starts=FLAGS.learning_starts,
        target_every=max(1, FLAGS.target_every // block),
        n_step=FLAGS.n_step,
        double=FLAGS.double,
        priority=FLAGS.priority,
        beta=optax.linear_schedule(FLAGS.beta_start, 1.0, FLAGS.env_steps),
    )

    def policy(params: Any, key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = head.values(network.apply(params, observation))
        return values.argmax(-1).astype(jnp.int32), values.max(-1)

    agents.run(session, env, learner, policy, block, steps)


if __name__ == "__main__":
    common.launch(main)
