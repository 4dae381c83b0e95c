"""experiments.word2vec as a user meets it; and words of one kind, which a text uses alike, become neighbours."""

import json
import re
import shutil

import numpy as np
import pytest

from dlfx.metrics import word_vectors
from dlfx.training import checkpoints

KINDS = {
    "animal": ["dog", "cat", "horse", "goat", "fox", "hare"],
    "food": ["bread", "soup", "rice", "cake", "fruit", "cheese"],
    "place": ["garden", "kitchen", "field", "market", "forest", "street"],
    "tool": ["hammer", "saw", "spade", "brush", "needle", "axe"],
}
TEMPLATES = [
    "the {animal} eats {food} in the {place}",
    "a hungry {animal} ran across the {place}",
    "she cooked fresh {food} with salt",
    "he fixed it with the {tool} from the {place}",
    "sharpen your {tool} before work",
    "the {animal} barks at a heavy {tool}",
]
TINY = [
    "--batch_size=32", "--steps=12", "--steps_per_call=4", "--log_every=4", "--eval_every=8", "--checkpoint_every=8",
    "--keep=9", "--width=8", "--window=3", "--min_count=2",
]  # fmt: skip


def sentences(size):
    """Sentences in which any word of a kind is as likely as any other."""
    rng = np.random.default_rng(0)
    for template in rng.choice(TEMPLATES, size):
        yield template.format(**{kind: rng.choice(words) for kind, words in KINDS.items()})


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "kinds.txt"
    path.write_text("\n\n".join(sentences(4000)))
    return path


@pytest.fixture
def run(load, experiment, monkeypatch, text):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, _ = load("word2vec")
        if not pictures:
            monkeypatch.setattr(module.word2vec_figures, "draw", lambda *args, **kwargs: None)
        return experiment("word2vec", *TINY, f"--text_file={text}", *arguments)

    return tiny


def summary(path):
    return json.loads((path / "summary.json").read_text())


def read_vectors(path):
    first, *lines = path.read_text().splitlines()
    words = [line.split()[0] for line in lines]
    vectors = np.array([line.split()[1:] for line in lines], float)
    assert first == f"{len(words)} {vectors.shape[1]}"
    return words, vectors


@pytest.mark.parametrize("output", ["negative", "tree"])
@pytest.mark.parametrize("model", ["skipgram", "cbow"])
def test_words_of_a_kind_are_neighbours(run, tmp_path, model, output):
    """Of the five nearest words of each of 24, 95 % are of its kind; among random vectors it is one of eight."""
    done = run(
        f"--model={model}", f"--output={output}", "--width=16", "--steps=1500", "--batch_size=64", "--log_every=1500",
        "--steps_per_call=500", "--learning_rate=0.1", "--subsample=1e-2", f"--workdir={tmp_path}", "--eval_every=1500",
    )  # fmt: skip
    assert done.code == 0, done.err
    words, vectors = read_vectors(tmp_path / "vectors.txt")
    kind = {word: name for name, listed in KINDS.items() for word in listed}
    asked = np.array([words.index(word) for word in kind])

    def alike(vectors):
        found, _ = word_vectors.nearest(vectors, asked, 5)
        return np.mean([kind.get(words[k]) == kind[words[a]] for a, row in zip(asked, found, strict=True) for k in row])

    assert alike(vectors) > 0.95
    assert alike(np.random.default_rng(0).normal(size=vectors.shape)) < 0.3


def test_figures_in_double_precision(run, tmp_path):
    arguments = ["--precision=float64", "--model=cbow", "--output=tree", "--words=dog,soup"]
    done = run(f"--workdir={tmp_path}", *arguments, pictures=True)
    assert done.code == 0, done.err
    assert set(summary(tmp_path)["metrics"]) == {"valid_loss", "test_loss"}
    figures = {figure.name for figure in (tmp_path / "figures").iterdir()}
    assert figures == {"curves.png", "neighbours.png", "map.png"}


def test_pmap_is_jit(run, tmp_path):
    runs = {how: tmp_path / how for how in ("jit", "pmap")}
    for how, path in runs.items():
        assert run(f"--parallel={how}", f"--workdir={path}").code == 0
    left, right = (checkpoints.load_state(path / "checkpoints") for path in runs.values())
    np.testing.assert_allclose(left["params/output"], right["params/output"], rtol=1e-4, atol=1e-7)


def test_a_resumed_run_ends_in_the_same_bits(run, tmp_path):
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert run(f"--workdir={whole}").code == 0
    shutil.copytree(whole, part)
    (part / "summary.json").unlink()
    shutil.rmtree(part / "checkpoints" / "12")
    again = run(f"--workdir={part}")
    assert again.code == 0 and "resuming after step 8" in again.out, again.err
    assert summary(part)["params_sha256"] == summary(whole)["params_sha256"]


def test_a_population_is_its_members(run, tmp_path):
    assert run("--num_seeds=2", f"--workdir={tmp_path / 'both'}").code == 0
    both = checkpoints.load_state(tmp_path / "both" / "checkpoints")["params/output"]
    assert run("--seed=1", f"--workdir={tmp_path / 'one'}").code == 0
    one = checkpoints.load_state(tmp_path / "one" / "checkpoints")["params/output"]
    np.testing.assert_allclose(both[1], one, rtol=1e-4, atol=1e-7)
    assert np.abs(both[0] - one).max() > 0.1 * np.abs(one).max()


def test_analogies_are_answered(run, tmp_path):
    asked = tmp_path / "questions.txt"
    asked.write_text(": kinds\nDog cat Bread soup\nhammer saw horse goat\ndog nowhere cat soup\n\n")
    done = run(f"--analogies={asked}", f"--workdir={tmp_path / 'run'}")
    assert done.code == 0 and re.search(r"analogies: [012] of 2 right", done.out), done.err
    asked.write_text("dog cat bread\n")
    assert "line 1 has 3 words, not 4" in run(f"--analogies={asked}", f"--workdir={tmp_path / 'other'}").err


CASES = {
    "--tokens=characters": "word2vec is of words",
    "--words=dog,wolf": "'wolf' is not among the .* words",
    "--min_count=99999": "fewer than two words",
    "--batch_size=99999": "batch size 99999 is not possible",
    "--accumulate=2": "accumulate is not of word2vec",
    "--analogies=nothing.txt": "no text file nothing.txt",
    "--fractions=1,0,0": "no text to evaluate on",
    "--model=glove": "model",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code in (1, 2) and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err
