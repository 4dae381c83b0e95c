"""The run directory: flags, metrics as lines and as TensorBoard events, the summary; one run at a time.

Written so that a kill at any moment leaves it usable: whole files are replaced atomically, lines are flushed, and what
lies beyond the checkpoint that a run resumes from is cut off before it goes on.
"""

import contextlib
import errno
import fcntl
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dlfx.training.events import NO_EVENTS, open_events
from dlfx.types import UserError

Scalars = Mapping[str, float]


class RunDirectory(NamedTuple):
    """An open run directory.

    Attributes:
      path: absolute.
      log: (step, split, scalars): one line of `metrics.jsonl`, and TensorBoard events where tensorboardX is installed.
      truncate: (step): drops what was logged after that step; to be called before the first `log`.
      finish: (summary): writes `summary.json`.
      close: lets another run in.
    """

    path: Path
    log: Callable[[int, str, Scalars], None]
    truncate: Callable[[int], None]
    finish: Callable[[Mapping[str, Any]], None]
    close: Callable[[], None]


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file as a whole, so that a reader or a kill sees the old text or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turns errors of the file system under `path` into a UserError that says what is wrong in one line."""
    try:
        yield
    except UserError:
        raise
    except (OSError, ValueError) as error:
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        if full or "RESOURCE_EXHAUSTED" in str(error):
            raise UserError(
                f"the disk under {path} is full; nothing saved so far is lost: make room and run the same command again"
            ) from error
        if isinstance(error, OSError):
            raise UserError(f"the work directory {path} cannot be used: {error.strerror or error}") from error
        raise


def summary_of(path: Path) -> dict[str, Any] | None:
    """The summary of a finished run, or None."""
    file = path / "summary.json"
    return json.loads(file.read_text()) if file.exists() else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of `metrics.jsonl`; a last line that a kill cut off is left out."""
    file = path / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def parse_flags(text: str) -> dict[str, str]:
    """The flags of a `flags.txt`, lines of `--name=value`, as name to text."""
    pairs = (line[2:].partition("=") for line in text.splitlines() if line.startswith("--"))
    return {name: value for name, _, value in pairs}


def open_run(path: Path, flags: Mapping[str, str], free: frozenset[str] = frozenset()) -> RunDirectory:
    """Opens the directory of a run: makes it, or takes up the run that it holds.

    Args:
      path: absolute.
      flags: every flag of this run, name to text.
      free: names of flags that may differ between a run and its resumption, since they do not change its result.

    Raises:
      UserError: if it is a file, cannot be written, is full, is in use by another run, or holds a run with other flags.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"the work directory {path} is a file; give a directory, or a path that does not exist yet")
    with explain_os_errors(path), contextlib.ExitStack() as opened:
        path.mkdir(parents=True, exist_ok=True)
        lock = opened.enter_context(open(path / ".lock", "w"))  # the kernel frees it even after SIGKILL
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is at work in {path}; wait for it, or choose another --workdir") from None
        stored_file = path / "flags.txt"
        if stored_file.exists():
            _refuse_other_flags(path, parse_flags(stored_file.read_text()), flags, free)
        else:
            write_atomically(stored_file, "".join(f"--{name}={value}\n" for name, value in flags.items()))
        file = open(path / "metrics.jsonl", "a")  # noqa: SIM115
        opened.pop_all()  # from here on, `close` is what closes them
    events = NO_EVENTS  # until `truncate`, with which a life of the run begins

    def log(step: int, split: str, scalars: Scalars) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in scalars.items()}
        with explain_os_errors(path):
            file.write(json.dumps({"step": step, "split": split, **finite}) + "\n")
            file.flush()
            events.add(step, split, scalars)

    def truncate(step: int) -> None:
        nonlocal file, events
        with explain_os_errors(path):
            kept = [row for row in read_metrics(path) if row["step"] <= step]
            file.close()
            write_atomically(path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
            file = open(path / "metrics.jsonl", "a")  # noqa: SIM115
            events.close()
            events = open_events(path / "tensorboard", kept)

    def finish(summary: Mapping[str, Any]) -> None:
        with explain_os_errors(path):
            write_atomically(path / "summary.json", json.dumps(summary, indent=2) + "\n")

    def close() -> None:
        with contextlib.suppress(OSError):  # a full disk was reported when it was first met
            events.close()
        with contextlib.suppress(OSError):
            file.close()
        lock.close()

    return RunDirectory(path, log, truncate, finish, close)


def _refuse_other_flags(path: Path, stored: Mapping[str, str], flags: Mapping[str, str], free: frozenset[str]) -> None:
    names = [name for name in {**stored, **flags} if name not in free and stored.get(name) != flags.get(name)]
    if names:
        said = ", ".join(f"--{n} (there {stored.get(n, 'unset')!r}, now {flags.get(n, 'unset')!r})" for n in names)
        raise UserError(f"{path} holds a run with other flags: {said}; choose another --workdir, or the same flags")


def spread(value: np.ndarray) -> dict[str, Any] | float:
    """A scalar as a number; the values of a population `[N]` as `{"mean", "std", "values"}` (std with N - 1)."""
    if np.ndim(value) == 0:
        return float(value)
    values = [float(v) for v in value]
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}


def scalars(metrics: Mapping[str, np.ndarray], seeds: tuple[int, ...]) -> dict[str, float]:
    """Metrics as flat scalars to log: `loss`; for a population also `loss/std` and `loss/seed3`."""
    flat: dict[str, float] = {}
    for name, value in metrics.items():
        if np.ndim(value) == 0:
            flat[name] = float(value)
        else:
            flat[name], flat[f"{name}/std"] = float(np.mean(value)), float(np.std(value, ddof=1))
            flat.update({f"{name}/seed{seed}": float(v) for seed, v in zip(seeds, value, strict=True)})
    return flat


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    names = ("dlfx", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_commit(root: Path) -> str | None:
    """The commit of the source tree, with `+changes` if it was edited; None outside a checkout."""
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
