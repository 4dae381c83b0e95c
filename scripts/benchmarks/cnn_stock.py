"""dlfx's model on stock operations, in a process of its own: lax's convolutions, and XLA's flags as they come.

Run as a program it takes a case, says `ready`, and for each line of input, a number of calls, answers with seconds.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.benchmarks import timing  # noqa: E402


class Stock(NamedTuple):
    """The other process as a side."""

    side: timing.Side
    process: subprocess.Popen[str]

    def close(self) -> None:
        self.process.communicate(timeout=60)


def side(name: str, dtype: str) -> Stock:
    """Starts the process and waits until it has compiled."""
    command = [sys.executable, __file__, name, dtype]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdin and process.stdout
    to, answers = process.stdin, process.stdout

    def call() -> None:
        to.write("step\n")
        to.flush()
        if not answers.readline():
            raise RuntimeError(f"the stock side of {name} ended")

    if answers.readline() != "ready\n":
        raise RuntimeError(f"the stock side of {name} does not start")
    from scripts.benchmarks.cnn import CASES

    return Stock(timing.Side("stock", CASES[name].steps, call), process)


def main(name: str, dtype: str) -> None:
    import jax

    jax.devices()  # the backend starts with flags that dlfx has not touched
    import flax.linen as nn
    from jax import lax

    from dlfx.ops import convolution, pooling

    def max_pool(x, window, stride=None, padding=((0, 0), (0, 0))):  # type: ignore[no-untyped-def]
        window = (window,) * 2 if isinstance(window, int) else window
        stride = (stride,) * 2 if isinstance(stride, int) else stride
        return nn.max_pool(x, window, stride or window, padding)

    convolution.conv_general_dilated = lax.conv_general_dilated  # before any model takes them
    pooling.max_pool = max_pool
    from scripts.benchmarks import cnn_dlfx
    from scripts.benchmarks.cnn import CASES, random_batch

    step = cnn_dlfx.side(CASES[name], *random_batch(CASES[name]), dtype).call
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        step()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
