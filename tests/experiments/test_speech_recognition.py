"""experiments.speech as a user meets it: both tasks, resumption, a population, bad recordings."""

import itertools
import json
import shutil
import wave

import numpy as np
import pytest

from dlfx.metrics.edit_distance import edits
from dlfx.training import rundir

TINY = [
    "--batch_size=8", "--steps=4", "--log_every=2", "--eval_every=2", "--checkpoint_every=2", "--keep=9", "--width=4",
    "--bands=8", "--cell=gru", "--most=2",
]  # fmt: skip


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on a few tones, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("speech")
        tones = module.speech.tone_digits
        monkeypatch.setattr(module.speech, "tone_digits", lambda rate, *more: tones(rate, 1, *more, each=8))
        if not pictures:
            monkeypatch.setattr(module.speech_figures, "draw", lambda *args, **kwargs: None)
        done = experiment("speech", *TINY, *arguments)
        monkeypatch.undo()
        return done

    return tiny


def wav(path, samples, rate=8000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.zeros(samples * channels, "<i2").tobytes())


@pytest.mark.parametrize("task", ["strings", "keyword"])
def test_a_run_of_each_task(run, tmp_path, task):
    done = run(f"--task={task}", f"--workdir={tmp_path}", pictures=True)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "summary.json").read_text())["metrics"]
    names = {"loss", "accuracy"}
    if task == "strings":
        names = {"loss", "label_error_rate", "substitutions", "deletions", "insertions", "exact_strings"}
        parts = sum(metrics[f"test_{name}"] for name in ("substitutions", "deletions", "insertions"))
        assert metrics["test_label_error_rate"] == pytest.approx(parts)
    assert set(metrics) == {f"{split}_{name}" for split in ("valid", "test") for name in names}
    own = {"utterances.png"} if task == "strings" else {"hardest.png"}
    assert {figure.name for figure in (tmp_path / "figures").iterdir()} == {"curves.png", "confusion.png"} | own


def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(run, tmp_path):
    done = run(f"--workdir={tmp_path}")
    assert done.code == 0, done.err
    digest = json.loads((tmp_path / "summary.json").read_text())["params_sha256"]
    rows = rundir.read_metrics(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    (tmp_path / "summary.json").unlink()
    done = run(f"--workdir={tmp_path}")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "summary.json").read_text())["params_sha256"] == digest
    assert rundir.read_metrics(tmp_path) == rows


def test_a_member_of_a_population_is_the_run_of_its_seed(run, tmp_path):
    both, alone = tmp_path / "both", tmp_path / "alone"
    for path, arguments in ((both, ["--num_seeds=2"]), (alone, ["--seed=1"])):
        done = run(f"--workdir={path}", "--precision=float64", *arguments)
        assert done.code == 0, done.err
    values = [
        [row[name] for row in rundir.read_metrics(path) if row["split"] == "train"]
        for path, name in ((both, "loss/seed1"), (alone, "loss"))
    ]
    np.testing.assert_allclose(*values, rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "arguments", "message"),
    [
        ({"rate": 16000}, [], "has 16000 samples a second, not 8000: resample it first"),
        ({"channels": 2}, [], "has 2 channels; only mono is read"),
        ({"samples": 400}, [], "label 0 has 2 symbols and 1 repeats, so it needs 3 frames; there are 2"),
        ({"samples": 100}, [], "a recording of 0.013 s is shorter than one frame of --frame_ms=25"),
        ({}, ["--held_out=4"], "--held_out=4 leaves nothing of 3 training recordings"),
        ({}, ["--hop_ms=30"], "--hop_ms=30 must be at least a sample and at most --frame_ms=25"),
    ],
)
def test_bad_input_is_told_in_one_line(run, tmp_path, made, arguments, message):
    for index in range(8):
        wav(tmp_path / f"3_anna_{index}.wav", **{"samples": 2000, **made})
    done = run(f"--recordings={tmp_path}", f"--workdir={tmp_path / 'run'}", *arguments)
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_pairs_of_the_confusion_are_an_alignment_of_fewest_edits(load):
    load("speech")
    from experiments.speech_figures import pairs

    for found, true in itertools.product(itertools.product((1, 2), repeat=3), itertools.product((1, 2, 3), repeat=2)):
        path = pairs(found, true)
        assert tuple(t for t, _ in path if t) == true and tuple(f for _, f in path if f) == found
        assert sum(t != f for t, f in path) == edits(found, true).distance
