"""One device, eight, pmap, and two processes: the same training, in float64 to rounding."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from dlfx.training import checkpoints

RESNET = ["--dataset=digits", "--image_size=8", "--model=resnet8", "--batch_size=32", "--steps=20", "--eval_every=10"]
RESNET += ["--optimizer=momentum", "--learning_rate=0.05", "--log_every=4"]


def largest_difference(path, other):
    a, b = (checkpoints.load_state(p / "checkpoints") for p in (path, other))
    assert a.keys() == b.keys()
    names = [name for name in a if name.startswith(("params/", "extra/"))]
    assert len(names) > 30 and all(a[name].dtype == np.float64 for name in names)
    return max(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(a[name]) for name in names)


def cnn(path, *arguments):
    return "cnn", [*RESNET, f"--workdir={path}", *arguments]


@pytest.fixture(scope="module")
def finished(several, tmp_path_factory):
    """The directory of the runs: `one`, with a single device, and `jit` and `pmap`, with eight."""
    home = tmp_path_factory.mktemp("runs")
    kinds = {"jit": [], "pmap": ["--parallel=pmap"]}
    codes, _, err = several([cnn(home / "one", "--precision=float64"), cnn(home / "half", "--precision=bfloat16")])
    assert codes == [0, 0], err
    eight = [cnn(home / kind, "--precision=float64", *more) for kind, more in kinds.items()]
    codes, _, err = several([*eight, cnn(home / "uneven", "--batch_size=30")], 8)
    assert codes == [0, 0, 2] and "a batch of 30 is not divisible by 8 devices; try 24 or 32" in err
    assert not (home / "uneven").exists()
    return home


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_eight_devices_equal_one(finished, parallel):
    assert largest_difference(finished / "one", finished / parallel) < 1e-9


def test_bfloat16_trains_with_float32_parameters(finished):
    assert checkpoints.load_state(finished / "half" / "checkpoints")["params/conv1/kernel"].dtype == np.float32


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_processes_equal_one_and_resume(cli, finished, tmp_path, parallel):
    _, environment, root = cli
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def both(*arguments):
        shared = ["--precision=float64", f"--parallel={parallel}", "--checkpoint_every=8", "--keep=9", *arguments]
        shared += [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        line = [sys.executable, "-m", "tests.experiments.several"]
        processes = [subprocess.Popen(line, cwd=root, env=environment(2), **pipes) for _ in range(2)]
        for i, process in enumerate(processes):  # to both before either is waited for
            process.stdin.write(json.dumps([cnn(tmp_path, *shared, f"--process_id={i}")]))
            process.stdin.close()
            process.stdin = None
        outputs = [process.communicate(timeout=240) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs
        return [json.loads(out.splitlines()[-1])[0] for out, _ in outputs], outputs

    codes, outputs = both()
    assert codes == [0, 0], outputs
    assert largest_difference(finished / "one", tmp_path) < 1e-9
    first = checkpoints.load_state(tmp_path / "checkpoints")

    (tmp_path / "summary.json").unlink()
    (tmp_path / "checkpoints" / "20" / "state" / "manifest.ocdbt").unlink()
    codes, outputs = both()
    assert codes == [0, 0] and "resuming after step 16" in outputs[0][0], outputs
    again = checkpoints.load_state(tmp_path / "checkpoints")
    assert all((first[name] == again[name]).all() for name in first)

    if parallel == "jit":
        codes, outputs = both("--seed=9")
        assert codes == [2, 2] and "--seed" in outputs[0][1] and "Traceback" not in outputs[0][1] + outputs[1][1]
