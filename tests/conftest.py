"""Programs of tests run for less time than they compile, so all are compiled with less care.

`XLA_FLAGS= scripts/test` compiles them as users do.
"""

import os
import subprocess
import sys

# Not every version of XLA has the second, and one that lacks a flag ends the process that names it.
FLAGS = ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"]

if "XLA_FLAGS" not in os.environ:  # processes of pytest-xdist, and those that tests start, take over what is set here
    told = " ".join(FLAGS)
    tried = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
    known = subprocess.run(tried, env={**os.environ, "XLA_FLAGS": told}, capture_output=True, check=False)
    os.environ["XLA_FLAGS"] = FLAGS[0] if known.returncode else told
