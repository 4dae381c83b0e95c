"""Eight seeds in one program against eight runs one after another, and the start-up of one: whole commands, wall time.

Both sides run the digits recipe with the compilation cache warm, and both draw their figures.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def run(workdir: Path, *flags: str) -> tuple[float, list[float]]:
    """Runs the recipe; (wall seconds, test accuracy by seed)."""
    command = [sys.executable, "-m", "experiments.cnn", "--flagfile=experiments/flagfiles/cnn/lenet5_digits.flags"]
    began = time.perf_counter()
    subprocess.run([*command, f"--workdir={workdir}", *flags], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    accuracy = json.loads((workdir / "summary.json").read_text())["metrics"]["test_accuracy"]
    return seconds, accuracy["values"] if isinstance(accuracy, dict) else [accuracy]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        run(root / "warm", "--steps=22", "--warmup_steps=2")
        run(root / "warm-all", "--steps=22", "--warmup_steps=2", f"--num_seeds={options.seeds}")
        alone = [run(root / f"{seed}", f"--seed={seed}") for seed in range(options.seeds)]
        together, accuracies = run(root / "all", f"--num_seeds={options.seeds}")
    one_by_one = sum(seconds for seconds, _ in alone)
    result = {
        "case": f"LeNet-5 on digits, {options.seeds} seeds",
        "dlfx_ms": 1e3 * together,
        "peer_ms": 1e3 * one_by_one,
        "ratio": one_by_one / together,
    }
    if options.json:
        print(json.dumps([result]))
        return
    single = [value for _, values in alone for value in values]
    print(f"{options.seeds} runs one after another: {one_by_one:6.1f} s, test accuracy {np.mean(single):.4f}")
    print(f"one population of {options.seeds}:           {together:6.1f} s, test accuracy {np.mean(accuracies):.4f}")
    print(f"ratio: {result['ratio']:.2f}")


if __name__ == "__main__":
    main()
