"""Runs experiments as a user would: in this process where that is enough, in a process of its own where it is not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import grain  # noqa: F401 (it defines flags when first imported, which must not happen inside a flagsaver)
import pytest
from absl import flags
from absl.testing import flagsaver

ROOT = Path(__file__).parents[2]
TINY = ["--dataset=digits", "--image_size=16", "--model=lenet5", "--batch_size=32", "--log_every=4", "--eval_every=8"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cnn(monkeypatch, capsys):
    """`cnn(*arguments)`: `python -m experiments.cnn` in this process, on the tiny configuration."""
    from experiments import cnn, common

    def run(*arguments: str, base: list[str] = TINY) -> Done:
        with flagsaver.flagsaver():
            for name in flags.FLAGS:
                flags.FLAGS[name].unparse()
            monkeypatch.setattr(sys, "argv", ["cnn", *base, *arguments])
            with pytest.raises(SystemExit) as left:
                common.launch(cnn.main)
        out, err = capsys.readouterr()
        return Done(left.value.code or 0, out, err)

    return run


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
