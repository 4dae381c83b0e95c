"""Translations by command line: what a run leaves, and what it refuses."""

import json
import re

import numpy as np
import pytest

TINY = ["--dataset=digits", "--image_size=8", "--resize=bilinear", "--features=2", "--critic_features=2"]
TINY += ["--critic_layers=1", "--batch_size=8", "--steps=4", "--log_every=1", "--eval_every=2", "--checkpoint_every=2"]
PIX2PIX = [*TINY, "--method=pix2pix", "--task=edges", "--blocks=2"]
CYCLEGAN = [*TINY, "--method=cyclegan", "--task=slant", "--blocks=1", "--buffer_size=10"]


def summary(path):
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("flags", [PIX2PIX, CYCLEGAN], ids=["pix2pix", "cyclegan"])
def test_a_run_leaves_pictures_and_resumes_to_the_same_bits(experiment, tmp_path, flags):
    path = tmp_path / "run"
    done = experiment("image_to_image", *flags, f"--workdir={path}")
    assert done.code == 0, done.err
    names = {f.name for f in (path / "figures").iterdir()}
    assert {"curves.png", "players.png", "translations.png", "translations.gif", "translations"} <= names
    first = summary(path)
    assert first["metrics"]["test_error"] > 0 and first["metrics"]["test_copy_error"] > 0
    assert ("test_cycle_error" in first["metrics"]) == (flags is CYCLEGAN)
    # 4 steps of a network this small are no better than no step at all, and that is said.
    assert ("warning: no better" in done.out) == (first["metrics"]["test_error"] >= first["metrics"]["test_copy_error"])
    (path / "summary.json").unlink()
    (path / "checkpoints" / "4" / "state" / "manifest.ocdbt").unlink()
    done = experiment("image_to_image", *flags, f"--workdir={path}", pictures=False)
    assert done.code == 0 and "resuming after step 2" in done.out, done.err
    assert summary(path)["params_sha256"] == first["params_sha256"]


def test_a_population_holds_the_same_members(experiment, tmp_path):
    for path, flag in (tmp_path / "one", "--seed=1"), (tmp_path / "two", "--num_seeds=2"):
        done = experiment("image_to_image", *PIX2PIX, flag, f"--workdir={path}", pictures=False)
        assert done.code == 0, done.err
    of_seed = summary(tmp_path / "two")["metrics"]["test_error"]["values"][1]
    np.testing.assert_allclose(of_seed, summary(tmp_path / "one")["metrics"]["test_error"], rtol=1e-3)


def test_two_data_sets_without_pairs(experiment, tmp_path):
    flags = [flag for flag in CYCLEGAN if not flag.startswith("--task")]
    done = experiment("image_to_image", *flags, "--target=digits", f"--workdir={tmp_path / 'run'}", pictures=False)
    assert done.code == 0, done.err
    assert set(summary(tmp_path / "run")["metrics"]) == {"test_cycle_error"}


@pytest.mark.parametrize(
    "flags, says",
    [
        ((*PIX2PIX, "--target=faces"), "pix2pix needs pairs; digits and faces have none"),
        ((*CYCLEGAN, "--image_size=10"), "multiples of 4.*image_size"),
        ((*PIX2PIX, "--blocks=5"), "multiples of 32"),
        ((*CYCLEGAN, "--task=shear"), "task.*shear"),
        ((*CYCLEGAN, "--batch_size=5000"), "batch size 5000 is not possible"),
        ((*CYCLEGAN, "--critic_layers=2"), "patch critic of 2 layers takes sides of at least 16"),
        ((*CYCLEGAN, "--features=0"), "features.*0"),
    ],
)
def test_mistakes_get_one_line(experiment, tmp_path, flags, says):
    done = experiment("image_to_image", *flags, f"--workdir={tmp_path / 'run'}")
    assert done.code in (1, 2) and re.search(says, done.err), done.err
    assert len(done.err.strip().splitlines()) == 1 and not (tmp_path / "run").exists()
