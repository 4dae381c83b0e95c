"""Runs experiments as a user would: in this process where that is enough, in a process of its own where it is not."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import grain  # noqa: F401 (it defines flags when first imported, which must not happen inside a flagsaver)
import jax
import pytest
from absl import flags
from absl.testing import flagsaver

ROOT = Path(__file__).parents[2]
TINY = ["--dataset=digits", "--image_size=16", "--model=lenet5", "--batch_size=32", "--log_every=4", "--eval_every=8"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


def forget() -> None:
    """Takes back the imports and the flags of all experiments: one name can be a flag of two of them."""
    for module in [module for module in sys.modules if module.startswith("experiments.")]:
        del sys.modules[module]
        vars(sys.modules["experiments"]).pop(module.split(".")[1], None)
    for flag in list(flags.FLAGS):
        if str(flags.FLAGS.find_module_defining_flag(flag)).startswith("experiments."):
            delattr(flags.FLAGS, flag)


@pytest.fixture(scope="module", autouse=True)
def own_flags():
    """Every file of tests begins without the flags of the others."""
    forget()


@pytest.fixture
def load():
    """`load(name)`: (the experiment, `experiments.common`), imported anew."""

    def imported(name: str) -> tuple[ModuleType, ModuleType]:
        forget()
        return importlib.import_module(f"experiments.{name}"), importlib.import_module("experiments.common")

    return imported


@pytest.fixture
def experiment(monkeypatch, capsys):
    """`experiment(name, *arguments, pictures=True)`: `python -m experiments.NAME` in this process.

    Without pictures it is as where matplotlib is not installed.
    """

    def run(name: str, *arguments: str, pictures: bool = True) -> Done:
        module, common = (importlib.import_module(f"experiments.{each}") for each in (name, "common"))
        with flagsaver.flagsaver(), monkeypatch.context() as patch:
            for flag in flags.FLAGS:
                flags.FLAGS[flag].unparse()
            patch.setattr(sys, "argv", [name, *arguments])
            if not pictures:
                patch.setitem(sys.modules, "matplotlib", None)
            with pytest.raises(SystemExit) as left:
                common.launch(module.main)
        jax.config.update("jax_enable_x64", False)  # --precision=float64 of one run is not for the next
        out, err = capsys.readouterr()
        return Done(left.value.code or 0, out, err)

    return run


@pytest.fixture
def cnn(experiment):
    """`cnn(*arguments)`: `experiment` on the tiny configuration of `experiments.cnn`."""
    return lambda *arguments, base=TINY, pictures=True: experiment("cnn", *base, *arguments, pictures=pictures)


def command(*arguments: str, base: list[str] = TINY) -> list[str]:
    return [sys.executable, "-m", "experiments.cnn", *base, *arguments]


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """(the command line, its environment on so many virtual devices, where to run it), for a process of its own.

    The compilation cache is its own too: a kill may leave half an entry there, which jax warns of later on.
    """
    cache = tmp_path_factory.mktemp("cache")

    def environment(devices: int = 1) -> dict[str, str]:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        cached = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
        return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", **cached}

    return command, environment, ROOT


@pytest.fixture(scope="module")
def several(cli):
    """`several([(experiment, arguments), ...], devices=1)`: `several.py` in a process of its own; (codes, out, err)."""

    def run(runs: list[tuple[str, list[str]]], devices: int = 1) -> tuple[list[int], str, str]:
        options = {"cwd": ROOT, "env": cli[1](devices), "capture_output": True, "text": True, "check": False}
        done = subprocess.run([sys.executable, "-m", "tests.experiments.several"], input=json.dumps(runs), **options)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stdout, done.stderr

    return run
