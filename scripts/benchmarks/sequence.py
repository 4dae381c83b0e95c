"""Sequence models against what a user would take instead, A B A B in one process, in float32.

LSTM, GRU and GPT: one whole training step on one batch against PyTorch's. Beam search: of a GPT that keeps its keys and
values. CTC: the loss and its gradient, against optax too. The ratio is the time of the fastest peer over that of dlfx.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # scripts/ is installed nowhere
if importlib.util.find_spec("torch") is None:
    sys.exit("sequence: not measured, missing torch: pip install torch")

import jax  # noqa: E402
import optax  # noqa: E402

from dlfx.nn.recurrent import Recurrent  # noqa: E402
from dlfx.training.allocation import keep_freed_memory  # noqa: E402
from scripts.benchmarks import sequence_ctc, sequence_gpt, sequence_torch, timing  # noqa: E402

RECURRENT = {"batch": 32, "steps": 64, "units": 256}


def training_side(loss: Callable[[Any, Any], Any], params: Any, rule: Any, batch: Any) -> timing.Side:
    """One compiled step of `loss(params, batch)`, the parameters held from call to call."""

    def train(params: Any, state: Any, batch: Any) -> tuple[Any, Any, Any]:
        value, gradients = jax.value_and_grad(loss)(params, batch)
        updates, state = rule.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    step: Any = jax.jit(train, donate_argnums=(0, 1))
    held = [params, rule.init(params)]
    batch = jax.device_put(batch)

    def call() -> None:
        *held[:], value = step(*held, batch)
        jax.block_until_ready((held, value))

    call()
    call()
    if step._cache_size() != 1:
        raise AssertionError("the step was compiled twice")
    return timing.Side("dlfx", 1, call)


def recurrent(cell: str) -> list[timing.Side]:
    """A layer of 256 units on 32 sequences of 64 steps and 256 features: mean squared error and SGD."""
    batch, steps, units = RECURRENT["batch"], RECURRENT["steps"], RECURRENT["units"]
    x, y = np.random.default_rng(0).standard_normal((2, batch, steps, units), np.float32)
    network = Recurrent(cell, units)
    params = jax.jit(network.init)(jax.random.key(0), x)

    def loss(params: Any, batch: Any) -> Any:
        outputs, _ = network.apply(params, batch[0])
        return ((outputs - batch[1]) ** 2).mean()

    return [training_side(loss, params, optax.sgd(0.1), (x, y)), sequence_torch.recurrent(cell, x, y)]


# Each gives its sides: first that of dlfx, then the peers, of whom the fastest counts.
CASES: dict[str, Callable[[], list[timing.Side]]] = {
    "LSTM 256, batch 32, 64 steps": partial(recurrent, "lstm"),
    "GRU 256, batch 32, 64 steps": partial(recurrent, "gru"),
    "GPT 4 layers, 128 wide, context 64, batch 12, 10 steps a call": partial(sequence_gpt.training, 4, 4, 128, 64, 10),
    "GPT 4 layers, 128 wide, context 64, batch 12": partial(sequence_gpt.training, 4, 4, 128, 64, 1),
    "GPT 6 layers, 384 wide, context 256, batch 12": partial(sequence_gpt.training, 6, 6, 384, 256, 1),
    "beam search of 4, 8 sequences, 48 tokens": sequence_gpt.beam_search,
    "CTC 200 frames, 40 classes, batch 16": sequence_ctc.loss_and_gradient,
}


def measure(name: str, seconds: float, rounds: int) -> dict[str, Any]:
    """One case as a row of results, in milliseconds a step."""
    rates = timing.interleave(CASES[name](), seconds, rounds)
    times = {side: 1e3 / float(np.median(values)) for side, values in rates.items()}
    best = min((side for side in rates if side != "dlfx"), key=lambda side: times[side])
    ratio, low, high = timing.compare(rates["dlfx"], rates[best])
    row = {"case": name, "dlfx_ms": times["dlfx"], "peer_ms": times[best], "ratio": ratio, "peer": best}
    return row | {"ratio_range": [low, high], "milliseconds": times}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench sequence", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    keep_freed_memory()  # as the experiments do
    names = [name for name in CASES if options.only in name]
    if not names:
        sys.exit(f"sequence: no case holds {options.only!r}; there is {', '.join(CASES)}")
    rows = []
    if not options.json:
        print(f"{os.cpu_count()} CPUs, {jax.default_backend()} ({jax.devices()[0].device_kind}), float32")
    for name in names:
        rows.append(measure(name, options.seconds, options.rounds))
        if not options.json:
            times = "  ".join(f"{side} {value:.4g}" for side, value in rows[-1]["milliseconds"].items())
            low, high = rows[-1]["ratio_range"]
            print(f"{name}: ratio {rows[-1]['ratio']:.2f} ({low:.2f} to {high:.2f}); ms a step: {times}", flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
