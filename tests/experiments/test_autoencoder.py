"""experiments.autoencoder as a user meets it: every kind, resumption, populations, mistakes."""

import json
import re
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints, rundir

TINY = [
    "--batch_size=32", "--steps=12", "--log_every=4", "--eval_every=8", "--checkpoint_every=8", "--keep=9",
    "--code_size=6",
]  # fmt: skip
KINDS = {
    "plain": ["--hidden=12", "--tied"],
    "denoising": ["--corruption_kind=gaussian", "--loss=squared"],
    "sparse": ["--sparsity_target=0.1"],
    "contractive": ["--hidden=12"],
    "convolutional": ["--channels=2,9", "--activation=relu", "--code_activation=linear"],
}


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("autoencoder")
        if not pictures:
            monkeypatch.setattr(module, "draw_figures", lambda *args, **kwargs: None)
        return experiment("autoencoder", *TINY, *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_each_kind(run, tmp_path, kind):
    done = run(f"--kind={kind}", f"--workdir={tmp_path}", *KINDS[kind], pictures=True)
    assert done.code == 0, done.err
    assert set(summary(tmp_path)["metrics"]) == {"test_loss", "test_pixel_error", "test_activation"}
    assert summary(tmp_path)["flags"]["image_size"] == "0"
    rows = rundir.read_metrics(tmp_path)
    train = next(row for row in rows if row["split"] == "train")
    assert {"loss", "reconstruction_loss", "pixel_error", "grad_norm"} <= set(train)
    assert ("sparsity_loss" in train) == (kind == "sparse")
    assert ("contraction_loss" in train) == (kind == "contractive")
    figures = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert {"curves.png", "reconstructions.png", "codes.png", "filters.png"} <= figures
    assert ("features.png" in figures) == (kind == "convolutional")


@pytest.mark.parametrize("arguments", [["--parallel=pmap"], ["--precision=float64", "--steps_per_call=4"]])
def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(run, tmp_path, arguments):
    arguments = [f"--workdir={tmp_path}", "--kind=denoising", "--sparsity=1", *arguments]
    assert run(*arguments).code == 0
    wanted = summary(tmp_path)["params_sha256"]
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    done = run(*arguments)
    assert done.code == 0 and "resuming after step 8" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted


def test_a_population_equals_its_members_alone(run, tmp_path):
    assert run(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", "--kind=denoising", pictures=True).code == 0
    together = summary(tmp_path / "all")
    state = checkpoints.load_state(tmp_path / "all" / "checkpoints")
    for member in range(2):
        path = tmp_path / f"{member}"
        assert run(f"--workdir={path}", f"--seed={member}", "--kind=denoising").code == 0
        assert summary(path)["params"] == together["params"]
        values = together["metrics"]["test_loss"]["values"]
        np.testing.assert_allclose(values[member], summary(path)["metrics"]["test_loss"], rtol=1e-4)
        for name, value in checkpoints.load_state(path / "checkpoints").items():
            np.testing.assert_allclose(state[name][member], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_the_figures_helpers(load):
    load("autoencoder")
    from experiments import autoencoder_figures as pictures

    rng = np.random.default_rng(0)
    train, test = rng.random((50, 3, 2, 1)), rng.random((20, 3, 2, 1))
    average, parts = train.reshape(50, 6).mean(0), np.linalg.svd(train.reshape(50, 6) - train.reshape(50, 6).mean(0))[2]
    away = test.reshape(20, 6) - average
    residual = sum((away @ part) ** 2 for part in parts[2:]) / 6  # in the directions left out
    np.testing.assert_allclose(pictures.principal_error(train, test, 2), residual.mean())
    labels = np.array([3, 3, 1, 1, 0, 3, 1, 0, 2, 2, 2, 2])
    chosen = pictures.one_of_each(labels)
    assert sorted(labels[chosen[:4]]) == [0, 1, 2, 3] and len(set(chosen)) == 10
    got = pictures.in_parts(lambda x: (x.sum((1, 2, 3)), 2 * x), test, rows=8)
    np.testing.assert_allclose(got[0], test.sum((1, 2, 3)))
    np.testing.assert_allclose(got[1], 2 * test)


CASES = {
    "--kind=denoisy": "unknown kind 'denoisy'; did you mean denoising",
    "--code_size=0": "code_size.*0",
    "--corruption=1": "corruption of 1 is not possible; it must be at least 0 and below 1",
    "--corruption=-0.5": "corruption of -0.5",
    "--hidden=8,x": "--hidden=8,x must be whole numbers",
    "--hidden=0": "0 units.*at least 1",
    "--kind=sparse --code_activation=relu": "sparsity_kind=kl needs --code_activation=sigmoid",
    "--sparsity_target=1 --kind=sparse": "mean activation of 1",
    "--kind=convolutional --contraction=1": "contraction.*dense",
    "--kind=convolutional --image_size=6": "multiples of 4; got 6x6",
    "--loss=hinge": "loss.*hinge",
    "--monitor=test_lose": "did you mean test_loss",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err
