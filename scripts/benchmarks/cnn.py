"""One whole training step of classifiers against the same models in PyTorch, A B A B in one call.

Forward, backward, batch-norm statistics and SGD with momentum, in float32 on one batch of random images: dlfx by
`learners.supervised`, PyTorch eager, eager with channels_last, and by torch.compile where that works, and the model of
dlfx on stock operations (lax's convolutions, XLA as it comes), which has a process of its own, as flags of XLA are
read once. The ratio is the time of the fastest PyTorch over that of dlfx. With --device the same on a GPU, and
ResNet-50 at batch 256, in float32 and in bfloat16.
"""

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # scripts/ is installed nowhere
if importlib.util.find_spec("torch") is None:
    sys.exit("cnn: not measured, missing torch: pip install torch")

from dlfx.training.allocation import keep_freed_memory  # noqa: E402
from scripts.benchmarks import cnn_dlfx, cnn_stock, cnn_torch, timing  # noqa: E402


class Case(NamedTuple):
    """What one step computes."""

    model: str
    image: tuple[int, int, int]  # height, width, channels
    batch: int
    population: int = 0  # so many models, one after another in PyTorch
    steps: int = 1  # of dlfx in one call, by lax.scan


CASES = {
    "LeNet-5 28x28, batch 128": Case("lenet5", (28, 28, 1), 128),
    "LeNet-5 28x28, batch 128, 50 steps a call": Case("lenet5", (28, 28, 1), 128, steps=50),
    "8 LeNet-5 28x28, batch 64": Case("lenet5", (28, 28, 1), 64, population=8),
    "ResNet-18 32x32, batch 32": Case("resnet18_cifar", (32, 32, 3), 32),
    "ResNet-18 with ImageNet's stem 32x32, batch 32": Case("resnet18", (32, 32, 3), 32),
    "MobileNet-v1 32x32, batch 32": Case("mobilenet_v1", (32, 32, 3), 32),
    "VGG-11 32x32, batch 32": Case("vgg11", (32, 32, 3), 32),
    "ResNet-50 224x224, batch 4": Case("resnet50", (224, 224, 3), 4),
}
DEVICE_CASES = {
    **{name: case for name, case in CASES.items() if "ResNet-50" not in name},
    "ResNet-50 224x224, batch 256": Case("resnet50", (224, 224, 3), 256),
}


def random_batch(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Images `[B, H, W, C]` and labels `[B]`, with an axis of the population before them if there is one."""
    rng = np.random.default_rng(0)
    shape = (case.population, case.batch) if case.population else (case.batch,)
    return rng.standard_normal((*shape, *case.image), np.float32), rng.integers(0, 10, shape, np.int32)


def summary(rates: dict[str, np.ndarray]) -> dict[str, Any]:
    """Milliseconds a step of every side, from steps per second `[rounds]`, and how dlfx stands to the best PyTorch."""
    peers = {side: values for side, values in rates.items() if side not in ("dlfx", "stock")}
    best = max(peers, key=lambda side: np.median(peers[side]))
    ratio, low, high = timing.compare(rates["dlfx"], rates[best])
    times = {side: 1e3 / float(np.median(values)) for side, values in rates.items()}
    row = {"dlfx_ms": times["dlfx"], "peer_ms": times[best], "ratio": ratio, "ratio_range": [low, high], "peer": best}
    return row | {"milliseconds": times}


def told(row: dict[str, Any], peak: float) -> str:
    """A row of results in words."""
    times = "  ".join(f"{side} {value:.4g}" for side, value in row["milliseconds"].items())
    achieved = row["gflop"] / row["dlfx_ms"] * 1e3
    low, high = row["ratio_range"]
    return (
        f"{row['case']}: ratio {row['ratio']:.2f} ({low:.2f} to {high:.2f}, to {row['peer']})\n"
        f"    ms a step: {times}\n"
        f"    {row['images_per_second']:,.0f} images/s; {achieved:,.0f} GFLOP/s, {achieved / peak:.0%} of the peak"
    )


def measure(name: str, case: Case, options: argparse.Namespace, dtype: str, peak: float) -> dict[str, Any]:
    """One case; `peak` in GFLOP/s."""
    images, labels = random_batch(case)
    ours = cnn_dlfx.side(case, images, labels, dtype)
    peers = cnn_torch.sides(case, images, labels, dtype, options.device)
    stock = cnn_stock.side(name, dtype) if options.stock and not options.device else None
    sides = [ours, *peers, *([stock.side] if stock else [])]
    rates = timing.interleave(sides, options.seconds, options.rounds)
    if stock:
        stock.close()
    row = summary(rates)
    gflop = cnn_dlfx.flops(case) / 1e9
    shown = (case.population or 1) * case.batch
    row |= {"case": name, "dtype": dtype, "gflop": gflop, "images_per_second": shown / row["dlfx_ms"] * 1e3}
    row |= {"peak_gflops": peak, "of_peak": gflop / row["dlfx_ms"] * 1e3 / peak}
    return {"case": name} | row


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench cnn", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True, help="stock operations too")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="torch.compile too")
    parser.add_argument("--device", action="store_true", help="on a GPU, in float32 and bfloat16")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    keep_freed_memory()  # as the experiments do
    cases = {name: c for name, c in (DEVICE_CASES if options.device else CASES).items() if options.only in name}
    if not cases:
        sys.exit(f"cnn: no case holds {options.only!r}; there is {', '.join(CASES)}")
    if options.device and not cnn_torch.has_gpu():
        sys.exit("cnn: --device needs a GPU that PyTorch sees")
    cnn_torch.COMPILE = options.compile
    rows = []
    for dtype in ("float32", "bfloat16") if options.device else ("float32",):
        peak = cnn_dlfx.peak(dtype, 8192 if options.device else 2048)
        if not options.json:
            print(f"{os.cpu_count()} CPUs, {cnn_dlfx.where()}, {dtype}: matrix products at {peak:,.0f} GFLOP/s")
        for name, case in cases.items():
            rows.append(measure(name, case, options, dtype, peak))
            if not options.json:
                print(told(rows[-1], peak), flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
