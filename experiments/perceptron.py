"""Trains a perceptron, one threshold unit, and shows every correction of its weights.

python -m experiments.perceptron
python -m experiments.perceptron --flagfile=experiments/flagfiles/perceptron/xor.flags
python -m experiments.perceptron --data=FILE.csv --rate=0.5 --epochs=100 --pocket --shuffle
"""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import gates
from dlfx.learners import perceptron as unit
from dlfx.training import loop, mesh, processes, rundir
from dlfx.types import Array, Learner, UserError
from experiments import common, perceptron_figures
from experiments import perceptron_history as history
from experiments.common import FLAGS, group

LINES = 44  # of weights.txt that are printed; of longer files the first and the last

with group("Perceptron"):
    flags.DEFINE_string("data", "notes", f"{', '.join(gates.TABLES)}, or FILE.csv whose last column is the class")
    flags.DEFINE_integer("data_seed", 0, "seed of clouds and overlap: the same points for all --num_seeds", 0)
    flags.DEFINE_bool("standardize", False, "bring every column to mean 0 and standard deviation 1")
    flags.DEFINE_float("rate", 0.1, "eta, the learning rate")
    flags.DEFINE_enum("activation", "sign", list(unit.ACTIVATIONS), "of a net of 0, sign makes 0 and step makes 1")
    flags.DEFINE_integer("epochs", 20, "passes over the rows", lower_bound=1)
    flags.DEFINE_integer("batch_size", 1, "rows in a step; they are learned one after the other", lower_bound=1)
    flags.DEFINE_bool("shuffle", False, "each epoch in a new order, by the seed")
    flags.DEFINE_bool("pocket", False, "keep the weights that get the fewest rows wrong")
    flags.DEFINE_enum("init", "auto", ["auto", "zeros", "notes", "normal"], "auto: notes for --data=notes, else zeros")


def main(_: Any) -> None:
    with common.begin("perceptron", f"{'pocket' if FLAGS.pocket else 'unit'}-{Path(FLAGS.data).stem}") as session:
        run(session)


def initial(table: gates.Table) -> Any:
    """(key, shape, dtype) to the initial weights of the flags."""
    kind = FLAGS.init if FLAGS.init != "auto" else "notes" if FLAGS.data == "notes" else "zeros"
    if kind != "notes":
        return jax.nn.initializers.zeros if kind == "zeros" else jax.nn.initializers.normal(1.0)
    if len(gates.NOTES_WEIGHTS) != table.x.shape[1]:
        raise UserError(
            f"--init=notes is of {len(gates.NOTES_WEIGHTS)} weights, the threshold included; --data={FLAGS.data} needs "
            f"{table.x.shape[1]}: use zeros or normal"
        )
    return lambda key, shape, dtype: jnp.asarray(gates.NOTES_WEIGHTS, dtype)


def run(session: common.Session) -> None:
    """One invocation: rows, unit, program, training, and what it came to in words and pictures."""
    if FLAGS.precision == "bfloat16":
        raise UserError("--precision=bfloat16 is too coarse for a unit that goes by the sign of a sum; use float32")
    table = gates.load(FLAGS.data, FLAGS.data_seed)
    if FLAGS.standardize:
        table = gates.standardized(table)
    # A row waits for the one before it, so that more devices save no time; they are used where the batch allows it.
    if jax.process_count() == 1 and FLAGS.batch_size % session.mesh.size:
        session.mesh = mesh.make_mesh(jax.devices()[:1])
    mesh.check_batch(FLAGS.batch_size, session.mesh)
    dtype = np.dtype(session.param_dtype)
    share = {"process": jax.process_index(), "processes": jax.process_count()}
    stream = gates.stream(table, FLAGS.batch_size, FLAGS.shuffle, dtype, **share)
    x, target = jnp.asarray(table.x, dtype), jnp.asarray(table.target, dtype)
    make = functools.partial(
        unit.perceptron,
        FLAGS.rate,
        FLAGS.activation,
        initial=initial(table),
        pocket=(x, target) if FLAGS.pocket else None,
    )
    with session.clock.phase("program"):
        learner = make(axis_name=session.axis_name)
        program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)
    measured = functools.partial(measure, x=x, target=target)
    compiled = jax.jit(jax.vmap(measured) if program.population else measured)

    def evaluate(state: Any) -> loop.Splits:
        return {"train": {name: np.asarray(value) for name, value in compiled(state).items()}}

    if not common.open_directory(session):
        if processes.is_main() and (session.path / "weights.txt").exists():
            print(shortened((session.path / "weights.txt").read_text().splitlines()))
        return
    steps = -(-FLAGS.epochs * len(x) // FLAGS.batch_size)
    result = common.train(session, program, stream, common.schedule(steps, "train_accuracy"), evaluate)
    if session.run:
        tell(session, table, make(), result)


def measure(state: unit.State, x: Array, target: Array) -> dict[str, Array]:
    """How many of all rows are wrong: by the weights in the pocket, if there is one, and by the last."""
    last = unit.errors(state.weights, x, target, unit.ACTIVATIONS[FLAGS.activation])
    wrong = last if state.pocket_errors is None else state.pocket_errors
    error = wrong.astype(x.dtype) / len(x)
    found = {"errors": wrong, "error": error, "accuracy": 1 - error}
    return found if state.pocket is None else {**found, "last_errors": last}


def tell(session: common.Session, table: gates.Table, learner: Learner, result: loop.Result) -> None:
    """Goes through the training again for its trajectory, and prints, writes and draws what it shows."""
    activation, count, dtype = FLAGS.activation, result.step * FLAGS.batch_size, session.param_dtype
    with session.clock.phase("trajectory"):
        seen = history.rerun(learner, activation, table, session.seeds, count, FLAGS.shuffle, dtype)
        ended = [history.outcome(member, table, activation, FLAGS.shuffle) for member in seen]
        gamma = history.margin(table)
    records = history.records(seen[0], table, ended[0])
    lines = history.text(records) + ["", *history.verdict(seen[0], table, ended[0], gamma, activation)]
    if not np.allclose([member.weights[-1] for member in seen], np.atleast_2d(result.arrays.weights), atol=1e-4):
        lines.append(
            "(This trajectory, computed anew, has ended elsewhere than the training: a net near 0 was rounded.)"
        )

    ends = [end.converged for end in ended]
    add = {"converged": np.array([end is not None for end in ends], float)}
    if None not in ends:
        add["convergence_step"] = np.array(ends, float)
    if len(ends) > 1:
        some = f"{int(add['converged'].sum())} of {len(ends)} seeds"
        lines = [f"seed {session.seeds[0]}:", *lines, "", f"{some} got every row right."]
    result.metrics.update({name: rundir.spread(of if len(ends) > 1 else of[0]) for name, of in add.items()})
    both = None
    if FLAGS.data == "xor":
        both = history.two_layers(FLAGS.rate, activation, max(FLAGS.epochs, 20), dtype)
        lines += ["", *history.tell_two_layers(both)]
        result.metrics["two_layers_errors"] = float(both.errors)
    print(shortened(lines))
    with rundir.explain_os_errors(session.path):
        rundir.write_atomically(session.path / "weights.txt", "\n".join(lines) + "\n")
        rundir.write_atomically(session.path / "weights.jsonl", "".join(json.dumps(line) + "\n" for line in records))
    params = result.arrays.weights if result.arrays.pocket is None else result.arrays.pocket
    draw = functools.partial(
        perceptron_figures.draw, table=table, seen=seen, ended=ended, activation=activation, both=both
    )
    common.finish(session, result, {"weights": params}, draw)


def shortened(lines: list[str]) -> str:
    """Lines to print: all, or the first and the last."""
    if len(lines) > LINES:
        half = LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} lines more in weights.txt", *lines[-half:]]
    return "\n".join(lines)


if __name__ == "__main__":
    common.launch(main)
