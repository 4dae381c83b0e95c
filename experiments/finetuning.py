"""Beginning a run with the weights of a file, and training only a part of them."""

import re
from typing import Any

import jax
from absl import flags

from dlfx.training import processes
from dlfx.training.mesh import Program
from dlfx.types import UserError
from dlfx.weights.classifiers import begin_from
from experiments.common import FLAGS, Session, beginning_with, group

SHOWN = 8  # names in an error

with group("Fine-tuning"):
    flags.DEFINE_string(
        "init_from", "", "a checkpoint to begin with (.safetensors, .pth), of torchvision, timm, or experiments.export"
    )
    flags.DEFINE_string(
        "freeze",
        "",
        "a regular expression for the beginnings of names, such as layer1.0.conv1.kernel; these stay as they are",
    )


def frozen_names(params: Any) -> frozenset[str]:
    """The names of the parameters that `--freeze` is for.

    Raises:
      UserError: if it is no regular expression, matches none, or leaves none to train.
    """
    try:
        pattern = re.compile(FLAGS.freeze)
    except re.error as error:
        raise UserError(f"--freeze={FLAGS.freeze} is no regular expression: {error}") from error
    names = _names(params)
    frozen = frozenset(name for name in names if pattern.match(name))
    if not frozen:
        some = names[:: max(1, len(names) // SHOWN)][:SHOWN]
        raise UserError(
            f"--freeze={FLAGS.freeze} matches none of the {len(names)} parameters, such as {', '.join(some)}"
        )
    if len(frozen) == len(names):
        raise UserError(f"--freeze={FLAGS.freeze} matches all {len(names)} parameters; none would be trained")
    return frozen


def frozen_mask(params: Any, frozen: frozenset[str]) -> Any:
    """Parameters to a tree of bool, true where they are frozen."""
    return jax.tree.unflatten(jax.tree.structure(params), [name in frozen for name in _names(params)])


def begin_with_file(session: Session, program: Program, num_classes: int) -> Program:
    """The program with the weights of `--init_from` in its initial state; as it is without, or where a run goes on.

    Raises:
      UserError: see `begin_from`.
    """
    if not FLAGS.init_from or any((session.path / "checkpoints").glob("[0-9]*")):
        return program
    template = {"params": program.template.params, **program.template.extra}
    if program.population:
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), template)
    found = begin_from(FLAGS.init_from, template, num_classes)
    if processes.is_main():
        print(f"beginning: {found.told}")
    return beginning_with(program, found.variables)


def _names(params: Any) -> list[str]:
    return [".".join(key.key for key in path) for path, _ in jax.tree.leaves_with_path(params)]
