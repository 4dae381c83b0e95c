"""The rules, policies and schedules of experiments with tables, chosen by flags."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.envs import worlds
from dlfx.envs.episodes import Clocked
from dlfx.envs.tabular import environment
from dlfx.learners.tabular import monte_carlo, policies, schedules
from dlfx.learners.tabular.double_q_learning import double_q_learning
from dlfx.learners.tabular.dyna_q import dyna_q, dyna_q_plus
from dlfx.learners.tabular.episodes import EpisodeRule, episodes
from dlfx.learners.tabular.expected_sarsa import expected_sarsa
from dlfx.learners.tabular.interaction import Rule, interaction
from dlfx.learners.tabular.n_step_sarsa import n_step_sarsa
from dlfx.learners.tabular.n_step_td import n_step_td
from dlfx.learners.tabular.off_policy_monte_carlo import off_policy_monte_carlo
from dlfx.learners.tabular.prioritized_sweeping import prioritized_sweeping
from dlfx.learners.tabular.q_learning import q_learning
from dlfx.learners.tabular.sarsa import sarsa
from dlfx.learners.tabular.sarsa_lambda import sarsa_lambda
from dlfx.learners.tabular.td_lambda import td_lambda
from dlfx.learners.tabular.td_zero import td_zero
from dlfx.learners.tabular.watkins_q import watkins_q
from dlfx.ops.mdp import uniform
from dlfx.types import Environment, Learner
from experiments import acting  # noqa: F401 (it defines flags)
from experiments.common import FLAGS, group

Make = Callable[[int], Rule | EpisodeRule]  # from the number of actions and the flags
PREDICTION: dict[str, Make] = {
    "td_zero": lambda actions: td_zero(),
    "n_step_td": lambda actions: n_step_td(FLAGS.n),
    "td_lambda": lambda actions: td_lambda(FLAGS.trace_decay, FLAGS.traces),
    "monte_carlo_prediction": lambda actions: monte_carlo.monte_carlo_prediction(alpha(), FLAGS.first_visit),
}
CONTROL: dict[str, Make] = {
    "q_learning": lambda actions: q_learning(),
    "double_q_learning": lambda actions: double_q_learning(),
    "sarsa": lambda actions: sarsa(),
    "expected_sarsa": lambda actions: expected_sarsa(),
    "n_step_sarsa": lambda actions: n_step_sarsa(actions, FLAGS.n),
    "sarsa_lambda": lambda actions: sarsa_lambda(FLAGS.trace_decay, FLAGS.traces),
    "watkins_q": lambda actions: watkins_q(FLAGS.trace_decay, FLAGS.traces),
    "dyna_q": lambda actions: dyna_q(FLAGS.planning_steps),
    "dyna_q_plus": lambda actions: dyna_q_plus(FLAGS.planning_steps, FLAGS.kappa),
    "prioritized_sweeping": lambda actions: prioritized_sweeping(FLAGS.planning_steps, FLAGS.threshold),
    "monte_carlo_control": lambda actions: monte_carlo.monte_carlo_control(actions, alpha(), FLAGS.first_visit),
    "off_policy_monte_carlo": lambda actions: off_policy_monte_carlo(),
}
PLANNING = ["value_iteration", "policy_iteration", "policy_evaluation"]
ALGORITHMS = [*PREDICTION, *CONTROL, *PLANNING]
SCHEDULES = ["constant", "linear", "exponential", "visits"]
POLICIES: dict[str, Callable[[], policies.Policy]] = {
    "epsilon_greedy": lambda: policies.epsilon_greedy(schedule("epsilon")),
    "softmax": lambda: policies.softmax(schedules.constant(FLAGS.temperature)),
    "ucb": lambda: policies.upper_confidence(FLAGS.confidence),
    "greedy": policies.greedy,
}

with group("Learning"):
    flags.DEFINE_string("algorithm", "q_learning", f"one of {', '.join(ALGORITHMS)}")
    for name, start, what in (("alpha", 0.1, "step size"), ("epsilon", 0.1, "chance of exploring")):
        flags.DEFINE_float(name, start, what, 0.0, 1.0)
        flags.DEFINE_float(f"{name}_end", 0.01, f"what a linear or exponential {name} ends at", 0.0, 1.0)
        flags.DEFINE_enum(f"{name}_schedule", "constant", SCHEDULES, "visits: 1 / N^--visit_power")
    flags.DEFINE_float("visit_power", 1.0, "of schedules by visits", 0.0, 1.0)
    flags.DEFINE_float("decay_part", 1.0, "part of the run over which schedules fall", 1e-6, 1.0)
    flags.DEFINE_float("initial_value", 0.0, "what every value begins with; high values make greedy policies explore")
    flags.DEFINE_integer("n", 4, "rewards in the returns of n-step methods")
    flags.DEFINE_float("trace_decay", 0.9, "lambda, of methods with eligibility traces")
    flags.DEFINE_enum("traces", "accumulating", ["accumulating", "replacing"], "their kind")
    flags.DEFINE_integer("planning_steps", 5, "updates from the model after each real step")
    flags.DEFINE_float("kappa", 1e-3, "curiosity of dyna_q_plus", lower_bound=0.0)
    flags.DEFINE_float("threshold", 1e-4, "least priority of prioritized_sweeping")
    flags.DEFINE_bool("first_visit", True, "of Monte Carlo methods; otherwise every visit counts")
    flags.DEFINE_bool("exploring_starts", False, "of Monte Carlo methods: begin in any state, with any action")
    flags.DEFINE_integer("episodes", 1000, "of Monte Carlo methods, one a step, in place of --env_steps", lower_bound=1)
    flags.DEFINE_integer("sweeps", 100, "of planning, one a step, in place of --env_steps", lower_bound=1)
    flags.DEFINE_integer("max_steps", 0, "cut training episodes there; 0: as the environment does", lower_bound=0)
    flags.DEFINE_integer("unroll", 100, "environment steps in one step of the run", lower_bound=1)
with group("Behaviour"):
    flags.DEFINE_string("policy", "epsilon_greedy", f"of control, one of {', '.join(POLICIES)}; of prediction: uniform")
    flags.DEFINE_float("temperature", 1.0, "of softmax", lower_bound=1e-6)
    flags.DEFINE_float("confidence", 2.0, "of ucb", lower_bound=0.0)


def schedule(name: str) -> schedules.Schedule:
    """The schedule of `--alpha` or `--epsilon`."""
    first, last, kind = (getattr(FLAGS, flag) for flag in (name, f"{name}_end", f"{name}_schedule"))
    steps = max(1, round(FLAGS.decay_part * FLAGS.env_steps))
    if kind == "linear":
        return schedules.linear(first, last, steps)
    if kind == "exponential":
        return schedules.exponential(max(first, 1e-6), max(last, 1e-6), steps)
    return schedules.by_visits(FLAGS.visit_power) if kind == "visits" else schedules.constant(first)


def alpha() -> schedules.Schedule:
    """The schedule of the step size."""
    return schedule("alpha")


def make(world: worlds.World) -> tuple[Learner, Callable[[Any], Any], int, int]:
    """(learner, memory to values, steps of the run, environment steps in each or 0 where that varies)."""
    env, prediction = training_environment(world), FLAGS.algorithm in PREDICTION
    rule = (PREDICTION | CONTROL)[FLAGS.algorithm](env.num_actions)
    policy = policies.given(uniform(world.mdp)) if prediction else POLICIES[FLAGS.policy]()
    shared: dict[str, Any] = {"gamma": FLAGS.gamma, "initial_value": FLAGS.initial_value}
    if isinstance(rule, EpisodeRule):
        learner = episodes(env, rule, policy, exploring_starts=FLAGS.exploring_starts, **shared)
        return learner, rule.values, FLAGS.episodes, 0
    learner = interaction(env, rule, policy, step_size=alpha(), unroll=FLAGS.unroll, **shared)
    return learner, rule.values, -(-FLAGS.env_steps // FLAGS.unroll), FLAGS.unroll


def training_environment(world: worlds.World) -> Environment:
    """The world to learn in: with the limit of `--max_steps`, and beginning anywhere with `--exploring_starts`."""
    if not (FLAGS.max_steps or FLAGS.exploring_starts):
        return world.environment
    mdp, limit = world.mdp, FLAGS.max_steps or world.environment.max_steps
    if FLAGS.exploring_starts:
        free = ~np.asarray(mdp.terminal)
        mdp = mdp._replace(start=free / free.sum())
    picture = world.environment.render
    return environment(world.name, mdp, max_steps=limit, render=lambda state: picture(Clocked(state, jnp.int32(0))))
