"""experiments.seq_autoencoder as a user meets it: what codes are, resumption, a population, mistakes."""

import json
import re
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.seq2seq import Seq2Seq
from dlfx.models.sequence.text_classifier import RecurrentEncoder
from dlfx.nn.recurrent import Recurrent
from dlfx.training import checkpoints
from tests.compiling import quick

TINY = [
    "--batch_size=16", "--steps=8", "--log_every=4", "--eval_every=8", "--checkpoint_every=4", "--steps_per_call=2",
    "--keep=9", "--features=8", "--width=8", "--learning_rate=0.01",
]  # fmt: skip


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("seq_autoencoder")
        if not pictures:
            monkeypatch.setattr(module.pictures, "draw", lambda *args, **kwargs: None)
        return experiment("seq_autoencoder", *TINY, *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


def own_texts(tmp_path, labelled):
    lines = [f"{['up', 'down', 'left'][k % 3]} goes $word{k % 7} {k} ." for k in range(120)]
    path = tmp_path / "own.txt"
    path.write_text("\n".join(f"{'ABC'[k % 3]}\t{line}" if labelled else line for k, line in enumerate(lines)))
    return path


def test_a_population_of_labelled_texts_resumes_to_the_same_bits_and_begins_a_classifier(
    run, load, experiment, tmp_path, monkeypatch
):
    path, own = tmp_path / "run", own_texts(tmp_path, True)
    arguments = [f"--workdir={path}", f"--labelled={own}", "--num_seeds=2"]
    arguments += ["--noise=0.3", "--word_dropout=0.5", "--dropout=0.1"]
    done = run(*arguments, pictures=True)
    assert done.code == 0, done.err
    told = summary(path)
    names = ("loss", "token_accuracy", "exact_match", "nearest_edits", "same_label", "probe_accuracy")
    assert {f"test_{name}" for name in names} <= set(told["metrics"])
    assert all(len(told["metrics"][f"test_{name}"]["values"]) == 2 for name in names)
    representations = {"code", "untrained encoder", "bag of words", "bag of words and pairs"}
    assert set(told["same_label"]) == set(told["probe"]) == representations
    # The first word of a text is its label: counts know it.
    assert told["probe"]["bag of words"]["accuracy"][-1] == 1 and told["code"] == 16
    # Every text has a number of its own, and most of the rest of some text is another's: one edit, or a few.
    assert 1 / 6 <= told["nearest_edits"]["bag of words"] < 0.5
    assert told["same_label"]["code"] == told["metrics"]["test_same_label"]["values"][0]
    assert told["probe"]["code"]["accuracy"][-1] == told["metrics"]["test_probe_accuracy"]["values"][0]
    counts = told["by_length"]
    size = np.array(counts["sentences"])
    assert size.sum() == told["sentences"]["test"]
    right = sum(counts["right_tokens"]) / (size * (np.array(counts["length"]) + 1)).sum()
    assert right == pytest.approx(told["metrics"]["test_token_accuracy"]["values"][0], rel=1e-5)
    figures = {figure.name for figure in (path / "figures").glob("*.png")}
    assert figures == {
        f"{name}.png" for name in ("curves", "reconstructions", "by_length", "neighbours", "codes", "labels")
    }

    (path / "summary.json").unlink()
    shutil.rmtree(path / "checkpoints" / "8")
    done = run(*arguments)
    assert done.code == 0 and "resuming after step 4" in done.out
    assert summary(path)["params_sha256"] == told["params_sha256"]
    assert "holds this run, finished" in run(*arguments).out

    classification, _ = load("text_classification")
    monkeypatch.setattr(classification.pictures, "draw", lambda *args, **kwargs: None)
    arguments = [f"--init_from={path}", f"--text_file={own}", f"--workdir={tmp_path / 'classifier'}"]
    arguments += ["--steps=1", "--eval_every=1", "--batch_size=16", "--learning_rate=0"]
    done = experiment("text_classification", *arguments)
    assert done.code == 0, done.err
    flags = (tmp_path / "classifier" / "flags.txt").read_text()
    assert all(f"--{flag}\n" in flags for flag in ("model=lstm", "hidden=8", "features=8", "layers=1", "reverse=true"))
    begun, encoder = (checkpoints.load_state(where / "checkpoints") for where in (tmp_path / "classifier", path))
    np.testing.assert_array_equal(begun["params/vectors"], encoder["params/source_embedding/embedding"][0])
    taken = [name for name in begun if name.startswith("params/encoder/network")]
    assert taken
    for name in taken:
        np.testing.assert_array_equal(begun[name], encoder[name.replace("/network", "")][0])
    for wrong, message in (f"--init_from={tmp_path}", "holds no finished run"), ("--vectors=v", "leave --vectors out"):
        refused = experiment("text_classification", *arguments, wrong)
        assert refused.code == 2 and message in refused.err, refused.err


def test_sentences_without_labels_in_both_directions(run, tmp_path):
    path = tmp_path / "run"
    arguments = [f"--workdir={path}", f"--text_file={own_texts(tmp_path, False)}", "--fractions=0.5,0.5,0"]
    done = run(*arguments, "--cell=gru", "--bidirectional", "--steps=2", "--eval_every=2", "--shortest=1")
    assert done.code == 0, done.err
    told = summary(path)
    assert "probe" not in told and "valid_nearest_edits" in told["metrics"]
    assert told["code"] == 8 and told["sentences"]["valid"] > 10


def test_a_code_is_of_its_sentence_alone_and_writes_it(load):
    module, _ = load("seq_autoencoder")
    model = Seq2Seq(9, 9, "none", "lstm", 6, 4)
    batch = {
        "source": jnp.array([[5, 4, 0], [8, 7, 6]]),
        "source_lengths": jnp.array([2, 3]),
        "target": jnp.array([[4, 5, 3, 0], [6, 7, 8, 3]]),
        "target_lengths": jnp.array([3, 4]),
    }
    variables = quick(model.init)(jax.random.key(0), batch["source"], batch["target"], batch["source_lengths"])
    encode = quick(partial(module.encode, model))
    codes = encode(variables, batch)
    assert codes.shape == (2, 12)
    # A classifier that reads from the end, and is given the sentences as they are, has the same state.
    words = variables["params"]["source_embedding"]["embedding"][jnp.array([[4, 5, 0], [6, 7, 8]])]
    reader = RecurrentEncoder(Recurrent("lstm", 6, reverse=True))
    state = quick(reader.apply)({"params": {"network": variables["params"]["encoder"]}}, words, batch["source_lengths"])
    np.testing.assert_allclose(state, codes[:, :6], rtol=1e-5)
    alone = {**batch, "source": jnp.array([[5, 4, 7], [8, 0, 0]]), "source_lengths": jnp.array([2, 1])}
    np.testing.assert_allclose(encode(variables, alone)[0], codes[0], rtol=1e-5)
    # Greedy: each token is the likeliest after those before it, until the end.
    special = {"<pad>": 0, "<unk>": 1, "<bos>": 2, "<eos>": 3}
    written = np.asarray(quick(partial(module.rewrite, model, special=special))(variables, batch))
    given = np.concatenate([[[2], [2]], written[:, :-1]], 1)
    logits = np.asarray(quick(model.apply)(variables, batch["source"], given, batch["source_lengths"]))
    for row in range(2):
        ends = np.flatnonzero(written[row] == 3)
        last = ends[0] + 1 if len(ends) else written.shape[1]
        assert (logits[row, :last].argmax(-1) == written[row, :last]).all() and not written[row, last:].any()
    key = jax.random.key(1)
    hidden = module.hidden(key, jnp.full((100, 100), 5), 0.25, 1)
    assert abs((hidden == 1).mean() - 0.25) < 0.03 and set(np.unique(hidden)) == {1, 5}


def test_sentences_are_in_one_place_only(run, tmp_path):
    (tmp_path / "own.txt").write_text("It is so. " * 50 + "One of these. Or one of those. " * 20)
    done = run(f"--workdir={tmp_path / 'run'}", f"--text_file={tmp_path / 'own.txt'}")
    assert done.code == 2 and re.search(r"too few sentences to train and to evaluate on: \d train$", done.err.strip())


CASES = {
    "--shortest=9 --longest=8": "--shortest=9 is above --longest=8",
    "--labelled=/nowhere": "there is no text file /nowhere",
    "--labelled=reviews --examples=64 --accumulate=3": "--accumulate=3 does not divide",
    "--labelled=reviews --examples=64 --longest=90 --batch_size=65": "batch size 65 is not possible: there are 64",
    "--noise=1": "noise",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err
