"""The checks of scripts/doctor.py: functions of the gathered facts to problems in plain words, with the remedy."""

import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

Facts = dict[str, Any]
Check = Callable[[Facts], Iterator[str]]

PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "absl-py")  # all that training needs
PIP = f"{shlex.quote(sys.executable)} -m pip"
INSTALL = f"{PIP} install -c requirements.lock -e"  # in the repository
BROKEN_PAIRS = (  # (package, from this version, below this one), the same of another, what happens
    (("jax", "0.11.2", "0.13"), ("flax", "0.12.9", "0.12.10"), "flax does not import (google/flax issue #5596)"),
)
GIB = 2**30


def missing(facts: Facts) -> Iterator[str]:
    """What training cannot do without. Everything else is imported where it is used."""
    absent = [name for name in NEEDED if not facts["versions"].get(name)]
    if absent:
        yield f"Not installed: {', '.join(absent)}. Run scripts/demo, which makes .venv, or: {INSTALL} ."


def two_copies(facts: Facts) -> Iterator[str]:
    """Two installations of jax on the path, of which the first found is used, with the other's metadata perhaps."""
    if len(facts["jax_copies"]) > 1:
        yield (
            f"There are {len(facts['jax_copies'])} copies of jax, in {' and '.join(facts['jax_copies'])}. "
            "Uninstall one, or unset PYTHONPATH."
        )
    imported, installed = facts["jax"].get("version"), facts["versions"].get("jax")
    if imported and installed and imported != installed:
        yield (
            f"The jax that is imported is {imported}, from {facts['jax'].get('path')}, and the one installed is "
            f"{installed}. Uninstall one, or unset PYTHONPATH."
        )


def mismatched(facts: Facts) -> Iterator[str]:
    """Parts of jax that must have one version."""
    versions = facts["versions"]
    jax = versions.get("jax")
    for name in ("jaxlib", *PLUGINS):
        if jax and versions.get(name) and versions[name] != jax:
            yield f"{name} is {versions[name]} and jax {jax}; they must be equal: {PIP} install {name}=={jax}"


def broken_pairs(facts: Facts) -> Iterator[str]:
    """Versions that each work and do not work together."""
    for one, other, what in BROKEN_PAIRS:
        if all(_between(facts["versions"].get(name), low, high) for name, low, high in (one, other)):
            names = " with ".join(f"{name} {facts['versions'][name]}" for name, _, _ in (one, other))
            yield f"{names}: {what}. Run: {INSTALL} ."


def out_of_range(facts: Facts) -> Iterator[str]:
    """Packages whose version is not one that pyproject.toml asks for."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return
    for line in facts["requirements"]:
        wanted = Requirement(line)
        version = facts["versions"].get(wanted.name)
        applies = wanted.marker is None or wanted.marker.evaluate()
        if version and applies and not wanted.specifier.contains(version, prereleases=True):
            yield f"{wanted.name} is {version}, and dlfx is made for {wanted.name}{wanted.specifier}. Run: {INSTALL} ."


def bad_platform(facts: Facts) -> Iterator[str]:
    """JAX_PLATFORMS that names what is not there."""
    there = facts["without_platforms"].get("backend")
    if "error" in facts["jax"] and there:
        yield (
            f"JAX_PLATFORMS={facts['environment']['JAX_PLATFORMS']} names a platform that is not there "
            f"({facts['jax']['error']}). Unset it; without it JAX starts on {there}."
        )


def does_not_start(facts: Facts) -> Iterator[str]:
    """JAX fails for another reason than that it is not there."""
    error, versions = facts["jax"].get("error"), facts["versions"]
    if error and "backend" not in facts["without_platforms"] and versions.get("jax") and versions.get("jaxlib"):
        flags = facts["environment"].get("XLA_FLAGS")
        hint = f" Remove the flag from XLA_FLAGS={flags}; XLA knows other flags in each version." if flags else ""
        yield f"JAX, or a library on it, does not start: {error}.{hint if 'XLA_FLAGS' in error else ''}"


def unused_gpu(facts: Facts) -> Iterator[str]:
    """A GPU, or the plugin for one, and computations on the CPU."""
    if facts["jax"].get("backend") != "cpu":
        return
    plugins = [name for name in PLUGINS if facts["versions"].get(name)]
    environment, gpus = facts["environment"], facts["gpus"]
    if not plugins and gpus:
        yield (
            f"There is a GPU ({gpus[0]['name']}) and JAX does not use it, since its CUDA plugin is not installed. "
            f"Run: {INSTALL} '.[cuda13]'"
        )
    elif plugins and environment.get("JAX_PLATFORMS"):
        yield f"{plugins[0]} is there; JAX_PLATFORMS={environment['JAX_PLATFORMS']} keeps JAX off the GPU. Unset it."
    elif plugins and environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        yield f"{plugins[0]} is installed, and CUDA_VISIBLE_DEVICES hides every GPU. Unset it."
    elif plugins and gpus:
        yield (
            f"{plugins[0]} is installed, there is a GPU ({gpus[0]['name']}), and JAX found none. The driver may be too "
            "old for the plugin, or LD_LIBRARY_PATH may name other CUDA libraries: unset it, and see what JAX says to "
            "JAX_PLATFORMS=cuda python -c 'import jax; jax.devices()'"
        )
    elif plugins:
        yield (
            f"{plugins[0]} is installed, and the driver shows no GPU. Is nvidia-smi there, and does it list one? Start "
            "a container with its GPUs (docker run --gpus all). If the machine has none: "
            f"{PIP} uninstall {plugins[0]}"
        )


def full_gpu(facts: Facts) -> Iterator[str]:
    """A GPU on which other processes hold what JAX takes at its start."""
    environment = facts["environment"]
    if facts["jax"].get("backend") == "cpu" or environment.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() in (
        "false",
        "0",
    ):
        return
    if environment.get("XLA_PYTHON_CLIENT_ALLOCATOR") == "platform":
        return
    try:
        wanted = float(environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION", 0.75))
    except ValueError:
        yield f"XLA_PYTHON_CLIENT_MEM_FRACTION={environment['XLA_PYTHON_CLIENT_MEM_FRACTION']} is no number. Unset it."
        return
    for index, gpu in enumerate(facts["gpus"]):
        used, total = gpu["used"] / 1024, gpu["total"] / 1024
        if total - used < wanted * total:
            yield (
                f"GPU {index} ({gpu['name']}): other processes hold {used:.1f} of {total:.1f} GiB, and JAX takes "
                f"{wanted:.0%} at its start. End them, choose another GPU with CUDA_VISIBLE_DEVICES, or set "
                "XLA_PYTHON_CLIENT_PREALLOCATE=false"
            )


def tensorflow(facts: Facts) -> Iterator[str]:
    """TensorFlow in the training process, where it takes the GPU's memory and is not needed."""
    if facts["jax"].get("tensorflow"):
        yield (
            "Importing what training needs also imports TensorFlow, which takes seconds and the memory of the GPU. "
            f"It is only for scripts/prepare_data: {PIP} uninstall tensorflow"
        )


def work_directory(facts: Facts) -> Iterator[str]:
    """Where runs are written."""
    if facts["workdir_error"]:
        yield f"Cannot write in {facts['workdir']}: {facts['workdir_error']}. Choose another with --workdir."
    elif facts["workdir_free"] < GIB:
        yield (
            f"Only {facts['workdir_free'] / GIB:.2f} GiB are free for {facts['workdir']}; checkpoints may not fit. "
            "Delete old runs, or choose another directory with --workdir."
        )


CHECKS: tuple[Check, ...] = (
    missing, two_copies, mismatched, broken_pairs, out_of_range, bad_platform, does_not_start, unused_gpu, full_gpu,
    tensorflow, work_directory,
)  # fmt: skip


def problems(facts: Facts) -> list[str]:
    """Everything that is wrong, in the order in which to mend it."""
    return [problem for check in CHECKS for problem in check(facts)]


def _between(version: str | None, low: str, high: str) -> bool:
    """Whether `low <= version < high`, by numbers; a suffix such as `rc1` is not looked at."""

    def numbers(text: str) -> list[int]:
        return [int("".join(c for c in part if c.isdigit()) or 0) for part in text.split(".")[:3]]

    return version is not None and numbers(low) <= numbers(version) < numbers(high)
