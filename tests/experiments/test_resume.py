"""Runs killed for real, in processes of their own, end in the bits of the run that was not."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dlfx.training import rundir


def start(cli, workdir: Path, *arguments: str) -> subprocess.Popen:
    """Starts a run; what it prints is appended to `WORKDIR.log`."""
    command, environment, root = cli
    with open(f"{workdir}.log", "a") as log:
        line = command(f"--workdir={workdir}", *arguments)
        return subprocess.Popen(line, cwd=root, env=environment(), stdout=log, stderr=log)


def output(workdir: Path) -> str:
    return Path(f"{workdir}.log").read_text()


def digest(workdir: Path) -> str:
    return json.loads((workdir / "summary.json").read_text())["params_sha256"]


def wait_for(process, workdir: Path, step: int) -> None:
    """Until the run has logged that step, or ended."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        rows = rundir.read_metrics(workdir) if workdir.exists() else []
        if any(row["step"] >= step for row in rows):
            return
        time.sleep(0.01)


@pytest.mark.parametrize("length, steps", [(1, [32]), (4, [8, 32])])
def test_sigkill_at_random_moments_changes_nothing(cli, tmp_path, length, steps):
    arguments = ["--steps=60", "--augment=crop:1", f"--steps_per_call={length}", "--checkpoint_every=8"]
    whole = start(cli, tmp_path / "whole", *arguments)
    assert whole.wait() == 0, output(tmp_path / "whole")
    chance = random.Random(length)
    for step in steps:
        process = start(cli, tmp_path / "killed", *arguments)
        wait_for(process, tmp_path / "killed", step)
        time.sleep(0.2 * chance.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed" / "summary.json").exists(), "the run ended before it could be killed"
    last = start(cli, tmp_path / "killed", *arguments)
    assert last.wait() == 0 and "resuming after step" in output(tmp_path / "killed"), output(tmp_path / "killed")
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert (tmp_path / "killed" / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_exits_and_until_then_a_second_run_is_refused(cli, cnn, tmp_path, number):
    arguments = ["--steps=100000", "--checkpoint_every=100000", "--eval_every=100000"]
    path = tmp_path / "run"
    process = start(cli, path, *arguments)
    wait_for(process, path, 8)
    done = cnn(*arguments, f"--workdir={path}")
    assert done.code == 2 and "another run is at work" in done.err and len(done.err.splitlines()) == 1
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    said = output(path)
    assert f"stopped by {number.name} after step" in said and "Traceback" not in said
    step = said.split("after step ")[1].split(",")[0]
    assert [entry.name for entry in (path / "checkpoints").iterdir()] == [step]
