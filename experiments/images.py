"""The images of an experiment: flags that choose them, their batches, and the steps of a run over them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from absl import flags

from dlfx.data import augment, batches, sources
from dlfx.training import evaluation, mesh
from dlfx.types import Array, Stream
from experiments.common import FLAGS, Session, group

with group("Data"):
    flags.DEFINE_string("dataset", "digits", f"{', '.join(sources.SOURCES)}, or tfds:NAME of a prepared TFDS data set")
    flags.DEFINE_string("data_dir", "", "the TFDS directory; by default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    flags.DEFINE_integer("batch_size", 128, "examples in a step, over all devices and processes", lower_bound=1)
    flags.DEFINE_integer("image_size", 32, "side to bring images to; 0: as they are", lower_bound=0)
    flags.DEFINE_enum("resize", "bilinear", ["bilinear", "pad"], "how to bring them there")
    flags.DEFINE_enum(
        "data_placement", "auto", ["auto", "device", "host"], "where examples wait; auto: device if they fit"
    )
    flags.DEFINE_integer("epochs", 10, "passes over the training set, unless --steps is given", lower_bound=1)
    flags.DEFINE_integer("steps", 0, "training steps; 0: as --epochs says", lower_bound=0)

Prepare = Callable[[Array], Array]


def label() -> str:
    """The data set in the name of a directory."""
    return FLAGS.dataset.replace(":", "-").replace("/", "-")


def load(session: Session) -> tuple[sources.Source, sources.Source]:
    """The (train, test) sources of the flags, after a look at whether the devices divide a batch."""
    mesh.check_batch(FLAGS.batch_size, session.mesh)
    with session.clock.phase("data"):
        return sources.load(FLAGS.dataset, FLAGS.data_dir)


def preparation(session: Session, mean: float = 0.0, std: float = 1.0) -> Prepare:
    """What brings raw images to the size of the flags and to `(x - mean) / std`, with x in [0, 1]."""
    size, resize = FLAGS.image_size, FLAGS.resize
    return functools.partial(
        batches.preprocess, mean=mean, std=std, size=size, resize=resize, dtype=session.param_dtype
    )


def share() -> dict[str, int]:
    """Which process this is, and of how many."""
    return {"process": jax.process_index(), "processes": jax.process_count()}


def training_stream(
    session: Session,
    train: sources.Source,
    prepare: Prepare,
    parts: int = 1,
    on_host: augment.Augmentation | None = None,
) -> Stream:
    """Batches of `parts` times `--batch_size` images, placed as the flags say."""
    with session.clock.phase("data"):
        rows = FLAGS.batch_size * parts
        return batches.training_stream(train, rows, prepare, FLAGS.data_placement, on_host, **share())


def steps(train: sources.Source, parts: int = 1) -> int:
    """The steps of the run."""
    return FLAGS.steps or FLAGS.epochs * (train.size // (FLAGS.batch_size * parts))


def evaluators(
    session: Session, program: mesh.Program, sums: Any, splits: Mapping[str, sources.Source], prepare: Prepare
) -> dict[str, Callable[[Any], evaluation.Sums]]:
    """For each split, `test` among them, the function of the state that sums `sums` over all of it."""
    rows = -(-min(512, splits["test"].size) // program.mesh.size) * program.mesh.size
    with session.clock.phase("data"):
        return {
            name: evaluation.evaluator(
                program, sums, *batches.evaluation_stream(source, rows, prepare, FLAGS.data_placement, **share())
            )
            for name, source in splits.items()
        }
