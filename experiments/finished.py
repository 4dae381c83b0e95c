"""What a finished run leaves for others to go on from: its flags, its vocabulary and its parameters."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dlfx.data import vocabulary
from dlfx.data.vocabulary import Vocabulary
from dlfx.training import checkpoints, rundir
from dlfx.types import UserError

VOCABULARY = "vocabulary.json"  # in a run directory


def keep(path: Path, known: Vocabulary) -> None:
    """Writes the vocabulary of a run next to its checkpoints, so that others can go on from it."""
    with rundir.explain_os_errors(path):
        vocabulary.save(known, path / VOCABULARY)


def flags_of(path: Path, experiment: str, needed: Iterable[str] = ()) -> dict[str, str] | None:
    """The flags of a finished run of an experiment; None if there is no such run.

    Raises:
      UserError: the run is of an earlier version, which had not yet the flags that are needed.
    """
    summary = rundir.summary_of(path) if path.is_dir() else None
    if not summary or summary["experiment"] != experiment:
        return None
    told = rundir.parse_flags((path / "flags.txt").read_text())
    missing = [f"--{name}" for name in needed if name not in told]
    if missing:
        raise UserError(f"the run in {path} was made before there was {', '.join(missing)}: train it again")
    return told


def params_of(path: Path) -> dict[str, Any]:
    """The parameters at the end of a finished run; of a population, of its first member."""
    members = int(rundir.parse_flags((path / "flags.txt").read_text())["num_seeds"])
    params: dict[str, Any] = {}
    for name, array in checkpoints.load_state(path / "checkpoints").items():
        *parents, last = name.split("/")
        if parents[:1] == ["params"]:
            node = params
            for parent in parents[1:]:
                node = node.setdefault(parent, {})
            node[last] = array[0] if members > 1 else array
    return params
