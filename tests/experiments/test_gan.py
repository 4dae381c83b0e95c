"""experiments.gan as a user meets it: densities and images, pictures, resumption, warnings, mistakes in one line."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from dlfx.training import checkpoints, rundir

SHORT = [
    "--steps=12",
    "--log_every=4",
    "--eval_every=6",
    "--checkpoint_every=6",
    "--eval_samples=64",
    "--batch_size=16",
]
RING = [*SHORT, "--dataset=ring", "--hidden=8", "--latent=2", "--steps_per_call=2"]
DIGITS = [*SHORT, "--dataset=digits", "--architecture=dcgan", "--features=2", "--latent=4", "--steps_per_call=3"]


@pytest.fixture
def gan(experiment):
    def run(*arguments, base=RING, pictures=False):
        told = {argument.partition("=")[0] for argument in arguments}
        base = [flag for flag in base if flag.partition("=")[0] not in told]
        return experiment("gan", *base, *arguments, pictures=pictures)

    return run


def summary(path):
    return json.loads((path / "summary.json").read_text())


def files(path):
    return {file.name for file in (path / "figures").iterdir()}


def test_a_run_on_a_density_leaves_pictures_and_says_that_it_is_poor(gan, tmp_path):
    done = gan(f"--workdir={tmp_path}", "--r1=0.1", "--ema=0.9", "--schedule=linear", pictures=True)
    assert done.code == 0, done.err
    found = summary(tmp_path)
    assert found["experiment"] == "gan" and set(found["metrics"]) == {"eval_quality", "eval_modes", "eval_divergence"}
    assert files(tmp_path) == {"curves.png", "players.png", "samples.png", "samples.gif", "samples"}
    with Image.open(tmp_path / "figures" / "samples.gif") as animation:
        assert animation.n_frames == 2
    rows = rundir.read_metrics(tmp_path)
    train = [row for row in rows if row["split"] == "train"]
    assert {"d_real", "d_fake", "critic_loss", "generator_loss", "loss", "r1"} <= set(train[0])
    assert all(0 < row["d_real"] < 1 for row in train)
    warnings = (tmp_path / "warnings.txt").read_text()
    assert "samples lie within 3 standard deviations" in warnings and warnings.strip() in done.out
    params = [name for name in checkpoints.load_state(tmp_path / "checkpoints") if "params/" in name]
    assert any(n.startswith("generator/") for n in params) and any(n.startswith("critic/") for n in params)


def test_a_resumed_run_ends_in_the_same_bits(gan, tmp_path):
    arguments = ["--spectral", "--critic_steps=2", "--ema=0.9", "--loss=non_saturating", "--conditional"]
    arguments = [f"--workdir={tmp_path}", "--architecture=mlp", "--hidden=8", *arguments]
    assert gan(*arguments, base=DIGITS).code == 0
    wanted, lines = summary(tmp_path), (tmp_path / "metrics.jsonl").read_text()
    before = checkpoints.load_state(tmp_path / "checkpoints")
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    done = gan(*arguments, base=DIGITS)
    assert done.code == 0 and "resuming after step 6" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted["params_sha256"]
    assert (tmp_path / "metrics.jsonl").read_text() == lines
    after = checkpoints.load_state(tmp_path / "checkpoints")
    assert all((after[name] == before[name]).all() for name in before) and any("spectral" in name for name in before)


def test_a_run_on_images_with_classes_leaves_its_pictures(gan, tmp_path):
    done = gan(f"--workdir={tmp_path}", "--conditional", "--loss=least_squares", base=DIGITS, pictures=True)
    assert done.code == 0, done.err
    assert files(tmp_path) == {
        "curves.png", "players.png", "samples", "samples.gif", "samples.png", "nearest.png", "interpolation.png",
    }  # fmt: skip
    found = summary(tmp_path)["metrics"]
    assert set(found) == {"eval_pixel_distance", "eval_pixel_floor", "eval_spread"}
    assert found["eval_pixel_distance"] > found["eval_pixel_floor"] > 0
    with Image.open(tmp_path / "figures" / "samples.png") as sheet:
        assert sheet.size == (10 * 57 + 1, 6 * 57 + 1)  # one class a column


def test_a_population_equals_its_members_alone(gan, tmp_path):
    together = gan(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", "--seed=5")
    assert together.code == 0, together.err
    assert re.search(r"^warning: seed 6: only", together.out, re.M)
    state = checkpoints.load_state(tmp_path / "all" / "checkpoints")
    quality = summary(tmp_path / "all")["metrics"]["eval_divergence"]["values"]
    for member, seed in enumerate((5, 6)):
        assert gan(f"--workdir={tmp_path / str(seed)}", f"--seed={seed}").code == 0
        for name, value in checkpoints.load_state(tmp_path / str(seed) / "checkpoints").items():
            np.testing.assert_allclose(state[name][member], value, rtol=2e-3, atol=2e-4, err_msg=name)
    assert len(quality) == 2


def test_pmap_in_float64_equals_jit(gan, tmp_path):
    states = []
    for parallel in ("jit", "pmap"):
        arguments = [
            f"--parallel={parallel}",
            "--precision=float64",
            "--critic_steps=2",
            f"--workdir={tmp_path / parallel}",
        ]
        assert gan(*arguments, base=DIGITS).code == 0
        states.append(checkpoints.load_state(tmp_path / parallel / "checkpoints"))
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=1e-7, atol=1e-10, err_msg=name)
    assert states[0]["generator/params/up1/kernel"].dtype == np.float64


MISTAKES = {
    "--latent=0": "latent.*0",
    "--critic_steps=0": "critic_steps.*0",
    "--conditional": "--conditional is for images; --dataset=ring",
    "--architecture=dcgan": "dcgan is for images",
    "--gradient_penalty=10 --clip=0.01": "--gradient_penalty and --clip",
    "--loss=wasserstein": "wasserstein needs a bounded critic",
    "--loss=wasserstien": "wasserstien",
    "--steps=0": "no epochs; give --steps",
    "--hidden=8,x": "--hidden=8,x must be positive whole numbers",
    "--dataset=rign": "unknown data set 'rign'",
    "--dataset=digits --classifier=/nowhere": "no directory /nowhere",
    "--dataset=digits --batch_size=800 --critic_steps=2": "batch size 1600 is not possible",
    "--monitor=eval_qualtiy": "did you mean eval_quality",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_gets_one_clear_line(gan, tmp_path, arguments):
    done = gan(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(MISTAKES[arguments], lines[0]), done.err


def test_clip_goes_with_any_game(gan, tmp_path):
    assert gan(f"--workdir={tmp_path}", "--clip=0.01").code == 0
    state = checkpoints.load_state(tmp_path / "checkpoints")
    weights = [value for name, value in state.items() if name.startswith("critic/params/")]
    assert max(np.abs(value).max() for value in weights) <= np.float32(0.01)


def test_what_went_wrong_is_said(load):
    load("gan")
    from experiments.sample_evaluation import complaints

    good = {"quality": 0.95, "modes": 8.0}
    assert complaints(good, 0.5, 0.5, True, 8) == []
    assert complaints({"quality": 0.9, "modes": 1.0}, 0.5, 0.5, True, 8) == ["collapsed: 1 of 8 modes"]
    assert "the critic won" in complaints(good, 0.99, 0.001, True, 8)[0]
    assert complaints(good, 0.99, 0.001, False, 8) == []  # of a critic that gives no probabilities
    assert complaints({"spread": 0.9}, 0.5, 0.5, True, 0) == []
    assert complaints({"spread": 0.07}, 0.5, 0.5, True, 0) == [
        "collapsed: the samples vary 0.07 times as much as the data"
    ]
    said = complaints({"spread": 1.0, "recall": 0.01, "smallest_share": 0.0, "agreement": 0.2}, 0.5, 0.5, True, 0)
    assert [bool(re.search(word, line)) for word, line in zip(("recall", "missing", "20%"), said, strict=True)] == [
        True
    ] * 3


def test_points_are_judged_by_their_modes(load):
    load("gan")
    from dlfx.data import densities
    from experiments.sample_evaluation import of_density

    ring = densities.ring()
    judge = of_density(ring)
    perfect = judge(densities.draw(ring, 4000, np.random.default_rng(0)), None)
    assert perfect["modes"] == 8 and abs(perfect["quality"] - 0.989) < 0.006 and perfect["divergence"] < 0.01
    one = judge(np.tile(ring.centers[:1], (4000, 1)), None)
    assert one["modes"] == 1 and one["quality"] == 1
    stray = np.concatenate([np.tile(ring.centers[:1], (3999, 1)), ring.centers[1:2]])
    assert judge(stray, None)["modes"] == 1  # one point is no mode


def test_images_are_judged_against_the_test_images(load):
    load("gan")
    from experiments.classifiers import Classifier
    from experiments.sample_evaluation import of_images

    rng = np.random.default_rng(0)
    labels = np.arange(200, dtype=np.int32) % 2
    test = (0.5 * labels[:, None, None, None] + 0.1 * rng.normal(size=(200, 2, 2, 1))).astype(np.float32)
    train = (0.5 * labels[:, None, None, None] + 0.1 * rng.normal(size=(200, 2, 2, 1))).astype(np.float32)

    def logits(images):
        mean = np.asarray(images).mean((1, 2, 3))
        return np.stack([0.25 - mean, mean - 0.25], 1)

    classifier = Classifier(lambda images: np.asarray(images).reshape(len(images), -1), logits, 2, "mean", None)
    judge = of_images(train, test, labels, classifier)
    same = judge(test, labels)
    assert same["pixel_distance"] < 1e-6 and same["frechet_distance"] < 1e-6 and same["spread"] == pytest.approx(1)
    assert same["precision"] == same["recall"] == same["agreement"] == 1 and same["smallest_share"] == 1
    assert 0 < same["pixel_floor"] == pytest.approx(same["frechet_floor"])
    prototypes = judge((0.5 * labels[:, None, None, None] + np.zeros_like(test)).astype(np.float32), labels)
    assert prototypes["spread"] == 0 and prototypes["agreement"] == 1  # collapsed within each class
    ones = judge(train[labels == 1], np.ones(100, np.int32))
    assert ones["smallest_share"] == 0 and ones["largest_share"] == 2 and ones["pixel_distance"] > same["pixel_floor"]


def test_the_way_between_latents_keeps_their_length(load):
    load("gan")
    from experiments.gan_figures import slerp

    a, b = np.random.default_rng(0).normal(size=(2, 3, 16))
    b *= np.linalg.norm(a, axis=1, keepdims=True) / np.linalg.norm(b, axis=1, keepdims=True)
    np.testing.assert_allclose(slerp(a, b, 0), a, atol=1e-12)
    np.testing.assert_allclose(slerp(a, b, 1), b, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(slerp(a, b, 0.3), axis=1), np.linalg.norm(a, axis=1), rtol=1e-12)
