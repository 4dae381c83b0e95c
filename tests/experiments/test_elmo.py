"""ELMo as commands: it learns, resumes, is a population, and serves a tagger."""

import json
import re
import shutil

import numpy as np
import pytest

from dlfx.data.labelled_text import entities
from dlfx.training import checkpoints

FORM = [
    "--layers=1",
    "--width=8",
    "--letter_features=4",
    "--filters=1:4,3:4",
    "--highways=1",
    "--context=6",
    "--dropout=0.1",
]
TINY = [*FORM, "--batch_size=8", "--steps_per_call=10", "--learning_rate=0.02", "--checkpoint_every=10", "--keep=9"]
TINY += ["--log_every=30", "--eval_every=60"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(
        "the cat sat on the mat. a dog ran to the tree. we saw a running horse set in the set of little trees. " * 30
    )
    return f"--text_file={path}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("elmo") / "run"


def summary(path):
    return json.loads((path / "summary.json").read_text())


def test_it_learns_resumes_and_serves_a_tagger(experiment, load, text, finished, tmp_path, monkeypatch):
    done = experiment("elmo", text, *TINY, "--steps=60", f"--workdir={finished}", "--ask=set,absent")
    assert done.code == 0, done.err
    told = summary(finished)
    for side in ("forward", "backward"):
        assert told["metrics"][f"valid_{side}_perplexity"] < 10  # of 23 words and marks
    assert {file.stem for file in (finished / "figures").iterdir()} == {"curves", "contexts", "spelling"}
    assert told["unknown"]["train"] == 0

    module, _ = load("elmo")
    monkeypatch.setattr(module.elmo_figures, "draw", lambda *args, **kwargs: None)
    half = shutil.copytree(finished, tmp_path / "half")
    (half / "summary.json").unlink()
    shutil.rmtree(half / "checkpoints" / "60")
    again = experiment("elmo", text, *TINY, "--steps=60", f"--workdir={half}", "--ask=set,absent")
    assert again.code == 0 and "resuming after step 50" in again.out, again.err
    assert summary(half)["params_sha256"] == told["params_sha256"]

    both = experiment(
        "elmo", text, *TINY, "--steps=10", f"--workdir={tmp_path / 'both'}", "--num_seeds=2", "--ask=absent"
    )
    assert both.code == 0, both.err
    state, alone = (checkpoints.load_state(path / "checkpoints", 10) for path in (tmp_path / "both", finished))
    for name, value in alone.items():
        if name.startswith("params/"):
            np.testing.assert_allclose(state[name][0], value, rtol=1e-2, atol=2e-3, err_msg=name)

    module, _ = load("tagging")
    seen = []
    draw = module.pictures.draw
    monkeypatch.setattr(module.pictures, "draw", lambda *args, **kwargs: (seen.append(kwargs), draw(*args, **kwargs)))
    tagger = ["--task=entities", "--examples=16", "--batch_size=8", "--steps=6", "--steps_per_call=3", "--eval_every=6"]
    tagger += ["--features=4", "--hidden=4", f"--elmo={finished}", f"--workdir={tmp_path / 'tagger'}", "--mix_norm"]
    done = experiment("tagging", *tagger)
    assert done.code == 0, done.err
    # The biLM is not among what is trained; the mix of its layers is, and is told with the rest.
    params = seen[0]["params"]
    assert params["mix"]["weights"].shape == (2,) and np.abs(params["mix"]["weights"]).min() > 0
    assert params["network"]["layer0_kernel"].shape[0] == 4 + 30 + 2 * 8
    assert summary(tmp_path / "tagger")["elmo_sha256"] == told["params_sha256"]
    assert (tmp_path / "tagger" / "figures" / "mix.png").exists()
    shown = re.search(r"F1 ([\d.]+)%", (tmp_path / "tagger" / "figures" / "mistakes.txt").read_text())
    assert abs(float(shown[1]) / 100 - summary(tmp_path / "tagger")["metrics"]["test_f1"]) < 1e-4

    # The vectors of a sentence are those that it has alone, between two boundaries.
    weights = module.elmo_weights
    reader = weights.load(finished)
    sentence = ["the", "tree", "Zürich", "set"]
    letters = weights.spelled(sentence, reader.alphabet, reader.longest)
    assert letters[0].tolist()[:3] == [2, 3, 0] and (letters[3] == 1).sum() == 2  # ü and Z are unknown, not nothing
    words, lengths = np.array([[1, 2, 3, 4, 0, 0], [4, 2, 0, 0, 0, 0]]), np.array([4, 2])
    layers = weights.layers(reader.model, reader.variables, letters, words, lengths)
    alone = reader.model.apply(reader.variables, letters[np.array([[0, 4, 2, 0]])])[:, :, 1:-1]
    np.testing.assert_allclose(layers[1:, :, :2], alone, rtol=1e-4, atol=1e-5)
    assert not layers[1, :, 2:].any() and layers.shape == (2, 2, 6, 16)


CASES = {
    "--tokens=characters": "--tokens=characters is not for ELMo",
    "--filters=3": "not of the form 1:32,2:64",
    "--fractions=1,0,0": "must keep some for both",
    "--text_file=EMPTY": "is empty",
    "--context=9999": "a context of 9999 tokens",
}


@pytest.mark.parametrize("wrong", CASES)
def test_a_mistake_gets_one_line(experiment, load, text, wrong, tmp_path):
    load("elmo")
    (tmp_path / "empty.txt").write_text(" \n")
    wrong_flag = wrong.replace("EMPTY", str(tmp_path / "empty.txt"))
    done = experiment("elmo", text, *TINY, "--steps=10", f"--workdir={tmp_path / 'run'}", wrong_flag)
    assert done.code == 2 and CASES[wrong] in done.err and done.err.count("\n") == 1, done.err


def test_generated_sentences_are_those_of_tagging_without_their_tags(load):
    module, common = load("elmo")
    common.FLAGS(["elmo", "--corpus=entities"])
    data = module.load()
    wanted = [word for words, _ in entities("test", 500) for word in ["", *words]] + [""]
    assert [data.every.symbols[k] if k else "" for k in data.numbers["test"]] == wanted
    # Held out names cannot be predicted, but are read letter by letter; the boundary can be predicted.
    assert data.targets[0] == data.known.special["<eos>"]
    unknown = {data.every.symbols[k] for k in data.numbers["test"] if data.targets[k] == data.known.special["<unk>"]}
    assert unknown and all(word[0].isupper() for word in unknown)
    assert len(data.letters) == data.every.size and (data.letters[1:] > 0).sum(1).min() > 2
