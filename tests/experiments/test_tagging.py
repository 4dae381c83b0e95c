"""experiments.tagging as a user meets it: both tasks, own files, resumption, populations, mistakes."""

import json
import re
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints

TINY = [
    "--examples=48", "--batch_size=16", "--steps=8", "--log_every=4", "--eval_every=8", "--checkpoint_every=4",
    "--steps_per_call=2", "--keep=9", "--features=6", "--hidden=5",
]  # fmt: skip
METRICS = ("loss", "accuracy", "whole_sentences", "precision", "recall", "f1")


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("tagging")
        if not pictures:
            monkeypatch.setattr(module.pictures, "draw", lambda *args, **kwargs: None)
        return experiment("tagging", *TINY, *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


def check_pictures(path, crf):
    assert set(summary(path)["metrics"]) == {f"{split}_{name}" for split in ("valid", "test") for name in METRICS}
    figures = {figure.name for figure in (path / "figures").iterdir()}
    wanted = {"curves.png", "confusion.png", "examples.png", "mistakes.txt"}
    assert figures == wanted | ({"transitions.png"} if crf else set())
    told = (path / "figures" / "mistakes.txt").read_text().split("\n")[0]
    return float(re.search(r"F1 ([\d.]+)%", told)[1]) / 100


def test_segmentation_with_pictures_that_lost_its_end_and_goes_on_to_the_same_bits(run, tmp_path):
    arguments = [f"--workdir={tmp_path}", "--parallel=pmap"]
    done = run(*arguments, pictures=True)
    assert done.code == 0, done.err
    # The pictures judge by spans of names of tags, the metrics by what is counted on the device.
    np.testing.assert_allclose(check_pictures(tmp_path, True), summary(tmp_path)["metrics"]["test_f1"], atol=6e-5)
    wanted = summary(tmp_path)["params_sha256"]
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "8")
    done = run(*arguments)
    assert done.code == 0 and "resuming after step 4" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted


def test_a_population_with_pictures_equals_its_members_alone(run, tmp_path):
    arguments = ["--task=entities", "--output=softmax"]
    done = run(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", *arguments, pictures=True)
    assert done.code == 0, done.err
    shown = check_pictures(tmp_path / "all", False)
    np.testing.assert_allclose(shown, summary(tmp_path / "all")["metrics"]["test_f1"]["values"][0], atol=6e-5)
    state = checkpoints.load_state(tmp_path / "all" / "checkpoints")
    assert run(f"--workdir={tmp_path / '1'}", "--seed=1", *arguments).code == 0
    for name, value in checkpoints.load_state(tmp_path / "1" / "checkpoints").items():
        np.testing.assert_allclose(state[name][1], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_own_files(load, tmp_path):
    segmented, tagged = tmp_path / "words.txt", tmp_path / "names.conll"
    segmented.write_text("\n".join(f"我 喜欢 {'书本茶'[k % 3]}{k}" for k in range(60)))
    tagged.write_text("\n".join(f"Ann{k} X B-PER\nsleeps X O\n" for k in range(60)))
    wanted = {"segmentation": (segmented, tuple("BMES")), "entities": (tagged, ("O", "B-PER", "I-PER"))}
    for task, (path, tags) in wanted.items():
        module, common = load("tagging")
        common.FLAGS(["tagging", f"--task={task}", f"--text_file={path}"])
        data = module.tagged.load()
        assert data.tags == tags and sum(map(len, data.sentences.values())) == 60
        assert (data.letters is None) == (task == "segmentation")


def test_letters_of_words_come_with_the_batch(load):
    module, common = load("tagging")
    common.FLAGS(["tagging", "--task=entities", "--examples=32"])
    data = module.tagged.load()
    lengths = module.batches.longest(*data.fields.values())
    stream = module.batches.training_stream(data.fields["train"], 8, lengths)
    stream = module.tagged.with_words(stream, data, None)
    batch = stream.fetch(stream.arrays, stream.host(0, 0))
    assert set(batch) == {"tokens", "lengths", "tags", "letters"}
    spelled = {tuple(row) for row in batch["letters"].reshape(-1, batch["letters"].shape[-1]).tolist()}
    words = {word for words, _ in data.sentences["train"] for word in words}
    alphabet = ["", "?", *sorted(set("".join(words)))]
    assert {"".join(alphabet[k] for k in row) for row in spelled} <= {word[:20] for word in words} | {""}
    assert len(spelled) > 10


CASES = {
    "--task=segment": "task.*segment",
    "--dropout=1": "dropout",
    "--batch_size=49": "batch size 49 is not possible: there are 48",
    "--text_file=/nowhere": "there is no text file /nowhere",
    "--monitor=valid_f2": "did you mean valid_f1",
    "--elmo=/nowhere": "--elmo reads words; the tokens of --task=segmentation are characters",
    "--task=entities --elmo=/nowhere": "/nowhere is no finished run of experiments.elmo",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err


def test_files_with_too_little_are_refused(run, tmp_path):
    path = tmp_path / "own"
    path.write_text("a O\nb O\n\n" * 3)
    done = run(f"--workdir={tmp_path / 'run'}", "--task=entities", f"--text_file={path}")
    assert done.code == 2 and "too few to learn and to test" in done.err
    path.write_text("\n".join(f"word{k} O\n" for k in range(60)))
    done = run(f"--workdir={tmp_path / 'run'}", "--task=entities", f"--text_file={path}")
    assert done.code == 2 and "has no entity" in done.err
