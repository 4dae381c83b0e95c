"""dlfx: every system of deep learning as a pair of pure functions, in JAX and Flax."""

import importlib.metadata
import os

__version__ = "0.1.0"

# jaxlib 0.10 hands CPU convolutions to YNNPACK, which on a few cores is two to three times slower than XLA's own
# kernels. The empty list turns that off. It must be set before a backend starts, and only where the flag is known,
# since XLA aborts the process on an unknown one. A user's own setting wins.
YNN_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def _prefer_fast_cpu_convolutions() -> None:
    flags = os.environ.get("XLA_FLAGS", "")
    if YNN_FLAG not in flags and importlib.metadata.version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = f"{flags} {YNN_FLAG}=".strip()


_prefer_fast_cpu_convolutions()
