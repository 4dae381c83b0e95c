"""The language model as a command: it learns, resumes to the same bits, trains seeds together, and writes."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.recurrent_lm import RecurrentLM
from dlfx.training import checkpoints
from tests.compiling import quick

TINY = ["--context=16", "--layers=2", "--heads=2", "--width=16", "--batch_size=8", "--steps=24", "--steps_per_call=4"]
TINY += ["--learning_rate=0.01", "--checkpoint_every=12", "--log_every=8", "--sample_tokens=20", "--samples=2"]


@pytest.fixture
def lm(experiment, tmp_path):
    """`lm(*arguments)`: the tiny configuration on a text of its own."""
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the cat. " * 60)
    return lambda *arguments: experiment("lm", f"--text_file={text}", *TINY, *arguments)


def summary(path):
    return json.loads((path / "summary.json").read_text())


def test_it_learns_resumes_and_writes(lm, experiment, tmp_path):
    whole = tmp_path / "whole"
    done = lm(f"--workdir={whole}")
    assert done.code == 0, done.err
    told = summary(whole)
    assert told["metrics"]["valid_loss"] < math.log(17) - 0.5  # better than all of its 17 characters alike
    characters, count = 152, 151  # of the validation text; its first one is no target
    bits = told["metrics"]["valid_loss"] * count / characters / math.log(2)
    assert math.isclose(told["metrics"]["valid_bits_per_character"], bits, rel_tol=0.02)
    assert len(told["corpus_sha256"]) == 64
    assert {file.stem for file in (whole / "figures").glob("*.png")} == {"context", "curves", "embedding", "samples"}
    assert len((whole / "figures" / "samples.txt").read_text().split("\n" + "-" * 80 + "\n")) == 2

    half = shutil.copytree(whole, tmp_path / "half")
    (half / "summary.json").unlink()
    shutil.rmtree(half / "checkpoints" / "24")
    again = lm(f"--workdir={half}")
    assert "resuming after step 12" in again.out, again.err
    assert summary(half)["params_sha256"] == told["params_sha256"]

    written = experiment("lm", f"--workdir={whole}", "--prompt=the ", "--samples=2", "--sample_tokens=40")
    assert written.code == 0, written.err
    first, second = written.out.rstrip("-\n").split("\n" + "-" * 80 + "\n")
    assert first.startswith("the ") and len(first) == len(second) == 44
    for flags, message in (["--prompt=thé"], "'é'"), (["--prompt=" + "the " * 4], "from 1 to 15 tokens"):
        refused = experiment("lm", f"--workdir={whole}", *flags)
        assert refused.code == 2 and message in refused.err and refused.err.count("\n") == 1, refused.err


def test_a_population_holds_what_its_seeds_come_to_alone(lm, tmp_path):
    both, alone = tmp_path / "both", tmp_path / "alone"
    assert lm(f"--workdir={both}", "--num_seeds=2", "--steps=8").code == 0
    assert lm(f"--workdir={alone}", "--seed=1", "--steps=8").code == 0
    together, single = (checkpoints.load_state(path / "checkpoints") for path in (both, alone))
    for name, value in single.items():
        if name.startswith("params/"):
            np.testing.assert_allclose(together[name][1], value, rtol=1e-3, atol=1e-4)


RECURRENT = ["--model=lstm", "--layers=1", "--steps=12", "--checkpoint_every=8", "--dropout=0.1", "--tied"]


def test_a_recurrent_model_carries_its_state_resumes_and_writes(lm, experiment, tmp_path):
    whole = tmp_path / "whole"
    done = lm(f"--workdir={whole}", *RECURRENT)
    assert done.code == 0, done.err
    state = checkpoints.load_state(whole / "checkpoints")
    carry = {name: value for name, value in state.items() if name.startswith("extra/carry")}
    assert len(carry) == 2 and all(value.shape == (8, 16) and np.all(value.std(1) > 0) for value in carry.values())

    half = shutil.copytree(whole, tmp_path / "half")
    (half / "summary.json").unlink()
    shutil.rmtree(half / "checkpoints" / "12")
    again = lm(f"--workdir={half}", *RECURRENT)
    assert "resuming after step 8" in again.out, again.err
    for name, value in checkpoints.load_state(half / "checkpoints").items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)

    written = experiment("lm", f"--workdir={whole}", "--prompt=the ", "--samples=2", "--sample_tokens=40")
    assert written.code == 0, written.err
    first, second = written.out.rstrip("-\n").split("\n" + "-" * 80 + "\n")
    assert first.startswith("the ") and len(first) == len(second) == 44


def test_words_have_no_bits_per_character(lm, experiment, tmp_path):
    done = lm(f"--workdir={tmp_path / 'run'}", *RECURRENT, "--tokens=words", "--steps=4", "--checkpoint_every=4")
    assert done.code == 0, done.err
    told = set(summary(tmp_path / "run")["metrics"])
    assert told == {f"{split}_{name}" for split in ("valid", "test") for name in ("loss", "perplexity")}


def test_devices_carry_the_states_of_their_rows():
    """Two devices, played by vmap, both come to the whole state of one; a row that begins forgets."""
    from experiments import lm_models  # not before the flags of other tests are forgotten

    model = RecurrentLM(7, "gru", layers=1, width=4)
    one, two = (lm_models.recurrent(model, 4, 8, axis_name) for axis_name in (None, "data"))
    tokens = jax.random.randint(jax.random.key(0), (4, 6), 0, 7)
    batch = {"tokens": tokens, "first": jnp.array([0.0, 1.0, 0.0, 0.0])}
    variables = one.init(jax.random.key(1), batch)
    _, state = quick(one.objective)(variables, batch, jax.random.key(2))
    assert np.any(np.asarray(state["carry"][0]))
    variables |= state
    sums, whole = quick(one.objective)(variables, batch, jax.random.key(2))
    parts = jax.tree.map(lambda x: x.reshape(2, 2, *x.shape[1:]), batch)
    each = jax.vmap(two.objective, (None, 0, None), axis_name="data")
    sums_of, states = quick(each)(variables, parts, jax.random.key(2))
    np.testing.assert_allclose(sums_of["loss"].sum(), sums["loss"], rtol=1e-6)
    for device in (0, 1):
        np.testing.assert_allclose(states["carry"][0][device], whole["carry"][0], atol=1e-6)
    same = np.isclose(whole["carry"][0], state["carry"][0], atol=1e-6, rtol=0).all(1)
    assert same.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--heads=3"], "--heads=3 does not divide --width=16"),
        (["--size=zaremba_small"], "--size=zaremba_small is not one of --model=gpt; it has gpt2, "),
        (["--model=gru", "--size=zaremba_small"], "is not one of --model=gru; it has none"),
        (["--model=lstm", "--accumulate=2"], "--accumulate is for --model=gpt"),
        (["--model=lstm", "--context=400"], "8 rows of 400 + 1 tokens do not fit"),
        (["--context=4000"], "a context of 4000 tokens"),
        (["--accumulate=3"], "--accumulate=3 does not divide the 8 sequences"),
        (["--fractions=1,0,0"], "there is no text to evaluate on"),
        (["--fractions=half"], "--fractions=half must be three numbers"),
        (["--text_file=", "--corpus=prose"], "unknown corpus 'prose'"),
        (["--text_file=nowhere.txt"], "there is no text file nowhere.txt"),
        (["--prompt=a"], "is neither a finished run of experiments.lm nor a GPT-2 as transformers saves it"),
    ],
)
def test_mistakes(lm, tmp_path, flags, told):
    done = lm(f"--workdir={tmp_path / 'none'}", *flags)
    assert done.code == 2 and told in done.err and done.err.count("\n") == 1, done.err
