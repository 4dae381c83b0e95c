"""experiments.pretraining as a user meets it: pictures, resumption within and between stages, mistakes."""

import json
import re
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints, rundir

TINY = [
    "--batch_size=32", "--widths=7,5", "--pretrain_steps=6", "--steps=8", "--log_every=2", "--eval_every=10",
    "--checkpoint_every=8", "--keep=9",
]  # fmt: skip


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("pretraining")
        if not pictures:
            monkeypatch.setattr(module, "draw_figures", lambda *args, **kwargs: None)
        return experiment("pretraining", *TINY, *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


def test_a_run_leaves_its_metrics_and_its_pictures(run, tmp_path):
    done = run(f"--workdir={tmp_path}", "--corruption=0.2", pictures=True)
    assert done.code == 0, done.err
    found = summary(tmp_path)
    assert found["steps"] == 2 * 6 + 8 and set(found["metrics"]) == {"test_loss", "test_accuracy"}
    rows = [row for row in rundir.read_metrics(tmp_path) if row["split"] == "train"]
    assert [row["stage"] for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert {"loss", "accuracy", "grad_norm"} <= set(rows[0])
    figures = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert figures == {"curves.png", "stages.png", "gradients.png", "reconstructions.png"}


def test_batch_norm_members_and_the_control_without_pretraining(run, tmp_path):
    arguments = ["--activation=relu", "--loss=squared", "--normalize", "--initializer=he", "--num_seeds=2"]
    for steps in (6, 0):
        path = tmp_path / str(steps)
        done = run(f"--workdir={path}", f"--pretrain_steps={steps}", *arguments, pictures=True)
        assert done.code == 0, done.err
        assert summary(path)["steps"] == 2 * steps + 8
        assert len(summary(path)["metrics"]["test_accuracy"]["values"]) == 2
        assert (path / "figures" / "reconstructions.png").exists() == bool(steps)


def test_the_state_keeps_what_fine_tuning_began_from(run, tmp_path):
    assert run(f"--workdir={tmp_path}", "--checkpoint_every=12").code == 0
    before = checkpoints.load_state(tmp_path / "checkpoints", 12)
    after = checkpoints.load_state(tmp_path / "checkpoints", 20)
    names = [name for name in after if name.startswith("pretrained/params/")]
    assert len(names) == 10
    for name in names:
        np.testing.assert_array_equal(after[name], before[name.removeprefix("pretrained/")])


@pytest.mark.parametrize(
    "arguments", [["--parallel=pmap", "--checkpoint_every=8"], ["--precision=float64", "--steps_per_call=4"]]
)
def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(run, tmp_path, arguments):
    """From a point within a stage, over the border to the next."""
    arguments = [f"--workdir={tmp_path}", "--corruption=0.3", *arguments]
    assert run(*arguments).code == 0
    wanted = summary(tmp_path)["params_sha256"]
    (tmp_path / "summary.json").unlink()
    for step in ("16", "20"):
        shutil.rmtree(tmp_path / "checkpoints" / step)
    done = run(*arguments)
    assert done.code == 0 and "resuming after step 8" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted


CASES = {
    "--widths=": "--widths= must be at least one whole number",
    "--widths=9,a": "--widths=9,a must be",
    "--widths=9,0": "0 units.*at least 1",
    "--activation=relu": "--loss=bernoulli needs --activation=sigmoid, not relu",
    "--corruption=1": "corruption of 1 is not possible",
    "--corruption=-0.1": "corruption of -0.1 is not possible",
    "--pretrain_steps=-1": "pretrain_steps.*-1",
    "--pretrain_optimizer=adm": "unknown optimizer 'adm'; did you mean adam",
    "--initializer=glorot": "initializer.*glorot",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err
    assert not (tmp_path / "run").exists()
