"""n-grams as a command: what it measures is what the model says, and mistakes get one line."""

import json
import re

import numpy as np
import pytest

from dlfx.models.sequence import ngram

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 40


@pytest.fixture
def run(load, experiment, tmp_path):
    """`run(*arguments)`: the experiment on a text of its own, its flags as in a process of its own."""
    (tmp_path / "text.txt").write_text(TEXT)

    def tiny(*arguments):
        load("char_lm")
        return experiment("char_lm", f"--text_file={tmp_path / 'text.txt'}", "--sample_tokens=30", *arguments)

    return tiny


def test_counts_figures_and_a_run_that_is_done(run, tmp_path):
    arguments = [f"--workdir={tmp_path / 'run'}", "--orders=3,1", "--prompt=the "]
    done = run(*arguments)
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    symbols = sorted(set(TEXT))
    tokens = np.array([symbols.index(character) for character in TEXT])
    train, valid = np.split(tokens, [int(0.9 * len(tokens)), round(0.95 * len(tokens))])[:2]
    model = ngram.fit_kneser_ney(train, 3, len(symbols))
    loss = -ngram.log_probs(model, valid).mean()
    metrics = told["metrics"]
    assert metrics["valid_loss"] == pytest.approx(loss)
    assert metrics["valid_perplexity"] == pytest.approx(np.exp(loss))
    assert metrics["valid_bits_per_character"] == pytest.approx(loss / np.log(2))
    assert told["orders"] == [1, 3] and told["best"]["step"] == 3
    assert told["ngrams"][0] == len(symbols) and max(told["error_of_sums"]) < 1e-12
    assert re.search(r"order 3: .*probabilities sum to 1 within \d\.\de-1\d", done.out)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["split"]) for row in rows] == [(n, s) for n in (1, 3) for s in ("train", "valid", "test")]
    figures = tmp_path / "run" / "figures"
    assert {figure.name for figure in figures.glob("*.png")} == {"by_order.png", "curves.png", "samples.png"}
    first, second = (figures / "samples.txt").read_text().rstrip("\n").split("\n" + "-" * 80 + "\n")
    assert first.startswith("[1] the ") and second.startswith("[3] the ") and len(second) == len("[3] the ") + 30
    assert "holds this run, finished" in run(*arguments).out


def test_words_with_add_k(run, tmp_path):
    done = run(f"--workdir={tmp_path / 'run'}", "--orders=2", "--smoothing=add_k", "--k=0.5", "--tokens=words")
    assert done.code == 0, done.err
    told = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(told["metrics"]) == {f"{split}_{name}" for split in ("valid", "test") for name in ("loss", "perplexity")}
    # Seven words, the full stop and <unk>.
    assert told["vocabulary"] == 9 and told["metrics"]["valid_perplexity"] < 3


CASES = {
    "--orders=1,two": "--orders=1,two must be whole numbers from 1 on",
    "--orders=0": "--orders=0 must be whole numbers from 1 on",
    "--smoothing=add_k --k=0": "--k=0 leaves nothing",
    "--num_seeds=2": "--num_seeds=2 is not possible here",
    "--prompt=Ä": "no character 'Ä'",
    "--fractions=1,0,0": "no text to evaluate on",
    "--smoothing=good_turing": "smoothing.*kneser_ney",
}


@pytest.mark.parametrize("arguments", CASES)
def test_a_mistake_gets_one_line(run, tmp_path, arguments):
    done = run(f"--workdir={tmp_path / 'run'}", *arguments.split())
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code == 2 and len(lines) == 1 and re.search(CASES[arguments], lines[0]), done.err
    assert not (tmp_path / "run").exists()
