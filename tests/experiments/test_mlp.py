"""experiments.mlp as a user meets it, and the numbers of its textbook."""

import json
import re

import jax
import numpy as np
import pytest

from dlfx.data import batches, sources
from dlfx.training import checkpoints, rundir

TINY = ["--dataset=digits", "--hidden=8", "--batch_size=32", "--log_every=4", "--eval_every=8", "--optimizer=sgd"]


@pytest.fixture
def mlp(experiment):
    """`mlp(*arguments)`: the experiment in a tiny configuration."""
    return lambda *arguments, base=TINY, pictures=False: experiment("mlp", *base, *arguments, pictures=pictures)


def summary(path):
    return json.loads((path / "summary.json").read_text())


def params(path):
    state = checkpoints.load_state(path / "checkpoints")
    return {name: value for name, value in state.items() if name.startswith("params/")}


def test_the_run_directory_and_what_is_measured(mlp, tmp_path):
    done = mlp(f"--workdir={tmp_path}", "--steps=16", "--hidden=8,6", "--learning_rate=0.1", pictures=True)
    assert done.code == 0, done.err
    found = summary(tmp_path)
    assert found["params"] == 64 * 8 + 8 + 8 * 6 + 6 + 6 * 10 + 10
    assert set(found["metrics"]) == {
        "test_loss", "test_accuracy", "whole_loss", "whole_accuracy", "whole_grad_norm", "whole_gradient_variance",
    }  # fmt: skip
    assert {figure.name for figure in (tmp_path / "figures").iterdir()} == {
        "curves.png", "confusion.png", "gradients.png", "weights.png",
    }  # fmt: skip
    rows = [row for row in rundir.read_metrics(tmp_path) if row["split"] == "train"]
    assert [row["step"] for row in rows] == [4, 8, 12, 16] and set(rows[0]) >= {"loss", "accuracy", "grad_norm"}


def test_the_variance_told_is_that_of_the_batches_of_the_stream(mlp, tmp_path):
    """Measured again on 20 epochs of mini-batches, at the weights that the run ended with."""
    assert mlp(f"--workdir={tmp_path}", "--steps=8", "--learning_rate=0.1", "--batch_size=103").code == 0
    (weights, offset), (kernel, bias) = [
        (params(tmp_path)[f"params/{k}/kernel"].astype(float), params(tmp_path)[f"params/{k}/bias"]) for k in (0, 1)
    ]
    train, _ = sources.digits()
    examples = sources.read_all(train)
    x = (examples["image"].reshape(train.size, -1) - train.mean) / train.std
    hidden = np.tanh(x @ weights + offset)
    scores = hidden @ kernel + bias
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    d2 = p - np.eye(10)[examples["label"]]
    d1 = (1 - hidden**2) * (d2 @ kernel.T)

    def gradient(rows):
        parts = (x[rows].T @ d1[rows], d1[rows].sum(0), hidden[rows].T @ d2[rows], d2[rows].sum(0))
        return np.concatenate([part.ravel() for part in parts]) / len(rows)

    full = gradient(np.arange(train.size))
    draws = [gradient(batches.order(0, i, 103, train.size)) for i in range(20 * 14)]
    told = summary(tmp_path)["metrics"]
    np.testing.assert_allclose(told["whole_grad_norm"], np.linalg.norm(full), rtol=1e-4)
    measured = np.mean([((draw - full) ** 2).sum() for draw in draws])
    np.testing.assert_allclose(told["whole_gradient_variance"], measured, rtol=0.05)


def test_descent_says_how_many_examples_a_step_has(mlp, tmp_path):
    variance = {}
    for descent, length in (("batch", "--epochs=3"), ("stochastic", "--steps=3"), ("minibatch", "--steps=3")):
        path = tmp_path / descent
        done = mlp(f"--workdir={path}", f"--descent={descent}", length, "--learning_rate=0")
        assert done.code == 0, done.err
        assert summary(path)["steps"] == 3
        variance[descent] = summary(path)["metrics"]["whole_gradient_variance"]
    assert variance["batch"] == 0 < variance["minibatch"]
    ratio = 32 * (1442 - 1) / (1442 - 32)
    np.testing.assert_allclose(variance["stochastic"] / variance["minibatch"], ratio, rtol=1e-4)


def test_by_hand_and_by_autodiff_end_alike(mlp, tmp_path):
    arguments = ["--steps=8", "--precision=float64", "--loss=squared", "--output=sigmoid", "--optimizer=adam"]
    try:
        for gradient in ("hand", "autodiff"):
            assert mlp(f"--workdir={tmp_path / gradient}", f"--gradient={gradient}", *arguments).code == 0
    finally:
        jax.config.update("jax_enable_x64", False)
    hand, autodiff = (params(tmp_path / gradient) for gradient in ("hand", "autodiff"))
    for name, value in hand.items():
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, autodiff[name], rtol=1e-10, atol=1e-13)


def test_exclusive_or_is_learned_and_not_without_a_hidden_layer(mlp, tmp_path):
    base = ["--dataset=xor", "--descent=batch", "--optimizer=sgd", "--learning_rate=1", "--steps=1000"]
    base += ["--steps_per_call=100", "--eval_every=500", "--log_every=500", "--checkpoint_every=1000"]
    done = mlp(f"--workdir={tmp_path / 'deep'}", "--hidden=4", "--num_seeds=5", base=base, pictures=True)
    assert done.code == 0, done.err
    assert summary(tmp_path / "deep")["metrics"]["test_accuracy"]["values"] == [1.0] * 5
    assert (tmp_path / "deep" / "figures" / "plane.png").exists()
    assert mlp(f"--workdir={tmp_path / 'flat'}", "--hidden=", base=base).code == 0
    flat = summary(tmp_path / "flat")["metrics"]
    assert flat["test_accuracy"] <= 0.75
    np.testing.assert_allclose(flat["test_loss"], np.log(2), rtol=1e-4)  # nothing is better than 1/2 everywhere


def test_a_population_equals_its_members_and_pmap_is_jit(mlp, tmp_path):
    arguments = ["--steps=8", "--steps_per_call=4", "--learning_rate=0.1"]
    assert mlp(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", "--seed=5", *arguments).code == 0
    together = params(tmp_path / "all")
    for member, seed in enumerate((5, 6)):
        assert mlp(f"--workdir={tmp_path / str(seed)}", f"--seed={seed}", *arguments).code == 0
        for name, value in params(tmp_path / str(seed)).items():
            np.testing.assert_allclose(together[name][member], value, rtol=1e-4, atol=1e-6)
        alone, every = summary(tmp_path / str(seed))["metrics"], summary(tmp_path / "all")["metrics"]
        for name in ("test_loss", "whole_grad_norm", "whole_gradient_variance"):
            np.testing.assert_allclose(every[name]["values"][member], alone[name], rtol=1e-4)
    assert mlp(f"--workdir={tmp_path / 'pmap'}", "--seed=5", "--parallel=pmap", *arguments).code == 0
    for name, value in params(tmp_path / "pmap").items():
        np.testing.assert_allclose(value, params(tmp_path / "5")[name], rtol=1e-5, atol=1e-7)


def test_a_resumed_run_ends_in_the_same_bits(mlp, tmp_path):
    arguments = [f"--workdir={tmp_path}", "--steps=16", "--checkpoint_every=8", "--optimizer=adam", "--keep=2"]
    assert mlp(*arguments).code == 0
    wanted = summary(tmp_path)
    (tmp_path / "summary.json").unlink()
    for file in (tmp_path / "checkpoints" / "16").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    done = mlp(*arguments)
    assert done.code == 0 and "resuming after step 8" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted["params_sha256"]
    assert summary(tmp_path)["metrics"] == wanted["metrics"]


CASES = {
    "--hidden=0": "--hidden=0: '0' is no width",
    "--hidden=64,many": "'many' is no width; whole numbers above 0 are",
    "--hidden=-3": "'-3' is no width",
    "--activation=rleu": "unknown activation 'rleu'; did you mean relu",
    "--loss=entropy": "unknown loss 'entropy'; did you mean cross_entropy",
    "--output=sigmoid": "outputs of sigmoid do not go with the loss cross_entropy",
    "--init=normal:0": "positive standard deviation",
    "--batch_size=1443": "batch size 1443 is not possible.*1442",
    "--descent=full": "descent.*full",
    "--dataset=digit": "unknown data set 'digit'; did you mean digits",
    "--gradient=foot": "gradient.*foot",
    "--optimizer=sdg": "unknown optimizer 'sdg'; did you mean sgd",
}


@pytest.mark.parametrize("argument", CASES)
def test_one_clear_line(mlp, tmp_path, argument):
    done = mlp("--steps=2", f"--workdir={tmp_path / 'run'}", argument)
    assert done.code == 2 and re.search(CASES[argument], done.err), done.err
    assert len(done.err.splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.fixture
def textbook(load):
    return load("mlp_textbook")[0]


def test_optimizers_reach_minima(textbook, tmp_path, monkeypatch):
    monkeypatch.setattr(textbook, "RATES", (1e-3, 1e-2, 1e-1, 1.0, 10.0))
    found = textbook.optimizers(150)
    for place, by_name in found.items():
        assert list(by_name) == ["sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop", "adam"]
        begin = float(textbook.distance(textbook.SURFACES[place], np.array(textbook.SURFACES[place].start)))
        for told in by_name.values():
            assert len(told["path"]) == 151 and told["distance"] < begin + 1e-3 and told["rate"] in textbook.RATES
    assert found["rosenbrock"]["momentum"]["distance"] < found["rosenbrock"]["sgd"]["distance"]
    assert found["saddle"]["momentum"]["distance"] < 1e-2
    textbook.draw_optimizers(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert len(textbook.tell_optimizers(found)) == 8


def test_who_vanishes_who_explodes_and_who_is_healthy(textbook, tmp_path):
    found = textbook.vanishing(depth=50, width=60, examples=32)
    verdicts = {label: textbook.verdict(told) for label, told in found.items()}
    assert verdicts == {
        "sigmoid, N(0, 0.01^2)": "vanishing",
        "sigmoid, Xavier": "vanishing",  # a slope of 1/4 at most
        "sigmoid, He": "vanishing",
        "sigmoid, N(0, 1)": verdicts["sigmoid, N(0, 1)"],  # between the two, by the width
        "tanh, N(0, 0.01^2)": "vanishing",
        "tanh, Xavier": "healthy",
        "tanh, He": "healthy",
        "tanh, N(0, 1)": "exploding",
        "relu, N(0, 0.01^2)": "vanishing",
        "relu, Xavier": "vanishing",  # half of the variance in every layer
        "relu, He": "healthy",
        "relu, N(0, 1)": "exploding",
    }
    xavier, small, he, large = (
        np.array(found[f"relu, {i}"]["std"]) for i in ("Xavier", "N(0, 0.01^2)", "He", "N(0, 1)")
    )
    assert 0.1 < he[-1] / he[0] < 10
    np.testing.assert_allclose(np.log2(xavier[-1] / he[-1]), -24.5, atol=1)  # sqrt(1/2) a layer
    np.testing.assert_allclose(np.log10(small[-1] / large[-1]), -100, atol=1e-6)  # 1/100 a layer
    kernels, deltas = (np.array(found["relu, Xavier"][what]) for what in ("kernel", "delta"))
    assert kernels.max() < 100 * kernels.min() and deltas.max() > 1e6 * deltas.min()  # as the study's docstring says
    textbook.draw_vanishing(found, tmp_path / "picture.png")
    assert len(textbook.tell_vanishing(found)) == 12


def test_the_variance_of_a_batch_falls_as_told(textbook, tmp_path):
    found = textbook.variance(examples=64, draws=400)
    assert found["size"] == [1, 2, 4, 8, 16, 32, 64]
    np.testing.assert_allclose(found["with replacement"], found["closed with"], rtol=0.1)
    np.testing.assert_allclose(found["without"], found["closed without"], rtol=0.1, atol=1e-8)
    np.testing.assert_allclose(found["closed with"], found["closed with"][0] / np.array(found["size"]), rtol=1e-6)
    textbook.draw_variance(found, tmp_path / "picture.png")


def test_the_landscape(textbook, tmp_path):
    found = textbook.landscape(epochs=4)
    assert {name: len(track) for name, track in found["tracks"].items()} == {
        "batch": 5, "mini-batch of 32": 5, "stochastic": 5,
    }  # fmt: skip
    ends = [losses[-1] for losses in found["losses"].values()]
    assert ends[0] > ends[1] > ends[2] and 0.5 < found["share"] <= 1
    textbook.draw_landscape(found, tmp_path / "picture.png")
    assert len(textbook.tell_landscape(found)) == 3


def test_an_unknown_study(textbook, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["mlp_textbook", "optimisers", f"--out={tmp_path}"])
    with pytest.raises(SystemExit) as left:
        textbook.main()
    assert left.value.code == 2 and "unknown study 'optimisers'; did you mean optimizers" in capsys.readouterr().err
