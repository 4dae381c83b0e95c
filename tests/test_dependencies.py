"""Who may import whom: the contracts in pyproject.toml hold, and they bite."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

ROOT = Path(__file__).resolve().parent.parent
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Checks the contracts of the repository in `tree`, whatever copy of dlfx is installed."""
    # A process of its own: import-linter finds packages on sys.path, where the working directory comes first here.
    return subprocess.run([sys.executable, "-c", LINT], cwd=tree, capture_output=True, text=True)


@pytest.fixture
def tree(tmp_path):
    """A small repository under the contracts of this one, with every room and one that no contract names."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    rooms = set(re.findall(r"dlfx\.(\w+)", str(config)))
    for package in ["dlfx", "experiments", *(f"dlfx/{room}" for room in sorted(rooms - {"types"} | {"brand_new"}))]:
        (tmp_path / package).mkdir()
        for module in ("__init__", "one", "two"):
            (tmp_path / package / f"{module}.py").write_text("")
    (tmp_path / "dlfx" / "types.py").write_text("import jax\n")
    return tmp_path


def test_contracts_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("experiments/one.py", "from dlfx.models import one; from dlfx.training import one; import absl.flags"),
        ("dlfx/training/one.py", "from dlfx.types import UserError"),
        ("dlfx/training/one.py", "from dlfx.training import two"),
        ("dlfx/training/one.py", "import dlfx"),
        ("dlfx/brand_new/one.py", "from dlfx.brand_new import two; import jax"),
        ("dlfx/learners/one.py", "from dlfx.losses import one"),
        ("dlfx/models/one.py", "from dlfx.nn import one; from dlfx.ops import one; import flax.linen as nn"),
        ("dlfx/nn/one.py", "from dlfx.ops.one import f; from flax import linen"),
        ("dlfx/data/one.py", "import grain, tensorflow_datasets; from dlfx.ops import one"),
    ],
)
def test_allowed(tree, file, line):
    (tree / file).write_text(line)
    done = lint(tree)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("dlfx/training/one.py", "from experiments import one"),
        ("dlfx/training/one.py", "from dlfx.ops import one"),
        ("dlfx/training/one.py", "def f():\n    from dlfx.models import one"),
        ("dlfx/learners/one.py", "from dlfx.models import one"),
        ("dlfx/learners/one.py", "from dlfx.training import one"),
        ("dlfx/learners/one.py", "import flax"),
        ("dlfx/models/one.py", "from dlfx.losses import one"),
        ("dlfx/models/one.py", "from dlfx.data.one import x"),
        ("dlfx/nn/one.py", "from dlfx.models import one"),
        ("dlfx/ops/one.py", "from dlfx.nn import one"),
        ("dlfx/losses/one.py", "from dlfx.metrics import one"),
        ("dlfx/types.py", "from dlfx.ops import one"),
        ("dlfx/__init__.py", "from dlfx import types"),
        ("dlfx/training/one.py", "from absl import flags"),
        ("dlfx/metrics/one.py", "import grain"),
        ("dlfx/data/one.py", "import tensorflow as tf"),
        ("experiments/one.py", "import tensorflow as tf"),
        ("experiments/one.py", "import tensorflow_datasets as tfds"),
        ("dlfx/brand_new/one.py", "from dlfx.ops import one"),
        ("dlfx/brand_new/one.py", "from dlfx.types import Key"),
        ("dlfx/brand_new/one.py", "import flax"),
        ("dlfx/learners/one.py", "from dlfx.brand_new import two"),
    ],
)
def test_forbidden(tree, file, line):
    (tree / file).write_text(line)
    done = lint(tree)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout, done.stdout + done.stderr


def test_every_room_is_named():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    named = set(re.findall(r"dlfx\.(\w+)", str(config)))
    rooms = {path.stem for path in (ROOT / "dlfx").iterdir() if path.is_dir() or path.suffix == ".py"}
    unnamed = rooms - {"__init__", "__pycache__"} - named
    assert not unnamed, f"say in pyproject.toml, [tool.importlinter], what {sorted(unnamed)} may import"
