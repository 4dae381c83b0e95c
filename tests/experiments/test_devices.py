"""One device, eight, pmap, and two processes: the same training, in float64 to rounding."""

import socket
import subprocess

import numpy as np
import pytest

from dlfx.training import checkpoints

RESNET = ["--dataset=digits", "--image_size=8", "--model=resnet20", "--batch_size=32", "--steps=20"]
RESNET += ["--optimizer=momentum", "--learning_rate=0.05"]


def largest_difference(path, other):
    a, b = (checkpoints.load_state(p / "checkpoints") for p in (path, other))
    assert a.keys() == b.keys()
    names = [name for name in a if name.startswith(("params/", "extra/"))]
    assert len(names) > 60 and all(a[name].dtype == np.float64 for name in names)
    return max(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(a[name]) for name in names)


@pytest.fixture(scope="module")
def one_device(run_cnn, tmp_path_factory):
    path = tmp_path_factory.mktemp("one")
    done = run_cnn(f"--workdir={path}", "--precision=float64", base=RESNET)
    assert done.code == 0, done.err
    return path


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_eight_devices_equal_one(run_cnn, one_device, tmp_path, parallel):
    done = run_cnn(f"--workdir={tmp_path}", "--precision=float64", f"--parallel={parallel}", base=RESNET, devices=8)
    assert done.code == 0, done.err
    assert largest_difference(one_device, tmp_path) < 1e-9


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_two_processes_equal_one_and_resume(cli, one_device, tmp_path, parallel):
    command, environment, root = cli
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def both(*arguments):
        shared = [f"--workdir={tmp_path}", "--precision=float64", f"--parallel={parallel}", "--checkpoint_every=8"]
        shared += ["--keep=9", f"--coordinator=127.0.0.1:{port}", "--num_processes=2", *arguments]
        lines = [command(*shared, f"--process_id={i}", base=RESNET) for i in range(2)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [subprocess.Popen(line, cwd=root, env=environment(2), **pipes) for line in lines]
        outputs = [process.communicate(timeout=240) for process in processes]
        return [process.returncode for process in processes], outputs

    codes, outputs = both()
    assert codes == [0, 0], outputs
    assert largest_difference(one_device, tmp_path) < 1e-9
    first = checkpoints.load_state(tmp_path / "checkpoints")

    (tmp_path / "summary.json").unlink()
    (tmp_path / "checkpoints" / "20" / "state" / "manifest.ocdbt").unlink()
    codes, outputs = both()
    assert codes == [0, 0] and "resuming after step 16" in outputs[0][0], outputs
    again = checkpoints.load_state(tmp_path / "checkpoints")
    assert all((first[name] == again[name]).all() for name in first)

    codes, outputs = both("--seed=9")
    assert codes == [2, 2] and "--seed" in outputs[0][1] and "Traceback" not in outputs[0][1] + outputs[1][1]


def test_a_batch_that_devices_do_not_divide_is_refused(run_cnn, tmp_path):
    done = run_cnn(f"--workdir={tmp_path / 'run'}", "--batch_size=30", base=RESNET, devices=8)
    assert done.code == 2 and "a batch of 30 is not divisible by 8 devices; try 24 or 32" in done.err
    assert not (tmp_path / "run").exists()


def test_bfloat16_trains_with_float32_parameters(run_cnn, tmp_path):
    done = run_cnn(f"--workdir={tmp_path}", "--precision=bfloat16", base=RESNET)
    assert done.code == 0, done.err
    assert checkpoints.load_state(tmp_path / "checkpoints")["params/conv1/kernel"].dtype == np.float32
