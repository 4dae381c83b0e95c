"""Trains a policy by its gradient: REINFORCE with a baseline, A2C, or PPO.

python -m experiments.policy_gradient --flagfile=experiments/flagfiles/policy_gradient/cartpole_ppo.flags
python -m experiments.policy_gradient --algorithm=a2c --env=Acrobot-v1
python -m experiments.policy_gradient --workdir=DIR --eval_only --eval_episodes=100
"""

from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from dlfx.learners.policy_gradient import policy_gradient
from dlfx.models.reinforcement.actor_critic import ActorCritic
from dlfx.types import UserError
from experiments import agents, common
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

# What --algorithm sets where the flags leave it open (-1).
ALGORITHMS: dict[str, dict[str, Any]] = {
    "reinforce": {"unroll": 500, "trace_decay": 1.0, "epochs": 1, "minibatches": 1, "clip": 0.0},
    "a2c": {"unroll": 5, "trace_decay": 1.0, "epochs": 1, "minibatches": 1, "clip": 0.0},
    "ppo": {"unroll": 128, "trace_decay": 0.95, "epochs": 4, "minibatches": 4, "clip": 0.2},
}

with group("Policy gradient"):
    flags.DEFINE_enum("algorithm", "ppo", list(ALGORITHMS), "the learning rule; it sets the flags left at -1")
    flags.DEFINE_integer("unroll", -1, "steps of each environment before an update", lower_bound=-1)
    flags.DEFINE_float("trace_decay", -1.0, "lambda of generalized advantage estimation", -1.0, 1.0)
    flags.DEFINE_integer("epochs", -1, "passes over what was seen before it is thrown away", lower_bound=-1)
    flags.DEFINE_integer("minibatches", -1, "gradient steps in a pass", lower_bound=-1)
    flags.DEFINE_float("clip", -1.0, "PPO's bound on the ratio of probabilities; 0: none", lower_bound=-1.0)
    flags.DEFINE_float("value_weight", 0.5, "weight of the values' squared error", lower_bound=0.0)
    flags.DEFINE_float("entropy_weight", 0.01, "weight of the policy's entropy", lower_bound=0.0)
    flags.DEFINE_bool("shared_torso", False, "policy and value share their features")


def main(_: Any) -> None:
    agents.stored_flags()
    with common.begin(
        "policy_gradient", f"{FLAGS.algorithm}-{FLAGS.env.replace(':', '-').replace('/', '-')}"
    ) as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: environment, network, learner, then what all agents share."""
    chosen = {n: v if (told := getattr(FLAGS, n)) < 0 else told for n, v in ALGORITHMS[FLAGS.algorithm].items()}
    for name in ("unroll", "epochs", "minibatches"):
        if not chosen[name]:
            raise UserError(f"--{name}=0 must be at least 1, or -1 for what --algorithm sets")
    env = agents.environment(session)
    whole = FLAGS.algorithm == "reinforce"
    if whole and FLAGS.unroll < 0:
        chosen["unroll"] = env.max_steps or FLAGS.eval_max_steps
    block = FLAGS.num_envs * chosen["unroll"]
    steps = -(-FLAGS.env_steps // block)
    types = {"dtype": session.dtype, "param_dtype": session.param_dtype}
    critic = None if FLAGS.shared_torso else agents.torso(env, **types)
    network: Any = ActorCritic(agents.torso(env, **types), critic, env.num_actions, **types)
    learner = policy_gradient(
        env,
        network,
        optimizer(steps * chosen["epochs"] * chosen["minibatches"]),
        gamma=FLAGS.gamma,
        num_envs=FLAGS.num_envs,
        normalize=FLAGS.algorithm == "ppo",
        whole_episodes=whole,
        value_weight=FLAGS.value_weight,
        entropy_weight=FLAGS.entropy_weight,
        **chosen,
    )

    def policy(params: Any, key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, values = network.apply(params, observation)
        return logits.argmax(-1).astype(jnp.int32), values

    agents.run(session, env, learner, policy, block, steps)


if __name__ == "__main__":
    common.launch(main)
