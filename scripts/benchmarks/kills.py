"""Runs killed by SIGKILL at random moments, then finished: how many different results come out of the same command.

Not a time but a promise: every run must end in the bits of the one that was never killed.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGFILES = "experiments/flagfiles"
RUNS = {
    "cnn": [f"--flagfile={FLAGFILES}/cnn/lenet5_digits.flags", "--steps=330", "--checkpoint_every=22"],
    "dqn": [
        *(f"--flagfile={FLAGFILES}/dqn/cartpole.flags", "--priority=0.5", "--num_seeds=2", "--env_steps=40000"),
        *("--steps_per_call=100", "--checkpoint_every=200", "--eval_every=1000"),
    ],
    "gan": [
        *(f"--flagfile={FLAGFILES}/gan/ring.flags", "--num_seeds=2", "--steps=1500"),
        *("--checkpoint_every=150", "--eval_every=300"),
    ],
    "rl_tabular": [
        *(f"--flagfile={FLAGFILES}/rl_tabular/dyna_maze.flags", "--num_seeds=20", "--env_steps=1000000"),
        *("--steps_per_call=50", "--log_every=50", "--checkpoint_every=500"),
    ],
}


def start(experiment: str, workdir: Path) -> subprocess.Popen[bytes]:
    """Starts the run, or takes it up."""
    command = [sys.executable, "-m", f"experiments.{experiment}", *RUNS[experiment], f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--experiment", choices=RUNS, default="cnn")
    parser.add_argument("--kills", type=int, default=3, help="of each run")
    options = parser.parse_args()
    told, chance = options.experiment, random.Random(0)
    digests: list[str] = []
    landed = 0
    with tempfile.TemporaryDirectory() as directory:
        start(told, Path(directory) / "warm").wait()  # fills the compilation cache
        began = time.perf_counter()
        start(told, Path(directory) / "whole").wait()
        length = time.perf_counter() - began
        for number in range(options.runs):
            workdir = Path(directory) / f"{number}"
            for _ in range(options.kills):
                process = start(told, workdir)
                time.sleep(0.45 * length * chance.random())  # start-up, training or a checkpoint; never all of it
                landed += process.poll() is None
                process.kill()
                process.wait()
            if start(told, workdir).wait():
                sys.exit(f"run {number} could not be finished")
            digests.append(json.loads((workdir / "summary.json").read_text())["params_sha256"])
            print(f"run {number}: {digests[-1]}", flush=True)
        whole = json.loads((Path(directory) / "whole" / "summary.json").read_text())["params_sha256"]
    same = sum(digest == whole for digest in digests)
    print(f"{same} of {options.runs} runs, hit by {landed} kills in all, equal the one that was never killed: {whole}")
    sys.exit(same != options.runs)


if __name__ == "__main__":
    main()
