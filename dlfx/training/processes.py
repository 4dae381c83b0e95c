"""Several processes as one run: start them, agree on what the first one found, send its state to the others."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dlfx.types import UserError


def initialize(coordinator: str = "", num_processes: int = 0, process_id: int = -1) -> None:
    """Connects the processes of a run; must come before the first use of a device.

    With the three arguments, explicitly; without, through jax's own detection under SLURM, Open MPI or on a TPU pod;
    otherwise this is a single process and nothing happens.

    Args:
      coordinator: `HOST:PORT` of process 0.
      num_processes: how many processes there are.
      process_id: which one this is, from 0.

    Raises:
      UserError: if only some are given, they do not fit, or the processes do not find each other.
    """
    if coordinator or num_processes or process_id >= 0:
        if not (coordinator and num_processes > 0 and 0 <= process_id < num_processes):
            raise UserError(
                "several processes need --coordinator=HOST:PORT, --num_processes=N and --process_id=0..N-1 together; "
                f"got {coordinator!r}, {num_processes or 'none'} and {process_id if process_id >= 0 else 'none'}"
            )
        arguments: dict[str, Any] = {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
    elif _launched_by_cluster():
        arguments = {}
    else:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes of this run could not be connected: {str(error).splitlines()[0]}") from error


def _launched_by_cluster() -> bool:
    tasks = (os.environ.get("SLURM_STEP_NUM_TASKS", "1"), os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))
    return any(task not in ("", "1") for task in tasks) or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def is_main() -> bool:
    """Whether this is the process that reads and writes the run directory."""
    return jax.process_index() == 0


def broadcast(tree: Any) -> Any:
    """Process 0's pytree of NumPy arrays, on every process. The others give a tree of the same shapes."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    return jax.tree.map(np.asarray, multihost_utils.broadcast_one_to_all(tree))


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process. Every process must call it at the same point."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def on_main(work: Callable[[], str]) -> str:
    """Runs `work` on process 0 and gives its text to all; a UserError there is raised on all."""
    if jax.process_count() == 1:
        return work()
    answer, failed = "", False
    if is_main():
        try:
            answer = work()
        except UserError as error:
            answer, failed = str(error), True
    encoded = np.frombuffer(answer.encode(), np.uint8)
    size, failure = broadcast((np.asarray(len(encoded)), np.asarray(failed)))
    text = bytes(broadcast(encoded if is_main() else np.zeros(int(size), np.uint8))).decode() if size else ""
    if failure:
        raise UserError(text)
    return text
