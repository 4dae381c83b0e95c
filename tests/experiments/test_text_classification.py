"""experiments.text_classification as a user meets it: every model, own texts and vectors, resumption, mistakes."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.models.sequence.text_classifier import RecurrentEncoder, TextClassifier
from dlfx.nn.recurrent import Recurrent
from dlfx.training import checkpoints
from tests.compiling import quick

TINY = [
    "--examples=64", "--batch_size=16", "--steps=8", "--log_every=4", "--eval_every=4", "--checkpoint_every=4",
    "--steps_per_call=2", "--keep=9", "--features=8", "--hidden=8", "--maps=4", "--windows=2,3",
]  # fmt: skip


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("text_classification")
        if not pictures:
            monkeypatch.setattr(module.pictures, "draw", lambda *args, **kwargs: None)
        return experiment("text_classification", *TINY, *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


def own_texts(tmp_path):
    path = tmp_path / "own.tsv"
    lines = [f"{'ABC'[k % 3]}\t{['up', 'down', 'left'][k % 3]} $word{k % 7} {k}" for k in range(120)]
    path.write_text("\n".join(lines))
    return path


def test_a_run_with_pictures_and_own_texts_and_vectors(run, tmp_path):
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("2 3\nup 1 2 3\ndown 2 1 0\n")
    arguments = [f"--text_file={own_texts(tmp_path)}", f"--vectors={vectors}", "--channels=both", "--max_norm=0.1"]
    done = run(f"--workdir={tmp_path / 'run'}", *arguments, pictures=True)
    assert done.code == 0, done.err
    assert "2 of" in done.out and "words have a vector" in done.out
    metrics = {f"{split}_{name}" for split in ("valid", "test") for name in ("loss", "accuracy")}
    assert set(summary(tmp_path / "run")["metrics"]) == metrics
    figures = {figure.name for figure in (tmp_path / "run" / "figures").iterdir()}
    assert figures == {"curves.png", "confusion.png", "lengths.png", "words.png", "speaking.png"}
    state = checkpoints.load_state(tmp_path / "run" / "checkpoints")
    kept = next(value for name, value in state.items() if "static" in name)
    assert [1, 2, 3] in kept.tolist() and [2, 1, 0] in kept.tolist()
    kernel = next(value for name, value in state.items() if "params" in name and "out" in name and "kernel" in name)
    assert np.linalg.norm(kernel, axis=0).max() <= 0.1 + 1e-6


def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(run, tmp_path):
    arguments = [f"--workdir={tmp_path}", "--model=rnn", "--parallel=pmap"]
    done = run(*arguments)
    assert done.code == 0, done.err
    wanted = summary(tmp_path)["params_sha256"]
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    done = run(*arguments)
    assert done.code == 0 and "resuming after step 4" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted


def test_a_population(run, tmp_path):
    done = run(f"--workdir={tmp_path}", "--model=transformer", "--num_seeds=2", "--eval_every=8", pictures=True)
    assert done.code == 0, done.err
    assert len(summary(tmp_path)["metrics"]["test_accuracy"]["values"]) == 2


def test_which_words_count(load):
    load("text_classification")
    from experiments import text_classification_figures as pictures

    model = TextClassifier(9, 3, 4, RecurrentEncoder(Recurrent("rnn", 5)))
    tokens, lengths = jnp.array([[3, 4, 5, 0], [6, 7, 0, 0]]), jnp.array([3, 2])
    variables = quick(model.init)(jax.random.key(0), tokens, lengths)
    fall = quick(partial(pictures.erasure, model))(variables, tokens[0], lengths[0], 1)
    probability = [jax.nn.softmax(model.apply(variables, jnp.array([row])))[0, 1] for row in ([3, 4, 5], [3, 5])]
    np.testing.assert_allclose(fall[1], probability[0] - probability[1], rtol=1e-4, atol=1e-6)
    # Gradient x vector is the derivative of the logit as the word grows: x d/dx.
    shares = quick(partial(pictures.gradient_shares, model))(variables, tokens, lengths)
    x = model.apply(variables, tokens, method="embed")

    def logit(size):
        logits = model.apply(variables, x.at[1, 0].multiply(size), lengths, method="classify")[1]
        return logits[2] - logits.mean()

    np.testing.assert_allclose(shares[1, 0, 2], quick(jax.grad(logit))(1.0), rtol=1e-4)
    assert not np.any(shares[1, 2:])
    assert pictures.wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_limit_on_norms_is_a_projection(load):
    module, _ = load("text_classification")
    rule = module.limited(optax.sgd(1.0), 2.0)
    params = {"out": {"kernel": jnp.array([[3.0, 0.1], [0.0, 0.0]])}, "other": jnp.ones(2)}
    gradient = {"out": {"kernel": jnp.array([[-1.0, 0.0], [-3.0, -0.5]])}, "other": jnp.ones(2)}
    updates, _ = rule.update(gradient, rule.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(after["out"]["kernel"], [[1.6, 0.1], [1.2, 0.5]], rtol=1e-6)
    assert not after["other"].any()


CASES = {
    "--model=textccn": "unknown model 'textccn'; did you mean textcnn",
    "--channels=static": "--channels=static keeps word vectors.*needs --vectors=FILE",
    "--windows=3,x": "--windows=3,x must be whole numbers",
    "--windows=0": "windows.*at least 1",
    "--model=transformer --hidden=6 --heads=4": "--hidden=6 must be even and divisible by --heads=4",
    "--accumulate=3": "--accumulate=3 does not divide",
    "--batch_size=65": "batch size 65 is not possible: there are 64",
    "--text_file=/nowhere": "there is no text file /nowhere",
    "--vectors=/nowhere": "there is no text file /nowhere",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err


def test_texts_of_one_label_are_refused(run, tmp_path):
    (tmp_path / "own.tsv").write_text("\n".join(f"A\ttext {k}" for k in range(50)))
    done = run(f"--workdir={tmp_path / 'run'}", f"--text_file={tmp_path / 'own.tsv'}")
    assert done.code == 2 and "has 1 labels in" in done.err
