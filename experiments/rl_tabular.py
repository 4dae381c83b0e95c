"""Learns the values of states or actions in a table: prediction, control and planning.

python -m experiments.rl_tabular --flagfile=experiments/flagfiles/rl_tabular/cliff_q_learning.flags
python -m experiments.rl_tabular --env=taxi --algorithm=sarsa --alpha=0.2 --num_seeds=20
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.envs import evaluation, worlds
from dlfx.learners.tabular import sweeps
from dlfx.learners.tabular.interaction import check
from dlfx.ops import planning
from dlfx.ops.mdp import MDP, policy_values, q_values, uniform
from dlfx.ops.mdp import greedy as greedy_actions
from dlfx.training import loop, mesh, rundir
from dlfx.types import NO_BATCHES, Array, Key, Learner, unknown
from experiments import acting, common, rl_tabular_figures, seeds
from experiments.common import FLAGS
from experiments.rl_tabular_rules import ALGORITHMS, PLANNING, POLICIES, PREDICTION, make


def main(_: Any) -> None:
    with common.begin("rl_tabular", f"{FLAGS.algorithm}-{FLAGS.env or 'cliff'}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: world, rule, program, learning, figures."""
    if FLAGS.algorithm not in ALGORITHMS:
        raise unknown("algorithm", FLAGS.algorithm, ALGORITHMS)
    if FLAGS.policy not in POLICIES:
        raise unknown("policy", FLAGS.policy, POLICIES)
    world = worlds.world(FLAGS.env or "cliff")
    check(world.environment, FLAGS.gamma)
    mdp = world.mdp._replace(gamma=np.asarray(FLAGS.gamma, np.asarray(world.mdp.gamma).dtype))
    prediction = FLAGS.algorithm in PREDICTION or FLAGS.algorithm == "policy_evaluation"
    truth = np.asarray(policy_values(mdp, uniform(mdp))) if prediction else None
    learner, values_of, steps, block = plan(mdp) if FLAGS.algorithm in PLANNING else make(world)
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, NO_BATCHES, session.mesh, session.seeds)
    measure = rms(values_of, truth, mdp) if prediction else greedy(world, values_of, mdp)
    compiled = jax.jit(jax.vmap(measure) if program.population else measure)

    def evaluate(state: Any) -> loop.Splits:
        return {"eval": {name: np.asarray(value) for name, value in compiled(state).items()}}

    if not common.open_directory(session):
        return
    when = common.schedule(steps, "eval_rms_loss" if prediction else "eval_return")
    result = common.train(session, program, NO_BATCHES, when, evaluate)
    rows = rundir.read_metrics(session.path)
    if late := [row for row in rows if row["split"] == "train" and row["step"] > 0.9 * result.step and "return" in row]:
        _, values = seeds.by_seed(late, "train", "return", session.seeds)
        online = values.mean(1)
        result.metrics["online_return"] = rundir.spread(online if program.population else online[0])
    member = jax.tree.map(lambda x: x[0], result.arrays.memory) if program.population else result.arrays.memory
    found = rl_tabular_figures.Found(world, np.asarray(values_of(member)), truth, rows, session.seeds, block)
    draw = functools.partial(rl_tabular_figures.draw, found=found, seed=FLAGS.seed, limit=FLAGS.eval_max_steps)
    common.finish(session, result, values_of_all(values_of, result.arrays.memory, program.population), draw)


def plan(mdp: MDP) -> tuple[Learner, Callable[[Any], Any], int, int]:
    """As `make`, for an algorithm that knows the model: one step is a sweep, or an improvement of the policy."""

    def value_iteration(memory: sweeps.Memory) -> sweeps.Memory:
        q = q_values(mdp, memory.values)
        return sweeps.Memory(q.max(-1), greedy_actions(q))

    def policy_iteration(memory: sweeps.Memory) -> sweeps.Memory:
        found = planning.policy_iteration(mdp, memory.policy, limit=1)
        return sweeps.Memory(found.values, found.policy)

    def policy_evaluation(memory: sweeps.Memory) -> sweeps.Memory:
        return memory._replace(values=q_values(mdp, memory.values).mean(-1))

    chosen = dict(zip(PLANNING, (value_iteration, policy_iteration, policy_evaluation), strict=True))[FLAGS.algorithm]
    learner = sweeps.sweeps(chosen, len(mdp.start))
    if chosen is policy_evaluation:
        return learner, lambda memory: memory.values, FLAGS.sweeps, 0
    return learner, lambda memory: q_values(mdp, memory.values), FLAGS.sweeps, 0


def rms(values_of: Callable[[Any], Any], truth: Any, mdp: MDP) -> Callable[[Any], dict[str, Array]]:
    """How far the values of a state are from the true ones, over the states that are not terminal."""
    free = ~jnp.asarray(mdp.terminal)

    def measure(state: Any) -> dict[str, Array]:
        squared = jnp.where(free, (values_of(state.memory) - truth) ** 2, 0)
        return {"rms_loss": jnp.sqrt(squared.sum() / free.sum())}

    return measure


def greedy(world: worlds.World, values_of: Callable[[Any], Any], mdp: MDP) -> Callable[[Any], dict[str, Array]]:
    """What the greedy policy achieves. A success has ended by itself, with a positive return if there are such."""
    limit = world.environment.max_steps or FLAGS.eval_max_steps
    least = 0.0 if (np.asarray(mdp.reward) > 0).any() else -np.inf

    def measure(state: Any) -> dict[str, Array]:
        values = values_of(state.memory)
        chosen, expected = values.argmax(-1).astype(jnp.int32), values.max(-1)

        def policy(_: Key, observations: Array) -> tuple[Array, Array]:
            return chosen[observations], expected[observations]

        key = jax.random.fold_in(jax.random.fold_in(state.key, acting.EVALUATION), state.step)
        played = evaluation.play(world.environment, policy, key, FLAGS.eval_episodes, limit)
        success = (played.terminated & (played.returns > least)).mean(dtype=jnp.float32)
        return {"return": played.returns.mean(), "length": played.lengths.mean(dtype=jnp.float32), "success": success}

    return measure


def values_of_all(values_of: Callable[[Any], Any], memory: Any, population: bool) -> dict[str, np.ndarray]:
    """The learned values, of every member."""
    return {"values": np.asarray(jax.vmap(values_of)(memory) if population else values_of(memory))}


if __name__ == "__main__":
    common.launch(main)
