"""experiments.dqn and experiments.policy_gradient as a user meets them: what a run leaves, resumption, mistakes."""

import json
import re
import signal

import pytest
from PIL import Image

from dlfx.training import rundir

SHARED = [
    "--eval_episodes=2", "--widths=8", "--log_every=4", "--eval_every=8", "--checkpoint_every=8", "--keep=1",
]  # fmt: skip
TINY = {
    "dqn": [
        *SHARED, "--env_steps=320", "--num_envs=2", "--train_every=4", "--batch_size=8", "--capacity=160",
        "--learning_starts=64", "--target_every=16",
    ],
    "policy_gradient": [*SHARED, "--env_steps=320", "--num_envs=2", "--unroll=8", "--epochs=2", "--minibatches=2"],
}  # fmt: skip


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(name, *arguments)`: `experiment` on the tiny configuration, its flags as in a process of its own."""

    def tiny(name, *arguments, pictures=True):
        module, _ = load(name)
        if not pictures:
            monkeypatch.setattr(module.agents, "draw_figures", lambda *args, **kwargs: None)
        return experiment(name, *TINY[name], *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


DIRECTORIES = {}  # of finished runs, as long as this file is being tested


@pytest.fixture
def finished(run, tmp_path_factory):
    """`finished(name)`: the directory of a finished run."""

    def directory(name):
        if name not in DIRECTORIES:
            path = tmp_path_factory.mktemp(name)
            done = run(name, f"--workdir={path}")
            assert done.code == 0, done.err
            DIRECTORIES[name] = path
        return DIRECTORIES[name]

    return directory


@pytest.mark.parametrize("name", TINY)
def test_a_run_leaves_its_metrics_and_its_pictures(finished, name):
    path = finished(name)
    told = summary(path)
    assert told["steps"] == (40 if name == "dqn" else 20)
    assert 5 <= told["metrics"]["eval_return"] <= 500
    assert told["metrics"]["eval_length"] == told["metrics"]["eval_return"]  # CartPole gives 1 for every step
    expected = (1 - 0.99 ** told["metrics"]["eval_return"]) / 0.01
    assert told["metrics"]["eval_discounted"] == pytest.approx(expected, rel=0.05)  # of two lengths that differ
    rows = rundir.read_metrics(path)
    returns = [row["return"] for row in rows if row["split"] == "eval"]
    assert told["best"]["eval_return"] == max(returns) and told["metrics"]["eval_return"] == returns[-1]
    last = [row for row in rows if row["split"] == "train"][-1]
    assert last["episodes"] >= 2 and last["return"] > 5
    if name == "dqn":
        # Of linear 1 to 0.05 over the first half; before its 64th step it does not learn.
        epsilon = {row["step"]: row["epsilon"] for row in rows if row["split"] == "train"}
        assert epsilon[40] == pytest.approx(0.05) and 0.5 < epsilon[8] < 1
        assert told["params"] == 5 * 8 + 9 * 2
    for picture in ("curves.png", "eval_return.png", "train_return.png", "overestimation.png", "episode.png"):
        with Image.open(path / "figures" / picture) as image:
            assert min(image.size) > 100
    with Image.open(path / "figures" / "episode.gif") as animation:
        assert animation.n_frames >= 5


def stopped(run, name, *arguments):
    """A run that gets SIGTERM in the middle, just as it writes the line of step 12: the step that it says it got to."""
    opened = rundir.open_run

    def open_run(*args, **kwargs):
        directory = opened(*args, **kwargs)

        def log(step, split, scalars):
            directory.log(step, split, scalars)
            if step == 12:
                signal.raise_signal(signal.SIGTERM)

        return directory._replace(log=log)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rundir, "open_run", open_run)
        done = run(name, *arguments, pictures=False)
    assert done.code == 128 + signal.SIGTERM and "stopped by SIGTERM after step" in done.err, done
    return int(done.err.split("after step ")[1].split(",")[0])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("dqn", []),
        ("dqn", ["--num_seeds=2", "--priority=0.6", "--n_step=3"]),
        ("policy_gradient", []),
    ],
)
def test_a_run_that_was_stopped_ends_in_the_bits_of_one_that_was_not(run, finished, tmp_path, name, arguments):
    whole = finished(name)
    if arguments:
        whole = tmp_path / "whole"
        done = run(name, f"--workdir={whole}", *arguments, pictures=False)
        assert done.code == 0, done.err
    path = tmp_path / "stopped"
    step = stopped(run, name, f"--workdir={path}", *arguments)
    assert 12 <= step < 20 and not (path / "summary.json").exists()
    done = run(name, f"--workdir={path}", *arguments, pictures=False)
    assert done.code == 0 and f"resuming after step {step}" in done.out, done
    assert summary(path)["params_sha256"] == summary(whole)["params_sha256"]
    assert summary(path)["metrics"] == summary(whole)["metrics"]
    assert (path / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    if arguments:
        values = summary(path)["metrics"]["eval_q"]["values"]
        assert len(values) == 2 and values[0] != values[1]


@pytest.mark.parametrize("name", TINY)
def test_eval_only_evaluates_the_best_and_the_last_checkpoint(run, finished, name):
    path = finished(name)
    done = run(name, f"--workdir={path}", "--eval_only")
    assert done.code == 0, done.err
    told, found = summary(path), json.loads((path / "evaluation.json").read_text())
    # With the episodes of training's own evaluation, so that the numbers are the same.
    assert found["last"]["step"] == told["steps"] and found["last"]["return"] == told["metrics"]["eval_return"]
    assert found["best"]["step"] == told["best"]["step"] and found["best"]["return"] == told["best"]["eval_return"]
    for label in ("last", "best"):
        assert re.search(rf"^{label}, step {found[label]['step']}: return {found[label]['return']:.4f}", done.out, re.M)
    assert "holds this run" not in done.out and not (path / "evaluation.json.tmp").exists()


def test_eval_only_takes_what_is_not_told_from_the_run(run, finished, monkeypatch):
    """Its network, its environment and so on; the number of episodes may be another."""
    path = finished("dqn")
    monkeypatch.setitem(TINY, "dqn", [])
    done = run("dqn", f"--workdir={path}", "--eval_only", "--eval_episodes=3")
    assert done.code == 0, done.err
    assert json.loads((path / "evaluation.json").read_text())["last"]["episodes"] == 3
    done = run("dqn", f"--workdir={path}", "--eval_only", "--dueling")
    assert done.code == 2 and "is of another agent than these flags describe" in done.err


def test_a_finished_run_is_not_run_again(run, finished):
    done = run("dqn", f"--workdir={finished('dqn')}")
    assert done.code == 0 and "holds this run, finished: eval_return" in done.out


def test_an_environment_of_gymnasium(run, tmp_path):
    done = run("dqn", "--env=gymnasium:CartPole-v1", "--env_steps=64", "--seed=3", f"--workdir={tmp_path}")
    assert done.code == 0, done.err
    assert summary(tmp_path)["metrics"]["eval_return"] >= 5 and (tmp_path / "figures" / "episode.gif").exists()


def test_a_table_and_reinforce(run, tmp_path):
    """Where episodes are cut by --eval_max_steps, which is then how far REINFORCE looks too."""
    arguments = ["--algorithm=reinforce", "--env=cliff", "--unroll=-1", "--eval_max_steps=10", "--env_steps=200"]
    done = run(
        "policy_gradient", *arguments, "--epochs=-1", "--minibatches=-1", f"--workdir={tmp_path}", pictures=False
    )
    assert done.code == 0, done.err
    assert summary(tmp_path)["steps"] == 10 and summary(tmp_path)["metrics"]["eval_length"] <= 10


BOTH = {
    "--env=CartPol-v1": "unknown environment 'CartPol-v1'; did you mean CartPole-v1",
    "--env=Pendulum-v1": "the actions of 'Pendulum-v1' are continuous; those with discrete actions are CartPole-v1",
    "--env=gymnasium:Pendulum-v1": "the actions of 'Pendulum-v1' are Box.*discrete",
    "--gamma=1.5": "--gamma=1.5 is no discount: it lies between 0 and 1",
    "--widths=a,b": "--widths=a,b must be positive whole numbers, such as 120,84",
    "--eval_only": "no .*flags.txt",
}
CASES = {
    "dqn": BOTH
    | {
        "--env=gymnasium:CartPol-v1": "gymnasium has no environment 'CartPol-v1'; the closest are .*CartPole-v1",
        "--gamma=-0.1": "--gamma=-0.1 is no discount",
        "--widths=8,0": "--widths=8,0 must be positive",
        "--torso=nature_cnn": r"at least 36x36, not observations \(4,\)",
        "--num_envs=0": "num_envs.*0",
        "--optimizer=adm": "unknown optimizer 'adm'; did you mean adam",
        "--monitor=eval_retrun": "eval_retrun.*did you mean eval_return",
        "--capacity=4 --train_every=1": "a replay of 4 transitions is smaller than a batch of 8",
        "--capacity=100": "a replay of 100 transitions is not a multiple of the 8 .*; try 96 or 104",
        "--capacity=16 --n_step=8": "a replay of 16 transitions is too small for 8 steps of 2 environments",
        "--distribution=categorical --v_min=3 --v_max=3": "--v_min=3 must be below --v_max=3",
        "--batch_siez=8": "batch_siez.*batch_size",
    },
    "policy_gradient": BOTH
    | {
        "--minibatches=3": "3 minibatches do not divide the 16 transitions",
        "--minibatches=0": "--minibatches=0 must be at least 1",
        "--epochs=0": "--epochs=0 must be at least 1",
        "--unroll=0": "--unroll=0 must be at least 1",
        "--algorithm=pro": "algorithm.*pro",
    },
}


@pytest.mark.parametrize(("name", "arguments"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_a_mistake_gets_one_clear_line(run, tmp_path, name, arguments):
    path = tmp_path / "run"
    done = run(name, f"--workdir={path}", *arguments.split(), pictures=False)
    assert done.code == 2 and len(done.err.splitlines()) == 1, done
    assert re.search(CASES[name][arguments], done.err), done.err
    assert "monitor" in arguments or not path.exists()


@pytest.mark.parametrize("name", TINY)
def test_eval_only_without_a_workdir(run, name):
    done = run(name, "--eval_only")
    assert done.code == 2 and re.fullmatch(r"error: --eval_only needs the --workdir of a run.*\n", done.err)
