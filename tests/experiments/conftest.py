"""Runs experiments as a user would: in this process where that is enough, in a process of its own where it is not."""

import importlib
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
    """`experiment(name, *arguments)`: `python -m experiments.NAME` in this process."""

    def run(name: str, *arguments: str) -> Done:
        module, common = (importlib.import_module(f"experiments.{each}") for each in (name, "common"))
        with flagsaver.flagsaver():
            for flag in flags.FLAGS:
                flags.FLAGS[flag].unparse()
            monkeypatch.setattr(sys, "argv", [name, *arguments])
            with pytest.raises(SystemExit) as left:
                common.launch(module.main)
        jax.config.update("jax_enable_x64", False)  # --precision=float64 of one run is not for the next
        out, err = capsys.readouterr()
        return Done(left.value.code or 0, out, err)

    return run


@pytest.fixture
def cnn(experiment):
    """`cnn(*arguments)`: `experiment` on the tiny configuration of `experiments.cnn`."""
    return lambda *arguments, base=TINY: experiment("cnn", *base, *arguments)


def command(*arguments: str, base: list[str] = TINY) -> list[str]:
    return [sys.executable, "-m", "experiments.cnn", *base, *arguments]


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    """(the command line, its environment on so many virtual devices, where to run it), for a process of its own.

    The compilation cache is its own too: a kill may leave half an entry there, which jax warns of later on.
    """
    cache = tmp_path_factory.mktemp("cache")

    def environment(devices: int = 1) -> dict[str, str]:
        flag = f"--xla_force_host_platform_device_count={devices}"
        return {**os.environ, "XLA_FLAGS": flag, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}

    return command, environment, ROOT


@pytest.fixture(scope="module")
def run_cnn(cli):
    """`run_cnn(*arguments, devices=1)`: the experiment in a process of its own, with so many virtual devices."""

    def run(*arguments: str, base: list[str] = TINY, devices: int = 1) -> Done:
        line, environment = cli[0](*arguments, base=base), cli[1](devices)
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    return run
