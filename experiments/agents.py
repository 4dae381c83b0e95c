"""What the experiments with deep agents share: flags, greedy evaluation, figures, and looking at a finished run."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from dlfx.envs import evaluation
from dlfx.models.reinforcement.torsos import TORSOS
from dlfx.training import checkpoints, figures, loop, mesh, rundir
from dlfx.types import NO_BATCHES, Environment, Key, Learner, UserError
from experiments import (
    acting,
    common,
    environments,
    seeds,
)
from experiments.common import FLAGS, group

FRAMES = 300  # of an animation at most; of longer episodes every second step, every third ...

with group("Agent"):
    flags.DEFINE_integer("num_envs", 1, "environments that a seed acts in side by side", lower_bound=1)
    flags.DEFINE_bool("eval_only", False, "evaluate the best and the last checkpoint of --workdir, and train nothing")
with group("Network"):
    flags.DEFINE_enum("torso", "auto", ["auto", *TORSOS], "auto: minatar_cnn for 10x10 grids, nature_cnn for screens")
    flags.DEFINE_list("widths", ["120", "84"], "units of the layers of an mlp")
    flags.DEFINE_enum("activation", "relu", ["relu", "tanh"], "of an mlp")


def env_name() -> str:
    """The environment of the flags, by default CartPole-v1."""
    return FLAGS.env or "CartPole-v1"


def label() -> str:
    """The environment in the name of a directory."""
    return env_name().replace(":", "-").replace("/", "-")


def environment(session: common.Session) -> Environment:
    """The environment of the flags.

    Raises:
      UserError: if there is none of that name, or gamma is no discount.
    """
    if not 0 <= FLAGS.gamma <= 1:
        raise UserError(f"--gamma={FLAGS.gamma:g} is no discount: it lies between 0 and 1")
    with session.clock.phase("environment"):
        return environments.make(env_name())


def torso(env: Environment, dtype: Any, param_dtype: Any) -> Any:
    """The torso of the flags for an environment."""
    name, shape = FLAGS.torso, env.observation.shape
    if name == "auto":
        name = "mlp" if len(shape) != 3 else "minatar_cnn" if shape[0] < 36 else "nature_cnn"
    options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
    if name == "mlp":
        try:
            options["widths"] = tuple(int(width) for width in FLAGS.widths)
        except ValueError:
            options["widths"] = ()
        if not options["widths"] or min(options["widths"]) < 1:
            raise UserError(f"--widths={','.join(FLAGS.widths)} must be positive whole numbers, such as 120,84")
        options |= {"num_states": env.num_states, "activation": getattr(jax.nn, FLAGS.activation)}
    return TORSOS[name](**options)


def run(session: common.Session, env: Environment, learner: Learner, policy: Any, block: int, steps: int) -> None:
    """Trains an agent, or with `--eval_only` evaluates what was trained.

    Args:
      session: of this invocation.
      env: to evaluate in.
      learner: the agent, without batches.
      policy: (params, key, observations) to (greedy actions, values).
      block: environment steps of one learner step.
      steps: learner steps.
    """
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, NO_BATCHES, session.mesh, session.seeds)
    play = greedy(env, policy, program.population)

    def evaluate(state: Any) -> loop.Splits:
        played = play(state)
        return {"eval": {name: np.asarray(value) for name, value in summarize(played).items()}}

    if FLAGS.eval_only:
        return look(session, program, evaluate)
    if not common.open_directory(session):
        return
    when = common.schedule(steps, "eval_return")
    result = common.train(session, program, NO_BATCHES, when, evaluate)
    params = jax.tree.map(lambda x: x[0], result.arrays.params) if program.population else result.arrays.params
    draw = functools.partial(
        draw_figures, env=env, policy=functools.partial(policy, params), session=session, block=block
    )
    common.finish(session, result, result.arrays.params, draw)


def greedy(env: Environment, policy: Any, population: bool) -> Callable[[Any], evaluation.Episodes]:
    """The compiled evaluation: a state to its episodes `[(N,) episodes]`; other episodes at every step of training."""
    limit = env.max_steps or FLAGS.eval_max_steps

    def play(params: Any, key: Key, step: jax.Array) -> evaluation.Episodes:
        key = jax.random.fold_in(jax.random.fold_in(key, acting.EVALUATION), step)
        chosen = functools.partial(policy, params)
        return evaluation.play(env, chosen, key, FLAGS.eval_episodes, limit, FLAGS.gamma)

    compiled = jax.jit(jax.vmap(play) if population else play)
    return lambda state: compiled(state.params, state.key, state.step)


def summarize(played: evaluation.Episodes) -> dict[str, jax.Array]:
    """The means over the last axis; `q` is the value expected of the first action, `discounted` what came of it."""
    return {
        "return": played.returns.mean(-1),
        "length": played.lengths.mean(-1),
        "discounted": played.discounted.mean(-1),
        "q": played.values.mean(-1),
    }


def stored_flags() -> None:
    """With `--eval_only`, takes every flag that the command line leaves open from the run in `--workdir`."""
    if not FLAGS.eval_only:
        return
    file = Path(FLAGS.workdir).expanduser() / "flags.txt"
    if not FLAGS.workdir or not file.is_file():
        raise UserError(f"--eval_only needs the --workdir of a run; there is no {file if FLAGS.workdir else 'such'}")
    for name, value in rundir.parse_flags(file.read_text()).items():
        if name in FLAGS and not FLAGS[name].present:
            FLAGS[name].parse(value)


def look(session: common.Session, program: mesh.Program, evaluate: Callable[[Any], loop.Splits]) -> None:
    """Evaluates the best and the last checkpoint of a run, prints both and writes `evaluation.json`."""
    directory = session.path / "checkpoints"
    steps = sorted(int(entry.name) for entry in directory.glob("*") if entry.name.isdigit())
    if not steps:
        raise UserError(f"no checkpoint in {directory}; train first, without --eval_only")
    done = rundir.summary_of(session.path)
    wanted = {"last": steps[-1]}
    if done and done["best"]["step"] in steps:
        wanted["best"] = done["best"]["step"]
    elif done:
        print(f"best, step {done['best']['step']}: not saved; give --checkpoint_every the value of --eval_every")
    names = checkpoints.leaf_names(program.template)
    found = {}
    for label, step in wanted.items():
        arrays = checkpoints.load_state(directory, step)
        if set(arrays) != set(names):
            raise UserError(f"checkpoint {step} in {directory} is of another agent than these flags describe")
        state = program.restore(jax.tree.unflatten(jax.tree.structure(program.template), [arrays[n] for n in names]))
        metrics = {name: rundir.spread(value) for name, value in evaluate(program.view(state))["eval"].items()}
        found[label] = {"step": step, "episodes": FLAGS.eval_episodes, **metrics}
        print(f"{label}, step {step}: {common.words(metrics)}")
    rundir.write_atomically(session.path / "evaluation.json", json.dumps(found, indent=2) + "\n")


def draw_figures(directory: Path, env: Environment, policy: Any, session: common.Session, block: int) -> None:
    """Returns over environment steps, expected against realised values, and one greedy episode as a GIF."""
    rows, unit = rundir.read_metrics(session.path), "environment steps of a seed"
    for split, ylabel in (("eval", "greedy return"), ("train", "return while exploring")):
        xs, values = seeds.by_seed(rows, split, "return", session.seeds)
        title = f"{env.name}: {ylabel}"
        seeds.curves(directory / f"{split}_return.png", xs * block, {"return": values}, title, unit, ylabel)
    xs, expected = seeds.by_seed(rows, "eval", "q", session.seeds)
    realised = seeds.by_seed(rows, "eval", "discounted", session.seeds)[1]
    both = {"expected: value of the first action": expected, "realised: discounted return": realised}
    title = f"{env.name}: what the agent expects, and what it gets"
    seeds.curves(directory / "overestimation.png", xs * block, both, title, unit, "discounted return")
    key = jax.random.fold_in(jax.random.key(FLAGS.seed), acting.EVALUATION)
    seen = evaluation.record(env, policy, key, min(env.max_steps or FLAGS.eval_max_steps, 1000))
    shown = range(0, len(seen.actions), -(-len(seen.actions) // FRAMES))
    frames = [env.render(jax.tree.map(lambda x, t=t: x[t], seen.states)) for t in shown]
    figures.animation(directory / "episode.gif", frames, 20)
    axes = (figure := figures.new_figure(6.4, 3.4)).subplots()
    came = np.zeros(len(seen.rewards) + 1)
    for t in reversed(range(len(seen.rewards))):
        came[t] = seen.rewards[t] + FLAGS.gamma * came[t + 1]
    axes.plot(seen.values, label="expected")
    axes.plot(came[:-1], label="realised" + ("" if seen.terminated else " (up to the time limit)"))
    axes.set(xlabel="step", ylabel="discounted return to come", title=f"{env.name}: one greedy episode")
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, directory / "episode.png")
