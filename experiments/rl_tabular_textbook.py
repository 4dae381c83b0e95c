"""Draws what the textbook draws of tables, over many seeds at once, and prints the numbers.

python -m experiments.rl_tabular_textbook                  # all of them
python -m experiments.rl_tabular_textbook cliff n_step     # some

Source: Sutton and Barto 2018, examples 6.6 and 8.1 to 8.3 and figure 7.2.
"""

import argparse
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.envs.worlds import world
from dlfx.learners.tabular import policies, schedules
from dlfx.learners.tabular.dyna_q import dyna_q, dyna_q_plus
from dlfx.learners.tabular.expected_sarsa import expected_sarsa
from dlfx.learners.tabular.interaction import Rule, interaction
from dlfx.learners.tabular.n_step_td import n_step_td
from dlfx.learners.tabular.q_learning import q_learning
from dlfx.learners.tabular.sarsa import sarsa
from dlfx.ops.mdp import policy_values, uniform
from dlfx.training import figures
from dlfx.types import Array, Key, Learner, UserError, unknown
from experiments.seeds import band

ROOT = Path(__file__).resolve().parent.parent
Curves = dict[str, np.ndarray]  # label to [seeds, points]


def learn(name: str, rule: Rule, gamma: float, alpha: float | Array, epsilon: float = 0.1, **options: Any) -> Learner:
    """A learner in a world whose every learner step is one environment step, so that its metrics tell each of them."""
    soft = policies.epsilon_greedy(schedules.constant(epsilon))
    shared: dict[str, Any] = {"policy": soft, "step_size": schedules.constant(alpha), "unroll": 1} | options
    return interaction(world(name).environment, rule, gamma=gamma, **shared)


def over_seeds(run: Callable[[Key], Any], seeds: int) -> Any:
    """What a run gives for seeds 0, 1, ..., stacked, as NumPy arrays."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(keys))


def per_episode(metrics: Any, metric: str, count: int) -> np.ndarray:
    """`[seeds, count]`: a metric of the first episodes, from metrics of single steps `[seeds, steps]`."""
    ended = metrics["episodes"] > 0
    fewest = int(ended.sum(1).min())
    if fewest < count:
        raise UserError(f"some seed ended only {fewest} of {count} episodes; it needs more steps")
    return np.stack([values[over][:count] for values, over in zip(metrics[metric], ended, strict=True)])


def cliff(seeds: int, steps: int = 60_000, episodes: int = 500) -> Curves:
    """Example 6.6: the return of each episode while exploring; SARSA keeps off the edge, Q-learning does not."""
    found = {}
    for label, rule in (("SARSA", sarsa()), ("expected SARSA", expected_sarsa()), ("Q-learning", q_learning())):
        learner = learn("cliff", rule, 1.0, 0.5)
        metrics = over_seeds(functools.partial(_metrics, learner, steps), seeds)
        found[label] = per_episode(metrics, "return", episodes)
    return found


def dyna(seeds: int, steps: int = 60_000, episodes: int = 50) -> Curves:
    """Example 8.1: the steps of each episode in the maze with 0, 5 and 50 planning steps."""
    found = {}
    for planning in (0, 5, 50):
        learner = learn("dyna_maze", dyna_q(planning), 0.95, 0.1)
        enough = steps if planning == 0 else steps // 3
        metrics = over_seeds(functools.partial(_metrics, learner, enough), seeds)
        found[f"{planning} planning steps"] = per_episode(metrics, "length", episodes)
    return found


def n_step(seeds: int, steps: int = 4000, episodes: int = 10) -> Curves:
    """Figure 7.2: RMS error over the first 10 episodes of the walk with 19 states, `[seeds, alphas]` for each n."""
    walk, alphas = world("random_walk19"), jnp.linspace(0.0, 1.0, 11)
    truth = jnp.asarray(policy_values(walk.mdp, uniform(walk.mdp)))[1:-1]
    given = policies.given(uniform(walk.mdp))
    found = {}
    for n in (1, 2, 4, 8, 16, 32):
        rule = n_step_td(n)

        def run(key: Key, alpha: Array, rule: Rule = rule) -> Array:
            learner = learn("random_walk19", rule, 1.0, alpha, policy=given)

            def one(carry: tuple[Any, Array, Array], _: None) -> tuple[tuple[Any, Array, Array], None]:
                state, ended, total = carry
                state, metrics = learner.step(state, ())
                error = jnp.sqrt(((rule.values(state.memory)[1:-1] - truth) ** 2).mean())
                counted = metrics["episodes"] * (ended < episodes)
                return (state, ended + metrics["episodes"], total + counted * error), None

            begin = learner.init(key, ()), jnp.float32(0), jnp.float32(0)
            (_, ended, total), _ = jax.lax.scan(one, begin, None, steps)
            return jnp.where(ended >= episodes, total / episodes, jnp.nan)

        errors = over_seeds(functools.partial(_each, run, alphas), seeds)
        if np.isnan(errors).any():
            raise UserError(f"some walk did not end {episodes} episodes in {steps} steps; it needs more")
        found[f"n = {n}"] = errors
    return found


def blocking(seeds: int, before: int = 1000, after: int = 2000) -> Curves:
    """Example 8.2: the reward so far in a maze whose way on the right closes and opens on the left."""
    return _changing("blocking_maze", seeds, before, after, 1e-4)


def shortcut(seeds: int, before: int = 3000, after: int = 3000) -> Curves:
    """Example 8.3: the reward so far in a maze where a shorter way opens."""
    return _changing("shortcut_maze", seeds, before, after, 1e-3)


def _changing(name: str, seeds: int, before: int, after: int, kappa: float) -> Curves:
    found = {}
    for label, rule in (("Dyna-Q", dyna_q(10)), ("Dyna-Q+", dyna_q_plus(10, kappa))):
        first, second = (learn(place, rule, 0.95, 1.0) for place in (name, f"{name}_after"))

        def run(key: Key, first: Learner = first, second: Learner = second) -> Array:
            # Both worlds number their states alike, so the second goes on with the state of the first.
            state, early = jax.lax.scan(first.step, first.init(key, ()), (), before)
            _, late = jax.lax.scan(second.step, state, (), after)
            return jnp.concatenate([early["episodes"], late["episodes"]]).cumsum()  # +1 for each goal

        found[label] = over_seeds(run, seeds)[:, ::10]
    return found


def _metrics(learner: Learner, steps: int, key: Key) -> Any:
    return jax.lax.scan(learner.step, learner.init(key, ()), (), steps)[1]


def _each(run: Callable[[Key, Array], Array], settings: Array, key: Key) -> Array:
    return jax.vmap(run, (None, 0))(key, settings)


def draw(name: str, found: Curves, path: Path) -> None:
    """A picture of the curves, with 95 % bootstrap bands."""
    title, xlabel, ylabel = LABELS[name]
    points = next(iter(found.values())).shape[1]
    xs = {"n_step": np.linspace(0, 1, points), "blocking": 10 * np.arange(points), "shortcut": 10 * np.arange(points)}
    x, skipped = xs.get(name, np.arange(points) + 1), 20 if name == "cliff" else 0  # episodes that dwarf all others
    bands = {
        label: band((_smooth(values) if name == "cliff" else values)[:, skipped:]) for label, values in found.items()
    }
    title = f"{title}, {len(next(iter(found.values())))} seeds"
    figures.seed_curves(path, x[skipped:], bands, title, xlabel, ylabel)


def _smooth(values: np.ndarray, width: int = 10) -> np.ndarray:
    """The running mean over the last episodes."""
    sums = np.cumsum(np.pad(values, ((0, 0), (1, 0))), 1)
    ends = np.arange(1, values.shape[1] + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[:, ends] - sums[:, starts]) / (ends - starts)


def tell(name: str, found: Curves) -> list[str]:
    """The numbers of a study, a line each."""
    lines = []
    for label, values in found.items():
        if name == "cliff":
            last = values[:, -100:].mean(1)
            lines.append(f"{label}: return of the last 100 of {values.shape[1]} episodes {_spread(last)}")
        elif name == "dyna":
            lines.append(f"{label}: steps of episode 2 {_spread(values[:, 1])}, of the last {_spread(values[:, -1])}")
        elif name == "n_step":
            best = int(values.mean(0).argmin())
            lines.append(f"{label}: least RMS error {_spread(values[:, best])} at alpha {best / 10:.1f}")
        else:
            lines.append(f"{label}: reward in all {_spread(values[:, -1])}")
    return lines


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} +- {values.std(ddof=1):.3f} ({len(values)} seeds)"


STUDIES: dict[str, Callable[[int], Curves]] = {
    "cliff": cliff,
    "dyna": dyna,
    "n_step": n_step,
    "blocking": blocking,
    "shortcut": shortcut,
}
LABELS = {
    "cliff": ("Cliff walking, epsilon 0.1, alpha 0.5", "episode", "return while exploring, mean of 10"),
    "dyna": ("Dyna-Q in a maze", "episode", "steps of the episode"),
    "n_step": ("n-step TD on the walk with 19 states", "alpha", "RMS error over 10 episodes"),
    "blocking": ("A maze whose way closes at step 1000", "step", "reward so far"),
    "shortcut": ("A maze where a shorter way opens at step 3000", "step", "reward so far"),
}


def main() -> None:
    """Runs the studies named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; all of them by default")
    parser.add_argument("--seeds", type=int, default=100, help="at least 2")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "rl_tabular" / "textbook", help="a directory")
    told = parser.parse_args()
    try:
        if told.seeds < 2:
            raise UserError(f"--seeds={told.seeds}: a band needs at least 2")
        for name in told.studies or STUDIES:
            if name not in STUDIES:
                raise unknown("study", name, STUDIES)
            found = STUDIES[name](told.seeds)
            draw(name, found, told.out / f"{name}.png")
            print("\n".join([LABELS[name][0], *(f"  {line}" for line in tell(name, found))]), flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"pictures: {told.out}")


if __name__ == "__main__":
    main()
