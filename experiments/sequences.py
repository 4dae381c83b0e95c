"""What the experiments on sequences share: their flags, and one run from a learner to its result."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from dlfx.training import evaluation, loop, mesh
from dlfx.types import Learner, Stream, UserError
from experiments import common
from experiments.common import FLAGS, Session, group

with group("Training"):
    flags.DEFINE_integer("batch_size", 32, "sequences in a step, over all devices and processes", lower_bound=1)
    flags.DEFINE_integer("steps", 1000, "training steps", lower_bound=1)
    flags.DEFINE_integer("accumulate", 1, "parts that a batch is computed in, to save memory", lower_bound=1)


class Split(NamedTuple):
    """What is evaluated.

    Attributes:
      stream: of a whole split, masked; see `evaluation_stream` in `data/`.
      batches: how many it has.
      sums: (state of one member, batch) to named sums over the batch.
      metrics: these sums over the split, NumPy arrays `[]` or `[members]`, to what is reported.
    """

    stream: Stream
    batches: int
    sums: Callable[[Any, Any], dict[str, jax.Array]]
    metrics: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


class Fitted(NamedTuple):
    """A finished training.

    Attributes:
      result: of the loop.
      state: the final one, of a population its first member's, as NumPy arrays.
    """

    result: loop.Result
    state: Any


def check_batch(session: Session) -> None:
    """Raises a UserError if devices or `--accumulate` do not divide the batch."""
    mesh.check_batch(FLAGS.batch_size, session.mesh)
    if FLAGS.batch_size // session.mesh.size % FLAGS.accumulate:
        raise UserError(
            f"--accumulate={FLAGS.accumulate} does not divide the {FLAGS.batch_size // session.mesh.size} sequences "
            f"that a device has of --batch_size={FLAGS.batch_size}"
        )


def share() -> dict[str, Any]:
    """Which process this is, and of how many."""
    return {"process": jax.process_index(), "processes": jax.process_count()}


def means(*names: str) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """The metrics of a split that are its named sums divided by its `count`."""
    return lambda sums: evaluation.means(sums, names)


def fit(
    session: Session,
    learner: Learner,
    stream: Stream,
    splits: Mapping[str, Split],
    monitor: str,
    variables: Any = None,
    partition: mesh.Partition | None = None,
) -> Fitted | None:
    """Trains in the session's directory; None where that holds the finished run already.

    Args:
      session: of this run.
      learner: what is trained.
      stream: its batches.
      splits: what is evaluated, by name.
      monitor: the metric that says which checkpoint is best, such as `valid_loss`.
      variables: what to begin with, if not with what the learner draws.
      partition: how the state is sharded over the axis `model` of `--mesh`; None replicates it.
    """
    with session.clock.phase("program"):
        if mesh.MODEL in session.mesh.axis_names:
            program = mesh.jit_program(learner, stream, session.mesh, session.seeds, partition)
        else:
            program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)
    if variables is not None:
        program = common.beginning_with(program, variables)
    evaluators = {
        name: evaluation.evaluator(program, split.sums, split.stream, split.batches) for name, split in splits.items()
    }

    def evaluate(state: Any) -> loop.Splits:
        return {name: splits[name].metrics(sums_of(state)) for name, sums_of in evaluators.items()}

    if not common.open_directory(session):
        return None
    result = common.train(session, program, stream, common.schedule(FLAGS.steps, monitor), evaluate)
    member = jax.tree.map(lambda x: x[0], result.arrays) if program.population else result.arrays
    return Fitted(result, member)
