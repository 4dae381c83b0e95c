"""scripts/doctor: each check on made-up facts, and the whole on this machine."""

import copy
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import doctor, doctor_checks
from scripts.doctor_checks import problems

HEALTHY = {
    "versions": {
        **dict.fromkeys(doctor_checks.PLUGINS),
        **dict.fromkeys(("jax", "jaxlib"), "0.10.2"),
        "flax": "0.12.8",
        "optax": "0.2.8",
        "orbax-checkpoint": "0.12.8",
        "numpy": "2.4.6",
        "absl-py": "2.5.1",
        "importlib_resources": "7.1.0",
    },
    "jax_copies": ["/env/site-packages"],
    "requirements": ["jax<0.13,>=0.10.2", "flax!=0.12.9,<0.13,>=0.12.8", "importlib_resources<8,>=6", "grain>=0.2.18"],
    "gpus": [],
    "environment": {},
    "workdir": "/data/runs",
    "workdir_error": "",
    "workdir_free": 50 * doctor_checks.GIB,
    "jax": {
        "version": "0.10.2", "path": "/env/jax/__init__.py", "backend": "cpu", "devices": ["cpu:0"], "kinds": ["cpu"],
        "x64": False, "precision": None, "xla_flags": "--a=", "ynn_flag": "--a", "tensorflow": False,
    },
    "without_platforms": {},
}  # fmt: skip
GPU = {"name": "NVIDIA H100", "total": 80 * 1024, "used": 300}


def facts(changes):
    """Healthy facts with some changed: a path of keys to the value."""
    result = copy.deepcopy(HEALTHY)
    for path, value in changes.items():
        *outer, last = path.split("/")
        place = result
        for key in outer:
            place = place[key]
        place[last] = value
    return result


NEW_JAX = {"versions/jax": "0.11.2", "versions/jaxlib": "0.11.2", "jax/version": "0.11.2"}
PLUGIN = {"versions/jax-cuda13-plugin": "0.10.2"}
ON_GPU = {"jax/backend": "gpu", **PLUGIN}
FULL = {**GPU, "used": 60 * 1024}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gpus": [GPU], **ON_GPU},
        NEW_JAX,
        {"jax/backend": "tpu"},
        {"gpus": [FULL], **ON_GPU, "environment/XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        {"gpus": [FULL], **ON_GPU, "environment/XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"},
        {"gpus": [FULL], **ON_GPU, "environment/XLA_PYTHON_CLIENT_ALLOCATOR": "platform"},
        {"requirements": ["flax>=99; python_version < '3'"]},
    ],
)
def test_no_problem(changes):
    assert problems(facts(changes)) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versions/optax": None}, ["Not installed: optax", "pip install"]),
        ({"versions/jaxlib": None, "jax": {"error": "no jaxlib"}}, ["Not installed: jaxlib", "scripts/demo"]),
        ({"jax_copies": ["/a", "/b"]}, ["2 copies of jax, in /a and /b", "Uninstall one"]),
        ({"jax/version": "0.9.0"}, ["imported is 0.9.0, from /env/jax/__init__.py", "installed is 0.10.2"]),
        ({"versions/jaxlib": "0.10.1"}, ["jaxlib is 0.10.1 and jax 0.10.2", "pip install jaxlib==0.10.2"]),
        (
            {**ON_GPU, "versions/jax-cuda13-plugin": "0.9.0"},
            ["jax-cuda13-plugin is 0.9.0", "jax-cuda13-plugin==0.10.2"],
        ),
        ({**NEW_JAX, "versions/flax": "0.12.9", "requirements": []}, ["jax 0.11.2 with flax 0.12.9", "issue #5596"]),
        ({"versions/flax": "0.12.7"}, ["flax is 0.12.7, and dlfx is made for flax", "!=0.12.9"]),
        ({"versions/importlib_resources": "5.0"}, ["importlib_resources is 5.0"]),
        ({"jax": {"error": "ImportError: no libstdc++"}}, ["does not start: ImportError: no libstdc++"]),
        (
            {"jax": {"error": "Unknown flag in XLA_FLAGS: --b"}, "environment/XLA_FLAGS": "--b"},
            ["does not start", "Remove the flag from XLA_FLAGS=--b"],
        ),
        (
            {"jax": {"error": "E"}, "without_platforms": {"backend": "cpu"}, "environment/JAX_PLATFORMS": "cuda"},
            ["JAX_PLATFORMS=cuda names a platform that is not there (E)", "starts on cpu"],
        ),
        ({"gpus": [GPU]}, ["NVIDIA H100", "plugin is not installed", "'.[cuda13]'"]),
        ({"gpus": [GPU], **PLUGIN}, ["jax-cuda13-plugin is installed, there is a GPU", "driver"]),
        (PLUGIN, ["the driver shows no GPU", "pip uninstall jax-cuda13-plugin"]),
        ({**PLUGIN, "environment/JAX_PLATFORMS": "cpu"}, ["JAX_PLATFORMS=cpu keeps JAX off the GPU", "Unset it"]),
        ({**PLUGIN, "environment/CUDA_VISIBLE_DEVICES": ""}, ["CUDA_VISIBLE_DEVICES hides every GPU"]),
        ({"gpus": [FULL], **ON_GPU}, ["hold 60.0 of 80.0 GiB", "takes 75%", "XLA_PYTHON_CLIENT_PREALLOCATE=false"]),
        ({**ON_GPU, "environment/XLA_PYTHON_CLIENT_MEM_FRACTION": "most"}, ["FRACTION=most is no number"]),
        ({"jax/tensorflow": True}, ["imports TensorFlow", "pip uninstall tensorflow"]),
        ({"workdir_error": "Permission denied"}, ["Cannot write in /data/runs: Permission denied", "--workdir"]),
        ({"workdir_free": doctor_checks.GIB // 2}, ["Only 0.50 GiB are free for /data/runs"]),
    ],
)
def test_problem(changes, said):
    (problem,) = problems(facts(changes))
    for part in said:
        assert part in problem


def test_every_check_is_in_the_list():
    functions = {name for name, value in vars(doctor_checks).items() if inspect.isfunction(value)}
    assert functions == {check.__name__ for check in doctor_checks.CHECKS} | {"problems", "_between"}


def test_report_shows_what_dlfx_sets_and_what_defaults_mean():
    text = doctor.report(facts({"gpus": [GPU], "environment/JAX_ENABLE_X64": "1"}))
    assert "XLA_FLAGS that dlfx sets        --a=" in text
    assert "75 % of the memory" in text
    assert "JAX_ENABLE_X64                  1" in text
    assert "jax-cuda12-plugin       not installed" in text
    assert "NVIDIA H100: 0.3 of 80.0 GiB in use" in text


def test_report_without_jax():
    assert "does not start: ImportError" in doctor.report(facts({"jax": {"error": "ImportError"}}))


def test_probe_tells_why_jax_does_not_start():
    assert "xla_no_such_flag" in doctor.probe(XLA_FLAGS="--xla_no_such_flag=1")["error"]


def test_gather_here(tmp_path):
    found = doctor.gather(tmp_path / "not" / "there")
    assert found["workdir_error"] == "" and found["workdir_free"] > 0
    assert found["versions"]["jax"] == found["jax"]["version"]
    assert not list(tmp_path.iterdir())  # a look leaves nothing behind


def test_a_file_where_the_work_directory_should_be(tmp_path):
    (tmp_path / "runs").write_text("")
    command = [sys.executable, Path(doctor.__file__), f"--workdir={tmp_path}/runs"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert f"Cannot write in {tmp_path}/runs: Not a directory" in done.stdout
