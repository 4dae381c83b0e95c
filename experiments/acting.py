"""The flags of every experiment that acts in an environment."""

from absl import flags

from experiments.common import group

EVALUATION = 2**31 - 2  # the count that sets the keys of evaluation apart; no step reaches it

with group("Environment"):
    flags.DEFINE_string("env", "", "its name; by default cliff for tables, CartPole-v1 for networks")
    flags.DEFINE_float("gamma", 0.99, "discount, from 0 to 1")
    flags.DEFINE_integer("env_steps", 500_000, "environment steps of a seed, over its environments", lower_bound=1)
    flags.DEFINE_integer("eval_episodes", 32, "greedy episodes in an evaluation of a seed", lower_bound=1)
    flags.DEFINE_integer(
        "eval_max_steps", 10_000, "cut evaluated episodes there, if the environment does not before", lower_bound=1
    )
