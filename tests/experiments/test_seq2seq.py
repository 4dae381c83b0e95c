"""experiments.seq2seq as a user meets it: every kind of model, a file of pairs, resumption, populations, mistakes."""

import json
import shutil

import numpy as np
import pytest

TINY = [
    "--batch_size=8", "--steps=6", "--log_every=3", "--eval_every=3", "--checkpoint_every=3", "--keep=9", "--width=8",
    "--features=4", "--heads=2", "--valid_pairs=9", "--test_pairs=9",
]  # fmt: skip


@pytest.fixture
def run(load, experiment, monkeypatch):
    """`run(*arguments)`: the experiment on the tiny configuration, its flags as in a process of its own."""

    def tiny(*arguments, pictures=False):
        module, common = load("seq2seq")
        if not pictures:
            monkeypatch.setattr(module.seq2seq_figures, "draw", lambda *args, **kwargs: None)
            monkeypatch.setattr(common.figures, "curves", lambda *args: None)
        return experiment("seq2seq", *TINY, *arguments)

    return tiny


@pytest.fixture
def pairs_file(tmp_path):
    """Words and their letters' numbers, apart from nothing: some of them too long."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(list("abcdef"), n)) for n in rng.integers(1, 6, 90)]
    path = tmp_path / "pairs.txt"
    path.write_text("".join(f"{line}\t{line.replace(' ', '').upper()}\tnote\n" for line in dict.fromkeys(lines)))
    return path


def summary(path):
    return json.loads((path / "summary.json").read_text())


@pytest.mark.parametrize("model", ["vector", "transformer"])
def test_a_run_with_pictures_and_the_comparison(run, tmp_path, model):
    options = [f"--workdir={tmp_path / 'one'}", f"--model={model}", "--turn_source", "--turn_target"]
    done = run(*options, "--steps_per_call=3", pictures=True)
    assert done.code == 0, done.err
    told = summary(tmp_path / "one")
    assert set(told["metrics"]) == {f"{s}_{m}" for s in ("valid", "test") for m in ("loss", "exact_match")}
    assert sum(told["by_length"]["pairs"]) == 9
    figures = {figure.name for figure in (tmp_path / "one" / "figures").iterdir()}
    wanted = {"curves.png", "translations.png", "translations.txt", "by_length.png"}
    assert figures == wanted | ({"attention.png"} if model == "transformer" else set())
    lines = (tmp_path / "one" / "figures" / "translations.txt").read_text().splitlines()[1:]
    for source, _, target in (line.split("\t") for line in lines):
        assert eval("+".join(number.lstrip("0") or "0" for number in source.split("+"))) == int(target)
    done = run(f"--compare={tmp_path / 'one'}", f"--workdir={tmp_path}")
    assert done.code == 0 and (tmp_path / "exact_by_length.png").stat().st_size > 1000


def test_a_run_that_lost_its_end_goes_on_to_the_same_bits(run, tmp_path):
    arguments = [f"--workdir={tmp_path}", "--task=dates", "--parallel=pmap", "--dropout=0.1", "--precision=float64"]
    assert run(*arguments).code == 0
    wanted = summary(tmp_path)["params_sha256"]
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "6")
    done = run(*arguments)
    assert done.code == 0 and "resuming after step 3" in done.out
    assert summary(tmp_path)["params_sha256"] == wanted


def test_a_population_on_a_file_equals_its_members_alone(run, tmp_path, pairs_file):
    options = [f"--pairs_file={pairs_file}", "--target_tokens=characters", "--longest=4", "--beam=2"]
    assert run(f"--workdir={tmp_path / 'all'}", "--num_seeds=2", *options).code == 0
    together = summary(tmp_path / "all")["metrics"]
    assert run(f"--workdir={tmp_path / 'one'}", "--seed=1", *options).code == 0
    alone = summary(tmp_path / "one")["metrics"]
    assert set(alone) == {f"{s}_{m}" for s in ("valid", "test") for m in ("loss", "exact_match")} | {"test_bleu"}
    for name, value in alone.items():
        np.testing.assert_allclose(together[name]["values"][1], value, rtol=1e-3, err_msg=name)


def test_own_bleu_is_that_of_sacrebleu(load, monkeypatch):
    sacrebleu = pytest.importorskip("sacrebleu")
    module, _ = load("seq2seq")
    found, wanted = [list("今天天气很好"), list("我不知道"), []], [list("今天天气真好"), list("我不知道啊"), list("好")]
    theirs = module.bleu_score(found, wanted)
    by_text = sacrebleu.corpus_bleu(["".join(x) for x in found], [["".join(x) for x in wanted]], tokenize="zh")
    np.testing.assert_allclose(theirs, by_text.score, rtol=1e-9)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    np.testing.assert_allclose(module.bleu_score(found, wanted), theirs, rtol=1e-9)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--task=adition"], "unknown task 'adition'"),
        (["--task=dates", "--size=3"], "--task=dates has no --size"),
        (["--size=10"], "must be at most 9 digits"),
        (["--model=transformer", "--heads=3"], "--heads=3 does not divide --width=8"),
        (["--width=9", "--bidirectional"], "half of the width in each"),
        (["--batch_size=8", "--accumulate=3"], "--accumulate=3 does not divide"),
        (["--pairs_file=/nowhere.txt"], "/nowhere.txt"),
        (["--compare=/nowhere", "--workdir=/tmp"], "/nowhere holds no finished run"),
        (["--compare=/nowhere"], "--compare needs --workdir"),
    ],
)
def test_mistakes_are_one_clear_line(run, tmp_path, arguments, message):
    base = [] if "--compare" in arguments[0] else [f"--workdir={tmp_path}"]
    done = run(*base, *arguments)
    assert done.code == 2 and done.err.count("\n") == 1 and message in done.err


def test_a_file_that_leaves_nothing_to_evaluate_on(run, tmp_path):
    (tmp_path / "pairs.txt").write_text("a\tb\n")
    done = run(f"--pairs_file={tmp_path / 'pairs.txt'}", f"--workdir={tmp_path / 'run'}")
    assert done.code == 2 and "it needs more of them" in done.err
