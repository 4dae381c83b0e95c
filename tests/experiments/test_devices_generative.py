"""One device and eight, under jit and pmap: all training of the generative chapter ends in the same weights."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dlfx.training import checkpoints

EVERY = ["--precision=float64", "--log_every=3", "--eval_every=6", "--checkpoint_every=6", "--image_size=8"]
IMAGES = [*EVERY, "--dataset=digits", "--batch_size=16", "--steps=6"]
RUNS = {
    "perceptron": ["--data=clouds", "--batch_size=8", "--epochs=1", "--pocket", *EVERY[:-1]],
    "mlp": [*IMAGES, "--hidden=4"],
    "autoencoder": [*IMAGES, "--kind=denoising", "--corruption=0.3", "--code_size=4"],
    "pretraining": [*IMAGES, "--widths=4,4", "--pretrain_steps=2"],
    "vae": [*IMAGES, "--hidden=8", "--latent=2", "--binarize"],
    "gan": [*IMAGES, "--hidden=8", "--latent=2", "--critic_steps=2", "--ema=0.9", "--eval_samples=20"],
    "image_to_image": [*IMAGES, "--blocks=1", "--features=2", "--critic_features=2", "--buffer_size=20"],
}
WORK = """
import importlib, json, sys
import grain
from tests.experiments.conftest import forget
for name, arguments in json.load(sys.stdin):
    forget()
    module, common = (importlib.import_module(f"experiments.{each}") for each in (name, "common"))
    sys.argv = [name, *arguments]
    try:
        common.launch(module.main)
    except SystemExit as left:
        if left.code:
            sys.exit(f"{name} {arguments} left with {left.code}")
"""


def work(cli, devices, runs):
    """Runs (experiment, arguments), one after the other, in one process with so many virtual devices."""
    _, environment, root = cli
    line = [sys.executable, "-c", WORK]
    options = {"cwd": root, "env": environment(devices), "capture_output": True, "text": True, "check": False}
    done = subprocess.run(line, input=json.dumps(runs), **options)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def finished(cli, tmp_path_factory):
    """The directory below which every run lies, as `one/NAME`, `jit/NAME` and `pmap/NAME`."""
    home = tmp_path_factory.mktemp("runs")

    def of(kind, *more):
        return [(name, [*flags, *more, f"--workdir={home / kind / name}"]) for name, flags in RUNS.items()]

    work(cli, 1, of("one"))
    work(cli, 8, of("jit") + of("pmap", "--parallel=pmap"))
    return home


@pytest.mark.parametrize("kind", ["jit", "pmap"])
@pytest.mark.parametrize("name", RUNS)
def test_eight_devices_equal_one(finished, name, kind):
    one, eight = (checkpoints.load_state(finished / each / name / "checkpoints") for each in ("one", kind))
    assert one.keys() == eight.keys()
    trained = [leaf for leaf in one if one[leaf].dtype == np.float64]
    assert trained
    for leaf in trained:
        np.testing.assert_allclose(eight[leaf], one[leaf], rtol=1e-7, atol=1e-10, err_msg=leaf)
