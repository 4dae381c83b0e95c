"""experiments.rl_tabular as a user meets it: every algorithm, resumption, populations, pictures, mistakes, recipes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from dlfx.training import checkpoints, rundir
from dlfx.types import UserError
from experiments import rl_tabular_textbook as textbook

ROOT = Path(__file__).parents[2]
TINY = [
    "--env=cliff", "--env_steps=400", "--unroll=50", "--max_steps=40", "--episodes=8", "--sweeps=8", "--log_every=2",
    "--eval_every=4", "--checkpoint_every=4", "--eval_episodes=2", "--eval_max_steps=30",
]  # fmt: skip


@pytest.fixture
def rl_tabular(experiment):
    """`rl_tabular(*arguments)`: `experiment` on the tiny configuration."""
    return lambda *arguments, base=TINY: experiment("rl_tabular", *base, *arguments)


@pytest.fixture
def without_pictures(monkeypatch):
    from experiments import rl_tabular_figures

    monkeypatch.setattr(rl_tabular_figures, "draw", lambda *args, **kwargs: None)


def summary(path):
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize(
    "algorithm",
    [
        "td_zero",
        "td_lambda",
        "n_step_sarsa",
        "dyna_q_plus",
        "monte_carlo_control",
        "value_iteration",
        "policy_iteration",
    ],
)
def test_every_kind_of_algorithm_runs_to_its_summary(rl_tabular, tmp_path, algorithm, without_pictures):
    env = "random_walk" if algorithm == "policy_iteration" else "cliff"
    code, _, err = rl_tabular(f"--algorithm={algorithm}", f"--workdir={tmp_path}", "--gamma=0.9", f"--env={env}")
    assert code == 0, err
    metrics = summary(tmp_path)["metrics"]
    if algorithm.startswith("td"):
        assert set(metrics) == {"eval_rms_loss", "online_return"}
    else:
        assert {"eval_return", "eval_length", "eval_success"} <= set(metrics)
        assert ("online_return" in metrics) == ("iteration" not in algorithm)
    if algorithm == "policy_iteration":
        assert metrics["eval_length"] == 3 and metrics["eval_return"] == metrics["eval_success"] == 1
    steps = [row["step"] for row in rundir.read_metrics(tmp_path) if row["split"] == "train"]
    assert steps == [2, 4, 6, 8]


def test_every_name_makes_a_learner(rl_tabular, monkeypatch):
    from dlfx.envs import worlds
    from experiments import rl_tabular_rules as rules

    with flagsaver.flagsaver():
        flags.FLAGS(["rl_tabular", *TINY])
        for name in [*rules.PREDICTION, *rules.CONTROL]:
            flags.FLAGS.algorithm = name
            learner, values_of, steps, block = rules.make(worlds.world("cliff"))
            assert steps == 8 and callable(values_of) and block in (0, 50), name
        flags.FLAGS.algorithm = "sarsa"
        for name in rules.POLICIES:
            flags.FLAGS.policy = name
            rules.make(worlds.world("cliff"))
        for kind in rules.SCHEDULES:
            flags.FLAGS.alpha_schedule = kind
            assert 0 < float(rules.schedule("alpha").value(np.int32(400), np.float32(1))) <= 1


def test_the_online_return_is_of_the_last_tenth(rl_tabular, tmp_path, without_pictures):
    code, _, err = rl_tabular(f"--workdir={tmp_path}", "--env_steps=1000", "--log_every=1", "--num_seeds=2")
    assert code == 0, err
    rows = [row for row in rundir.read_metrics(tmp_path) if row["split"] == "train" and row["step"] > 18]
    assert [row["step"] for row in rows] == [19, 20]
    wanted = [np.mean([row[f"return/seed{seed}"] for row in rows]) for seed in (0, 1)]
    np.testing.assert_allclose(summary(tmp_path)["metrics"]["online_return"]["values"], wanted)


def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(rl_tabular, tmp_path, without_pictures):
    import shutil

    arguments = [f"--workdir={tmp_path}", "--num_seeds=2", "--algorithm=sarsa", "--alpha_schedule=visits"]
    assert rl_tabular(*arguments)[0] == 0
    wanted, rows = summary(tmp_path), (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    code, out, _ = rl_tabular(*arguments)
    assert code == 0 and "resuming after step 4" in out
    assert summary(tmp_path)["params_sha256"] == wanted["params_sha256"]
    assert summary(tmp_path)["metrics"] == wanted["metrics"]
    assert (tmp_path / "metrics.jsonl").read_text() == rows


def test_a_population_equals_its_members_alone(rl_tabular, tmp_path, without_pictures):
    assert rl_tabular(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", "--seed=3")[0] == 0
    together = checkpoints.load_state(tmp_path / "all" / "checkpoints")
    for member, seed in enumerate((3, 4)):
        assert rl_tabular(f"--workdir={tmp_path / str(seed)}", f"--seed={seed}")[0] == 0
        for name, value in checkpoints.load_state(tmp_path / str(seed) / "checkpoints").items():
            np.testing.assert_allclose(together[name][member], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_pictures_of_control_and_prediction(rl_tabular, tmp_path):
    code, _, err = rl_tabular(f"--workdir={tmp_path / 'control'}", "--num_seeds=3")
    assert code == 0, err
    drawn = {figure.name for figure in (tmp_path / "control" / "figures").iterdir()}
    assert drawn == {"curves.png", "train_return.png", "eval_return.png", "values.png", "episode.gif"}
    code, _, err = rl_tabular(f"--workdir={tmp_path / 'prediction'}", "--env=random_walk", "--algorithm=td_zero")
    assert code == 0, err
    drawn = {figure.name for figure in (tmp_path / "prediction" / "figures").iterdir()}
    assert drawn == {"curves.png", "train_return.png", "eval_rms_loss.png", "values.png"}


MISTAKES = {
    "--algorithm=q_lerning": "unknown algorithm 'q_lerning'; did you mean q_learning",
    "--env=clif": "unknown world 'clif'; did you mean cliff",
    "--policy=epsilon": "unknown policy 'epsilon'; did you mean epsilon_greedy",
    "--gamma=1.5": "gamma=1.5 .* between 0 and 1",
    "--gamma=-0.1": "gamma=-0.1 .* between 0 and 1",
    "--algorithm=dyna_q --planning_steps=193": "planning_steps=193 is more than the model can hold.*192",
    "--algorithm=td_lambda --trace_decay=2": "trace_decay=2",
    "--algorithm=n_step_td --n=0": "n=0",
    "--algorithm=monte_carlo_control --max_steps=0": "cliff sets no limit of steps.*max_steps",
    "--alpha=2": "alpha.*2",
    "--env_steps=0": "env_steps",
    "--algorithm=td_zero --gamma=1 --env=gridworld5x5": "with gamma 1 this policy has no values",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_one_clear_line(rl_tabular, tmp_path, arguments):
    path = tmp_path / "run"
    code, _, err = rl_tabular(f"--workdir={path}", *arguments.split())
    assert code == 2 and re.search(MISTAKES[arguments], err), err
    assert len(err.strip().splitlines()) == 1 and not path.exists()


def test_the_textbook_studies(tmp_path):
    """Planning saves steps: 50 planning steps learn the maze in its first episodes."""
    found = textbook.dyna(seeds=4, steps=24_000, episodes=6)
    assert found["50 planning steps"][:, 1:].mean() < 0.3 * found["0 planning steps"][:, 1:].mean()
    textbook.draw("dyna", found, tmp_path / "dyna.png")
    assert (tmp_path / "dyna.png").stat().st_size > 10_000 and len(textbook.tell("dyna", found)) == 3
    with pytest.raises(UserError, match="ended only .* of 500 episodes"):
        textbook.cliff(seeds=2, steps=300)


def test_per_episode_keeps_the_first_ones():
    metrics = {
        "episodes": np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0]]),
        "length": np.array([[0, 2, 1, 1, 2], [1, 1, 1, 3, 3]]),
    }
    np.testing.assert_array_equal(textbook.per_episode(metrics, "length", 2), [[2, 1], [1, 3]])
