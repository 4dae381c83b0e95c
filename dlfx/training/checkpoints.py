"""Checkpoints of a run through orbax: the newest few and the best, each sealed by the digests of its files.

A checkpoint holds the state as named NumPy arrays and `info`, what the host knows of the run. Process 0 alone writes
and reads; the others receive what it read. The seal, written last, tells a checkpoint that is whole from one that was
cut off or damaged, whatever the storage below notices: then the one before it is used, and the bad one is moved aside.
"""

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlfx.training.rundir import write_atomically
from dlfx.types import UserError

SEAL = "seal.json"
SPARE_BYTES = 1 << 17  # for what a checkpoint holds besides its arrays


class Checkpoints(NamedTuple):
    """The checkpoints of one run.

    Attributes:
      save: (step, state as NumPy arrays, info as JSON, score or None: higher is better). Returns when it is on disk.
      restore: template to (step, state, info) of the newest that is whole, or None.
      close: releases what orbax holds.
    """

    save: Callable[[int, Any, dict[str, Any], float | None], None]
    restore: Callable[[Any], tuple[int, Any, dict[str, Any]] | None]
    close: Callable[[], None]


def leaf_names(tree: Any) -> list[str]:
    """The path of every leaf, `params/Conv_0/kernel`, in path order."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree_util.tree_leaves_with_path(tree)
    ]


def named_leaves(tree: Any) -> dict[str, np.ndarray]:
    """Path to array, in path order."""
    return dict(zip(leaf_names(tree), map(np.asarray, jax.tree.leaves(tree)), strict=True))


def digest(tree: Any) -> str:
    """SHA-256 over the bytes of all leaves in path order."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()


def _layout(arrays: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [np.dtype(x.dtype).name, *x.shape] for name, x in arrays.items()}


def _contents(step: Path) -> dict[str, str]:
    """The SHA-256 of every file of a checkpoint, by its path in there, but for the seal."""
    files = sorted(file for file in step.rglob("*") if file.is_file() and file.name != SEAL)
    return {str(file.relative_to(step)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def open_checkpoints(directory: Path, keep: int, say: Callable[[str], None] = print) -> Checkpoints:
    """Opens (or makes) the checkpoints under a directory.

    Args:
      directory: absolute; one sub-directory per step is made in it.
      keep: how many of the newest to keep, besides the best.
      say: takes one line for a person when a checkpoint had to be passed over.
    """
    import orbax.checkpoint as ocp
    from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax tells its every step
    directory.mkdir(parents=True, exist_ok=True)
    only_main = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})

    def open_manager() -> ocp.CheckpointManager:
        best = preservation.BestN(n=1, get_metric_fn=lambda m: m["score"], keep_checkpoints_without_metrics=False)
        options = ocp.CheckpointManagerOptions(
            create=False,
            enable_async_checkpointing=False,
            preservation_policy=preservation.AnyPreservationPolicy([preservation.LatestN(keep), best]),
            multiprocessing_options=only_main,
        )
        return ocp.CheckpointManager(directory, options=options)

    # What a kill left half-written is in the way of nobody, but is no checkpoint either.
    for leftover in directory.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)
    managers = [open_manager()]

    def save(step: int, state: Any, info: dict[str, Any], score: float | None) -> None:
        arrays = named_leaves(state)
        # Told beforehand, since orbax's own threads print tracebacks when a disk turns out to be full.
        if shutil.disk_usage(directory).free < sum(x.nbytes for x in arrays.values()) + SPARE_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        sealed = {"info": info, "layout": _layout(arrays)}
        managers[0].save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), info=ocp.args.JsonSave(sealed)),
            metrics=None if score is None else {"score": score},
            force=True,
        )
        write_atomically(directory / str(step) / SEAL, json.dumps(_contents(directory / str(step)), indent=1))

    def read(step: int, template: Any) -> tuple[Any, dict[str, Any]]:
        # Before orbax looks: its readers leave threads behind that print tracebacks when a file is damaged.
        seal = directory / str(step) / SEAL
        if not seal.exists():
            raise ValueError("it was cut off while it was written")
        if json.loads(seal.read_text()) != _contents(directory / str(step)):
            raise ValueError("its files are not those that were written")
        wanted = dict(zip(leaf_names(template), jax.tree.leaves(template), strict=True))
        sealed = managers[0].restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore())).info
        if sealed["layout"] != (expected := _layout(wanted)):
            names = [n for n in sealed["layout"] | expected if sealed["layout"].get(n) != expected.get(n)]
            raise UserError(
                f"checkpoint {step} in {directory} is of another model or program: {len(names)} tensors differ, first "
                f"{names[0]!r} (there {sealed['layout'].get(names[0])}, expected {expected.get(names[0])})"
            )
        empty = {name: np.zeros(x.shape, x.dtype) for name, x in wanted.items()}
        item = ocp.args.Composite(state=ocp.args.StandardRestore(empty))
        restored = managers[0].restore(step, args=item).state
        arrays = [np.asarray(restored[name]) for name in wanted]
        return jax.tree.unflatten(jax.tree.structure(template), arrays), sealed["info"]

    def restore(template: Any) -> tuple[int, Any, dict[str, Any]] | None:
        for step in sorted(managers[0].all_steps(), reverse=True):
            try:
                state, info = read(step, template)
            except UserError:
                raise
            except Exception as error:  # what a damaged file raises is up to the layers below
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
                aside = directory.parent / "damaged" / f"{step}"
                shutil.rmtree(aside, ignore_errors=True)
                aside.parent.mkdir(exist_ok=True)
                managers[0].close()
                shutil.move(directory / str(step), aside)
                managers[0] = open_manager()
                say(f"checkpoint {step} is damaged ({reason}); moved to {aside}; going back to the one before")
            else:
                return step, state, info
        return None

    return Checkpoints(save, restore, lambda: managers[0].close())


def load_state(directory: Path, step: int | None = None) -> dict[str, np.ndarray]:
    """The named arrays of a checkpoint, without knowing what they belong to.

    Args:
      directory: the `checkpoints` directory of a run.
      step: which; None for the newest.

    Raises:
      UserError: if there is no such checkpoint.
    """
    import orbax.checkpoint as ocp

    steps = sorted(int(entry.name) for entry in directory.glob("*") if entry.name.isdigit())
    if not steps or (step is not None and step not in steps):
        raise UserError(f"no checkpoint {'' if step is None else step} in {directory}; it has {steps or 'none'}")
    path = (directory / str(steps[-1] if step is None else step) / "state").absolute()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # as above
    with ocp.StandardCheckpointer() as checkpointer:
        layout = checkpointer.metadata(path).item_metadata
        wanted = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(layout))
        return {name: np.asarray(x) for name, x in checkpointer.restore(path, wanted).items()}
