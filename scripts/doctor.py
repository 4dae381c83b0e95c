"""Reports what is installed, what JAX finds and what is wrong with it; exit status 1 when something is.

Facts are gathered first, those of JAX in a process of its own, since a wrong XLA flag or driver takes its process down.
What is wrong is then a function of the facts alone, so that every check is tested without a GPU.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # scripts/ is installed nowhere

from scripts.doctor_checks import GIB, NEEDED, PLUGINS, Facts, problems  # noqa: E402

OTHERS = ("grain", "tensorflow-datasets", "array-record", "scikit-learn", "matplotlib", "tensorboardX", "tensorflow")
SETTINGS = {  # name to what its absence means
    "JAX_PLATFORMS": "not set: the best there is",
    "CUDA_VISIBLE_DEVICES": "not set: all GPUs",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "not set: true, a part of the GPU's memory is taken at the start and kept",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "not set: that part is 75 % of the memory",
    "XLA_PYTHON_CLIENT_ALLOCATOR": "not set: bfc, JAX's own; platform frees at once and is slow",
    "JAX_ENABLE_X64": "not set: 0, float32 and int32 even where float64 is asked for",
    "XLA_FLAGS": "not set",
}
DETERMINISTIC = "off: XLA_FLAGS=--xla_gpu_deterministic_ops=true makes runs on a GPU equal to the bit, and slower"
PRECISION = "default: float32 on a CPU, TensorFloat-32 on a GPU that has it, bfloat16 on a TPU"
PROBE = """
import json, sys
import dlfx
import jax, jax.numpy as jnp
import os
try:
    import flax.linen, optax, orbax.checkpoint
except ImportError as error:
    if "No module named" not in str(error): raise
float((jnp.ones((8, 8)) @ jnp.ones((8, 8))).sum())
print(json.dumps(dict(
    version=jax.__version__, path=jax.__file__, backend=jax.default_backend(), devices=[str(d) for d in jax.devices()],
    kinds=sorted({d.device_kind for d in jax.devices()}), x64=bool(jax.config.jax_enable_x64),
    precision=jax.config.jax_default_matmul_precision, xla_flags=os.environ.get("XLA_FLAGS", ""),
    ynn_flag=dlfx.YNN_FLAG, tensorflow="tensorflow" in sys.modules)))
"""


def probe(timeout: float = 300, **changes: str) -> Facts:
    """What JAX says of itself, from another process; `{"error": why}` when it does not start."""
    environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | changes  # take no memory for a look
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROBE], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {timeout:.0f} s; does another process hold the accelerator?"}
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "Unknown flag" in line] or lines
    return {"error": telling[-1] if telling else f"the process ended with status {done.returncode} and no message"}


def nvidia_smi() -> list[dict[str, Any]]:
    """The GPUs that the driver sees, with their memory in MiB; none where there is no driver."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
        cells = [line.split(", ") for line in lines]
        return [{"name": name, "total": float(total), "used": float(used)} for name, total, used in cells]
    except (OSError, subprocess.SubprocessError, ValueError):
        return []


def version(name: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements() -> list[str]:
    """What dlfx asks for, without extras: from its installation, else from pyproject.toml."""
    try:
        listed = importlib.metadata.requires("dlfx") or []
    except importlib.metadata.PackageNotFoundError:
        listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [line for line in listed if "extra ==" not in line]


def gather(workdir: Path) -> Facts:
    """All facts, as plain JSON types."""
    places = [d.locate_file("") for d in importlib.metadata.distributions() if d.metadata["Name"] == "jax"]
    asked = [re.split(r"[^\w.-]", line)[0] for line in requirements()]
    names = dict.fromkeys(["dlfx", *NEEDED, *PLUGINS, *OTHERS, *asked])
    base = next(path for path in [workdir, *workdir.parents] if os.path.exists(path))
    try:
        with tempfile.TemporaryFile(dir=base):
            workdir_error = ""
    except OSError as error:
        workdir_error = error.strerror or str(error)
    facts: Facts = {
        "versions": {name: version(name) for name in names},
        "jax_copies": sorted({str(Path(str(place)).resolve()) for place in places}),
        "requirements": requirements(),
        "gpus": nvidia_smi(),
        "environment": {name: os.environ[name] for name in SETTINGS if name in os.environ},
        "workdir": str(workdir),
        "workdir_error": workdir_error,
        "workdir_free": shutil.disk_usage(base).free,
        "jax": probe(),
        "without_platforms": {},
    }
    if "error" in facts["jax"] and os.environ.get("JAX_PLATFORMS"):
        facts["without_platforms"] = probe(JAX_PLATFORMS="")  # is the setting to blame?
    return facts


def hardware() -> str:
    """The processor cores that this process may use and the memory that it may fill."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return f"{cores} cores, {memory / GIB:.1f} GiB of memory"


def report(facts: Facts) -> str:
    """The facts as text, a block for each subject."""
    jax, environment = facts["jax"], facts["environment"]
    lines = [f"Python {platform.python_version()} ({sys.executable})", platform.platform(), hardware(), "", "Versions"]
    lines += [f"  {name:<24}{installed or 'not installed'}" for name, installed in facts["versions"].items()]
    lines += ["", "Devices"]
    if "error" in jax:
        lines.append(f"  jax does not start: {jax['error']}")
    else:
        shown = ", ".join(jax["devices"][:8]) + (", ..." if len(jax["devices"]) > 8 else "")
        lines.append(f"  backend {jax['backend']}: {len(jax['devices'])} device(s), {', '.join(jax['kinds'])}: {shown}")
    for gpu in facts["gpus"]:
        lines.append(f"  {gpu['name']}: {gpu['used'] / 1024:.1f} of {gpu['total'] / 1024:.1f} GiB in use")
    lines += ["", "Settings"]
    lines += [f"  {name:<32}{environment.get(name, absence)}" for name, absence in SETTINGS.items()]
    deterministic = "--xla_gpu_deterministic_ops=true" in environment.get("XLA_FLAGS", "")
    lines.append(f"  {'deterministic GPU operations':<32}{'on' if deterministic else DETERMINISTIC}")
    if "error" not in jax:
        lines.append(f"  {'precision of matrix products':<32}{jax['precision'] or PRECISION}")
        if jax["xla_flags"] != environment.get("XLA_FLAGS", ""):
            lines.append(f"  {'XLA_FLAGS that dlfx sets':<32}{jax['ynn_flag']}=")
            lines.append(
                "    Empty, and so convolutions on the CPU stay with XLA, which is faster on few cores than YNNPACK."
            )
            lines.append("    It is set where jaxlib is 0.10, which knows it, and XLA_FLAGS does not name it already.")
    lines += ["", "Work directory", f"  {facts['workdir']}: {facts['workdir_free'] / GIB:.1f} GiB free"]
    return "\n".join(lines)


def main() -> int:
    """Prints the report and the problems."""
    parser = argparse.ArgumentParser(prog="scripts/doctor", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="where runs are written (default: runs)")
    facts = gather(parser.parse_args().workdir.expanduser().absolute())
    print(report(facts))
    found = problems(facts)
    print("\nProblems" if found else "\nNo problems found.")
    for number, problem in enumerate(found, 1):
        print(f"  {number}. {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # scripts/doctor | head
    sys.exit(main())
