"""experiments.perceptron as a user meets it: the worked example to six decimals, XOR, the pocket, files, mistakes."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from dlfx.training import checkpoints, rundir

RATE = ["--rate=0.5", "--epochs=8"]

# W(0) ... W(15) of the worked example.
WEIGHTS = [
    [0.5, 1, -1, 0],
    *[[0.7, 0.8, -0.6, 0]] * 2,
    [0.5, 0.6, -0.4, 0.1],
    *[[0.7, 0.4, 0, 0.1]] * 2,
    *[[0.5, 0.2, 0.2, 0.2]] * 3,
    *[[0.3, 0, 0.4, 0.3]] * 2,
    [0.5, 0, 0.1, 0.4],
    *[[0.3, -0.2, 0.3, 0.5]] * 4,
]


@pytest.fixture
def perceptron(experiment):
    return lambda *arguments: experiment("perceptron", *arguments)


@pytest.fixture
def without_pictures(monkeypatch):
    from experiments import perceptron_figures

    monkeypatch.setattr(perceptron_figures, "draw", lambda *args, **kwargs: None)


@pytest.fixture
def float64():
    yield
    jax.config.update("jax_enable_x64", False)  # which --precision=float64 leaves on


def summary(path):
    return json.loads((path / "summary.json").read_text())


def records(path):
    return [json.loads(line) for line in (path / "weights.jsonl").read_text().splitlines()]


def test_without_flags_it_is_the_worked_example(perceptron, tmp_path):
    code, out, err = perceptron(f"--workdir={tmp_path}")
    assert code == 0, err
    lines = records(tmp_path)
    np.testing.assert_allclose([line["weights"] for line in lines], WEIGHTS, atol=5e-7)
    np.testing.assert_allclose([line["net"] for line in lines[1:4]], [2.5, -1.6, -2.1], atol=5e-7)
    assert [line["sample"] for line in lines[1:]] == [1, 2, 3] * 5
    assert [line["epoch"] for line in lines[1:]] == [k // 3 + 1 for k in range(15)]
    np.testing.assert_allclose(np.cumsum([WEIGHTS[0], *[e["update"] for e in lines[1:]]], 0), WEIGHTS, atol=2e-6)

    # What is printed: the nets, outputs and weights of three rows by hand, then all W(k).
    table = [re.split(r"  +", line) for line in out.splitlines() if re.match(r"\d+  ", line)]
    assert table[1] == [
        "1",
        "1",
        "X1",
        "(-1, 1, -2, 0)",
        "-1",
        "2.5",
        "+1",
        "(0.2, -0.2, 0.4, 0)",
        "(0.7, 0.8, -0.6, 0)",
    ]
    assert table[2][4:] == ["-1", "-1.6", "-1", "none", "(0.7, 0.8, -0.6, 0)"]
    assert table[3][4:] == ["+1", "-2.1", "-1", "(-0.2, -0.2, 0.2, 0.1)", "(0.5, 0.6, -0.4, 0.1)"]
    assert [row[-1] for row in table] == [f"({', '.join(f'{w:g}' for w in weights)})" for weights in WEIGHTS]
    assert "W(12) = (0.3, -0.2, 0.3, 0.5) gets all 3 rows right; epoch 5 is the first without an error." in out
    text = (tmp_path / "weights.txt").read_text()
    assert text.strip() in out

    found = summary(tmp_path)["metrics"]
    assert found == {"train_errors": 0, "train_error": 0, "train_accuracy": 1, "converged": 1, "convergence_step": 12}
    drawn = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert drawn == {"curves.png", "errors.png", "weights.png", "weights.gif"}

    again = perceptron(f"--workdir={tmp_path}")
    assert again.code == 0 and "finished" in again.out and text.strip() in again.out


@pytest.mark.parametrize("name", ["and", "or", "nand", "not"])
def test_gates_are_learned(perceptron, tmp_path, without_pictures, name):
    code, out, err = perceptron(f"--workdir={tmp_path}", f"--data={name}", *RATE, "--activation=step")
    assert code == 0, err
    found = summary(tmp_path)["metrics"]
    assert found["train_errors"] == 0 and found["converged"] == 1 and 0 < found["convergence_step"] < 32
    made, allowed = map(int, re.search(r"took (\d+) corrections; the convergence theorem allows (\d+)", out).groups())
    assert 0 < made <= allowed < 100


def test_xor_is_not_and_two_layers_are(perceptron, tmp_path):
    code, out, err = perceptron(f"--workdir={tmp_path}", "--data=xor", *RATE)
    assert code == 0, err
    found = summary(tmp_path)["metrics"]
    assert found["train_errors"] >= 1 and found["converged"] == 0 and "convergence_step" not in found
    assert found["two_layers_errors"] == 0
    assert "not separated after 8 epochs: 1 of 4 rows are wrong" in out
    assert "No single unit can get every row right: linear programming finds no weights that do." in out
    assert "The weights return after every epoch" in out and "together: 0 of 4 rows of XOR are wrong" in out
    drawn = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert drawn == {"curves.png", "errors.png", "boundary.png", "boundary.gif", "two_layers.png"}


def test_without_proof_nothing_is_claimed(perceptron, tmp_path, without_pictures, monkeypatch):
    from experiments import perceptron_history

    monkeypatch.setattr(perceptron_history, "margin", lambda table: None)
    code, out, _ = perceptron(f"--workdir={tmp_path}", "--data=overlap", "--shuffle", "--epochs=2")
    assert code == 0 and "It did not converge; whether any weights get every row right is not known." in out
    assert "No single unit" not in out and "The weights return" not in out


def test_margins_are_found_by_linear_programming():
    from dlfx.data import gates
    from experiments import perceptron_history

    assert perceptron_history.margin(gates.gate("xor")) == perceptron_history.margin(gates.load("overlap")) == 0
    # Of AND the widest margin is 1 / sqrt(3), of W = (1, 1, 1).
    np.testing.assert_allclose(perceptron_history.margin(gates.gate("and")), 3**-0.5)
    assert perceptron_history.margin(gates.load("clouds")) > 0.05
    wide = gates.table("wide", np.array([[1e6], [-1e6]]), np.array([1.0, -1.0]))
    assert perceptron_history.margin(wide) > 1e5
    thin = gates.table("thin", np.array([[1.0], [1.0 + 1e-8]]), np.array([1.0, -1.0]))
    assert perceptron_history.margin(thin) is None


def test_a_cycle_of_weights_is_seen():
    from dlfx.data import gates
    from experiments import perceptron_history as history

    table = gates.gate("xor")
    weights = np.array([[9.0, 9, 9], *[[k % 3, 0, 0] for k in range(1, 9)]]).repeat(4, 0)[:33]
    plain = np.zeros(32)
    seen = history.History(np.arange(32) % 4, plain == 0, plain, plain, weights, None, None)
    ended = history.outcome(seen, table, "sign", shuffle=False)
    assert ended.period == 3 and ended.converged is ended.clean is None and ended.mistakes.tolist() == [4] * 8
    assert history.outcome(seen, table, "sign", shuffle=True).period is None


def test_the_pocket_is_kept_and_told(perceptron, tmp_path):
    arguments = ["--data=overlap", "--pocket", "--shuffle", "--epochs=5", "--steps_per_call=50", "--num_seeds=2"]
    code, out, err = perceptron(f"--workdir={tmp_path}", *arguments)
    assert code == 0, err
    found = summary(tmp_path)["metrics"]
    assert all(
        a <= b for a, b in zip(found["train_errors"]["values"], found["train_last_errors"]["values"], strict=True)
    )
    state = checkpoints.load_state(tmp_path / "checkpoints")
    assert state["pocket"].shape == (2, 3) and state["pocket_errors"].tolist() == found["train_errors"]["values"]
    params = {name: value for name, value in state.items() if name == "pocket"}
    assert checkpoints.digest(params) == summary(tmp_path)["params_sha256"] and summary(tmp_path)["params"] == 3
    lines = records(tmp_path)
    np.testing.assert_allclose(lines[-1]["pocket"], state["pocket"][0], atol=1e-6)
    assert len(lines) == 301 and lines[-1]["pocket_errors"] == found["train_errors"]["values"][0]
    assert "In the pocket since W(" in out and "0 of 2 seeds got every row right." in out and "lines more in" in out
    drawn = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert drawn == {"curves.png", "errors.png", "boundary.png", "boundary.gif"}


def test_a_population_equals_its_members_and_a_batch_its_rows(perceptron, tmp_path, without_pictures, float64):
    arguments = ["--data=clouds", "--init=normal", "--shuffle", "--epochs=2", "--precision=float64"]
    assert perceptron(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", "--seed=3", *arguments).code == 0
    together = checkpoints.load_state(tmp_path / "all" / "checkpoints")["weights"]
    assert together.dtype == np.float64
    for member, seed in enumerate((3, 4)):
        path, more = tmp_path / str(seed), ["--batch_size=8", "--steps_per_call=5"]
        assert perceptron(f"--workdir={path}", f"--seed={seed}", *more, *arguments).code == 0
        np.testing.assert_allclose(checkpoints.load_state(path / "checkpoints")["weights"], together[member], rtol=1e-9)
    code = perceptron(f"--workdir={tmp_path / 'pmap'}", "--seed=3", "--parallel=pmap", *arguments).code
    assert code == 0
    pmapped = checkpoints.load_state(tmp_path / "pmap" / "checkpoints")["weights"]
    np.testing.assert_allclose(pmapped, together[0], rtol=1e-9)


def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(perceptron, tmp_path, without_pictures):
    arguments = [f"--workdir={tmp_path}", "--data=overlap", "--epochs=2", "--pocket", "--checkpoint_every=60"]
    assert perceptron(*arguments).code == 0
    wanted, rows = summary(tmp_path), (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "120")
    code, out, _ = perceptron(*arguments)
    assert code == 0 and "resuming after step 60" in out
    assert summary(tmp_path)["params_sha256"] == wanted["params_sha256"]
    assert summary(tmp_path)["metrics"] == wanted["metrics"]
    assert (tmp_path / "metrics.jsonl").read_text() == rows and rundir.read_metrics(tmp_path)


def test_a_file_of_the_user(perceptron, tmp_path):
    file = tmp_path / "fruit.csv"
    file.write_text("weight,width,apple\n" + "".join(f"{100 + 9 * i},{i % 3},{int(i > 3)}\n" for i in range(8)))
    path = tmp_path / "run"
    code, out, err = perceptron(f"--workdir={path}", f"--data={file}", "--standardize", "--epochs=50")
    assert code == 0, err
    assert summary(path)["metrics"]["train_errors"] == 0 and "gets all 8 rows right" in out
    assert (path / "figures" / "boundary.gif").exists()


MISTAKES = {
    "--data=nandd": "unknown data set 'nandd'; did you mean nand",
    "--data=/nowhere/a.csv": "/nowhere/a.csv cannot be read",
    "--rate=0": "rate of 0 .* above 0",
    "--activation=sgn": "activation.*sgn",
    "--data=and --init=notes": "--init=notes is of 4 weights.*--data=and needs 3",
    "--precision=bfloat16": "precision=bfloat16",
    "--epochs=0": "epochs",
    "--batch_size=0": "batch_size",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_one_clear_line(perceptron, tmp_path, arguments):
    path = tmp_path / "run"
    code, _, err = perceptron(f"--workdir={path}", *arguments.split())
    assert code == 2 and re.search(MISTAKES[arguments], err), err
    assert len(err.strip().splitlines()) == 1 and not path.exists()
