"""experiments.vae as a user meets it: figures, bounds, resumption, populations, mistakes."""

import json
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints, rundir

TINY = ["--hidden=16", "--latent=3", "--batch_size=64", "--log_every=4", "--eval_every=8", "--steps_per_call=4"]
CODES = ["--kind=vqvae", "--widths=4", "--blocks=0", "--codebook=8", "--code_width=3", "--prior_hidden=8"]
CODES += ["--batch_size=64", "--log_every=4", "--eval_every=8", "--steps_per_call=4"]


@pytest.fixture
def vae(experiment):
    return lambda *arguments, base=TINY, pictures=True: experiment("vae", *base, *arguments, pictures=pictures)


def summary(path):
    return json.loads((path / "summary.json").read_text())


def figures(path):
    return {figure.name for figure in (path / "figures").iterdir()}


def test_a_run_has_its_metrics_and_figures_and_goes_on_where_it_stopped(vae, tmp_path):
    path = tmp_path / "run"
    arguments = [f"--workdir={path}", "--steps=16", "--checkpoint_every=8", "--binarize"]
    arguments += ["--eval_samples=30", "--eval_images=50"]
    done = vae(*arguments)
    assert done.code == 0, done.err
    wanted = summary(path)
    metrics = wanted["metrics"]
    assert set(metrics) == {
        "test_loss", "test_reconstruction", "test_kl", "test_active_units", "test_iwae_loss",
    }  # fmt: skip
    np.testing.assert_allclose(metrics["test_loss"], metrics["test_reconstruction"] + metrics["test_kl"], rtol=1e-5)
    assert 10 < metrics["test_iwae_loss"] < 64 * np.log(2) + 1
    assert figures(path) == {
        "curves.png", "samples.png", "samples.gif", "reconstructions.png", "latent.png", "interpolations.png",
        "traversals.png",
    }  # fmt: skip
    assert len(list((path / "snapshots").iterdir())) == 2

    (path / "summary.json").unlink()
    shutil.rmtree(path / "checkpoints" / "16")
    assert vae(*arguments, pictures=False).code == 0
    again = summary(path)
    assert again["params_sha256"] == wanted["params_sha256"] and again["metrics"] == metrics
    rows = [(row["step"], row["split"]) for row in rundir.read_metrics(path)]
    assert len(rows) == len(set(rows))


def test_two_latents_fill_a_plane_and_labels_a_grid(vae, tmp_path):
    arguments = ["--steps=4", "--eval_every=4", "--likelihood=gaussian"]
    assert vae(f"--workdir={tmp_path / 'plane'}", "--latent=2", "--samples=2", *arguments).code == 0
    assert "plane.png" in figures(tmp_path / "plane") and "classes.png" not in figures(tmp_path / "plane")
    done = vae(
        f"--workdir={tmp_path / 'told'}", "--conditional", "--architecture=conv", "--widths=4", "--blocks=0", *arguments
    )
    assert done.code == 0 and "classes.png" in figures(tmp_path / "told")


def test_a_population_is_its_members_alone_and_pmap_is_jit(vae, tmp_path):
    arguments = ["--steps=8", "--binarize", "--eval_samples=10", "--eval_images=20"]
    assert vae(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", "--seed=3", *arguments, pictures=False).code == 0
    together = summary(tmp_path / "all")["metrics"]
    for member, seed in enumerate((3, 4)):
        path = tmp_path / str(seed)
        done = vae(f"--workdir={path}", f"--seed={seed}", "--parallel=pmap", *arguments, pictures=False)
        assert done.code == 0, done.err
        for name, value in summary(path)["metrics"].items():
            np.testing.assert_allclose(together[name]["values"][member], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("options", [[], ["--code_decay=0", "--code_restart=0", "--num_seeds=2"]])
def test_codes(vae, tmp_path, options):
    done = vae(f"--workdir={tmp_path}", "--steps=8", *options, base=CODES)
    assert done.code == 0, done.err
    metrics = summary(tmp_path)["metrics"]
    assert set(metrics) == {
        "test_loss", "test_reconstruction", "test_prior", "test_commitment", "test_perplexity", "test_codes_used",
    }  # fmt: skip
    assert figures(tmp_path) == {
        "curves.png", "samples.png", "samples.gif", "reconstructions.png", "codes.png", "usage.png",
    }  # fmt: skip
    saved = checkpoints.load_state(tmp_path / "checkpoints")
    assert saved["codebook"].shape[-2:] == (8, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latent=0"], "latent = 0 is not possible; it is at least 1"),
        (["--beta=-1"], "beta = -1 is not possible"),
        (["--samples=0"], "samples = 0 is not possible"),
        (["--likelihood=gaussian", "--binarize"], "pixels that are binarized are of a bernoulli likelihood"),
        (["--hidden=20,x"], "--hidden=20,x must be positive integers, such as 200,100"),
        (["--warmup_epochs=3"], "more than the run's 8"),
        (["--kind=vqvae", "--latent=8", "--beta=2"], "--beta is of --kind=vae"),  # 8 is the default
        (["--codebook=16"], "--codebook is of --kind=vqvae"),
        (["--likelihood=poisson"], "bernoulli|gaussian"),
    ],
)
def test_a_mistake_is_told_in_one_line(vae, tmp_path, arguments, words):
    done = vae(f"--workdir={tmp_path}", "--steps=8", "--batch_size=64", *arguments, base=[])
    assert done.code == 2 and done.err.count("\n") == 1 and words in done.err


def test_a_classifier_judges_the_samples(load, experiment, tmp_path):
    load("cnn")
    seen = ["--model=lenet5", "--image_size=16", "--steps=8", "--eval_every=8", f"--workdir={tmp_path / 'cnn'}"]
    assert experiment("cnn", *seen, pictures=False).code == 0
    load("vae")
    judged = [*TINY, "--steps=8", f"--classifier={tmp_path / 'cnn'}", "--judged=40"]
    for members in (1, 2):
        path = tmp_path / f"{members}"
        done = experiment("vae", *judged, f"--num_seeds={members}", f"--workdir={path}", pictures=False)
        assert done.code == 0, done.err
        distance = summary(path)["metrics"]["samples_frechet_distance"]
        assert np.all(np.array(distance["values"] if members == 2 else [distance]) > 0)
    wrong = experiment("vae", *judged, f"--classifier={tmp_path}", f"--workdir={tmp_path / 'wrong'}")
    assert wrong.code == 2 and len(wrong.err.splitlines()) == 1 and not (tmp_path / "wrong").exists()
