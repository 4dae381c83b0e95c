"""experiments.cnn as a user meets it: the run directory, resumption, populations, pictures."""

import json
import re
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints, rundir

SUMMARY = {
    "experiment", "flags", "seed", "steps", "metrics", "best", "params", "params_sha256", "wall_seconds",
    "compile_seconds", "steps_per_second", "devices", "versions", "git_commit",
}  # fmt: skip


def summary(path):
    return json.loads((path / "summary.json").read_text())


FINISHED = ["--steps=24", "--checkpoint_every=8", "--augment=flip,crop:1"]


@pytest.fixture(scope="module")
def kept():
    """What `finished` gives, once it is there."""
    return []


@pytest.fixture
def finished(cnn, kept, tmp_path_factory):
    """(the directory of a finished run that no test may change, what it said)."""
    if not kept:
        path = tmp_path_factory.mktemp("finished") / "run"
        done = cnn(f"--workdir={path}", *FINISHED)
        assert done.code == 0, done.err
        kept.append((path, done))
    return kept[0]


@pytest.fixture
def copied(finished, tmp_path):
    """A directory of that run for a test of its own."""
    return shutil.copytree(finished[0], tmp_path / "run")


def test_the_run_directory_is_as_designed(finished):
    path, done = finished
    assert {entry.name for entry in path.iterdir() if not entry.name.startswith(".")} == {
        "flags.txt", "metrics.jsonl", "tensorboard", "checkpoints", "figures", "summary.json",
    }  # fmt: skip
    found = summary(path)
    assert set(found) == SUMMARY
    assert found["experiment"] == "cnn" and found["steps"] == 24 and found["seed"] == 0
    assert set(found["metrics"]) == {"test_loss", "test_accuracy"}
    assert found["best"]["step"] in (8, 16, 24) and found["best"]["test_accuracy"] >= found["metrics"]["test_accuracy"]
    assert found["flags"]["augment"] == "flip,crop:1" and found["versions"]["jax"]
    rows = rundir.read_metrics(path)
    assert [row["step"] for row in rows if row["split"] == "train"] == [4, 8, 12, 16, 20, 24]
    assert [row["step"] for row in rows if row["split"] == "test"] == [8, 16, 24]
    assert all(isinstance(value, int | float) for row in rows for name, value in row.items() if name != "split")
    assert {figure.name for figure in (path / "figures").iterdir()} >= {
        "curves.png", "confusion.png", "mistakes.png", "filters.png", "features.png",
    }  # fmt: skip
    assert list((path / "tensorboard").glob("events*"))
    assert f"test_accuracy {found['metrics']['test_accuracy']:.4f}" in done.out


def test_the_digest_is_of_the_checkpointed_parameters(finished):
    path, _ = finished
    saved = checkpoints.load_state(path / "checkpoints")
    params = {name: value for name, value in saved.items() if name.startswith("params/")}
    assert checkpoints.digest(params) == summary(path)["params_sha256"]
    assert sum(value.size for value in params.values()) == summary(path)["params"]


def test_a_finished_run_is_reported_and_left_alone(cnn, finished):
    path, _ = finished
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file() and not f.name.startswith(".")}
    again = cnn(f"--flagfile={path / 'flags.txt'}", base=[])
    assert again.code == 0 and "finished" in again.out and "test_accuracy" in again.out
    assert before == {f: f.stat().st_mtime_ns for f in path.rglob("*") if f.is_file() and not f.name.startswith(".")}


def test_flags_txt_is_the_same_run(cnn, finished, tmp_path):
    path, _ = finished
    other = tmp_path / "other"
    assert cnn(f"--flagfile={path / 'flags.txt'}", f"--workdir={other}", base=[], pictures=False).code == 0
    assert summary(other)["params_sha256"] == summary(path)["params_sha256"]


def test_other_flags_are_refused_by_name_and_free_ones_are_not(cnn, copied):
    done = cnn(f"--workdir={copied}", "--steps=24", "--augment=flip,crop:1", "--learning_rate=0.5", "--model=resnet20")
    assert done.code == 2 and "Traceback" not in done.err
    assert "--learning_rate" in done.err and "--model" in done.err and "--keep" not in done.err
    assert cnn(f"--workdir={copied}", "--steps=24", "--augment=flip,crop:1", "--keep=1").code == 0


def test_the_default_directory_follows_from_the_flags(cnn, monkeypatch, tmp_path):
    from experiments import common

    monkeypatch.setattr(common, "ROOT", tmp_path)
    for seed in (0, 0, 1):
        assert cnn("--steps=2", f"--seed={seed}", pictures=False).code == 0
    assert len(list((tmp_path / "runs" / "cnn").iterdir())) == 2


def test_a_damaged_checkpoint_is_passed_over_and_the_result_is_the_same(cnn, copied):
    path = copied
    wanted = summary(path)
    (path / "summary.json").unlink()
    for step in (24, 16):  # leaves 8, the first
        if not (path / "checkpoints" / str(step)).exists():
            continue
        for file in (path / "checkpoints" / str(step)).rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    done = cnn(f"--workdir={path}", *FINISHED, pictures=False)
    assert done.code == 0 and "checkpoint 24 is damaged" in done.out and "going back" in done.out
    got = summary(path)
    assert got["params_sha256"] == wanted["params_sha256"] and got["metrics"] == wanted["metrics"]
    steps = [(row["step"], row["split"]) for row in rundir.read_metrics(path)]
    assert len(steps) == len(set(steps)) == 9


def test_one_flipped_bit_in_a_checkpoint_is_noticed(cnn, copied):
    path = copied
    wanted = summary(path)["params_sha256"]
    (path / "summary.json").unlink()
    data = max((path / "checkpoints" / "24").rglob("d/*"), key=lambda file: file.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 4
    data.write_bytes(content)
    done = cnn(f"--workdir={path}", *FINISHED, pictures=False)
    assert done.code == 0 and "checkpoint 24 is damaged" in done.out
    assert summary(path)["params_sha256"] == wanted


def test_without_any_whole_checkpoint_the_run_begins_anew(cnn, copied):
    path = copied
    wanted = summary(path)["params_sha256"]
    (path / "summary.json").unlink()
    for step in (path / "checkpoints").iterdir():
        shutil.rmtree(step / "state")
    assert cnn(f"--workdir={path}", *FINISHED, pictures=False).code == 0
    assert summary(path)["params_sha256"] == wanted


def test_a_population_equals_its_members_alone(cnn, tmp_path):
    arguments = ["--steps=12", "--augment=crop:1", "--steps_per_call=4"]
    assert cnn(f"--workdir={tmp_path / 'all'}", "--num_seeds=3", "--seed=5", *arguments, pictures=False).code == 0
    together = summary(tmp_path / "all")
    accuracy = together["metrics"]["test_accuracy"]
    np.testing.assert_allclose(accuracy["mean"], np.mean(accuracy["values"]))
    np.testing.assert_allclose(accuracy["std"], np.std(accuracy["values"], ddof=1))
    state = checkpoints.load_state(tmp_path / "all" / "checkpoints")
    for member, seed in enumerate((5, 6, 7)):
        path = tmp_path / f"{seed}"
        assert cnn(f"--workdir={path}", f"--seed={seed}", *arguments, pictures=False).code == 0
        assert summary(path)["params"] == together["params"]
        np.testing.assert_allclose(accuracy["values"][member], summary(path)["metrics"]["test_accuracy"], atol=1e-6)
        alone = checkpoints.load_state(path / "checkpoints")
        for name, value in alone.items():
            np.testing.assert_allclose(state[name][member], value, rtol=2e-3, atol=2e-4, err_msg=name)
    row = next(row for row in rundir.read_metrics(tmp_path / "all") if row["split"] == "test")
    assert {"loss", "loss/std", "loss/seed5", "loss/seed6", "loss/seed7"} <= set(row)


def test_augmentation_on_host_or_device_and_any_placement_train_alike(cnn, tmp_path):
    losses = []
    for i, how in enumerate((["--data_placement=device"], ["--data_placement=host"], ["--augment_on=host"])):
        done = cnn(f"--workdir={tmp_path / str(i)}", "--steps=6", "--augment=flip,crop:1", *how, pictures=False)
        assert done.code == 0, done.err
        losses.append(summary(tmp_path / str(i))["metrics"]["test_loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def test_early_stopping_stops_and_resumes_as_stopped(cnn, tmp_path):
    arguments = [f"--workdir={tmp_path}", "--steps=400", "--patience=2", "--learning_rate=0", "--valid_fraction=0.2"]
    done = cnn(*arguments, pictures=False)
    assert done.code == 0 and "stopping early" in done.out
    found = summary(tmp_path)
    assert found["steps"] == 24 and found["best"]["step"] == 8  # nothing is learned: the first stays the best
    assert "valid_accuracy" in found["metrics"]
    (tmp_path / "summary.json").unlink()
    assert cnn(*arguments, pictures=False).code == 0 and summary(tmp_path)["params_sha256"] == found["params_sha256"]


def test_profile_tells_where_the_time_went(cnn, tmp_path):
    done = cnn(f"--workdir={tmp_path}", "--steps=4", "--profile")
    assert done.code == 0 and list((tmp_path / "profile").rglob("*.xplane.pb"))
    phases = ("imports", "data", "program", "initial state", "first call", "training", "evaluation", "figures")
    assert all(re.search(rf"^  {phase} +\d+\.\d\d s$", done.out, re.M) for phase in phases)
    assert re.search(r"of which compiling +[\d.]+ s in \d+ programs", done.out) and "start to first step" in done.out


def test_help_is_grouped_and_complete(cnn):
    done = cnn("--help")
    assert done.code == 0
    assert re.findall(r"^(\w[\w ]+):$", done.out, re.M) == ["Run", "Devices", "Data", "Optimizer", "Model and training"]
    assert "--batch_size=128" in done.out and "(jit|pmap)" in done.out and "lenet5_1998" in done.out
