"""The language model goes on from a GPT-2 in the files of transformers, and from a finished run."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.data import vocabulary
from dlfx.models.sequence.gpt import GPT
from dlfx.training import checkpoints
from dlfx.weights.gpt2 import load_gpt2, save_gpt2
from tests.compiling import quick

pytest.importorskip("tokenizers")

TEXT = "the cat sat on the mat and the dog sat on the cat. " * 60
TOKENS, ROWS = 264, 272  # of the tokenizer, and of the embeddings
STEPS = ["--batch_size=8", "--steps=8", "--steps_per_call=4", "--learning_rate=0.01"]
STEPS += ["--checkpoint_every=4", "--log_every=4"]
SAMPLES = ["--sample_tokens=12", "--samples=2", "--temperature=0"]


@pytest.fixture
def gpt2(tmp_path):
    """A GPT-2 of 2 layers and a context of 16, its weights large enough to have opinions."""
    path = tmp_path / "gpt2"
    model = GPT(ROWS, context=16, layers=2, heads=2, width=16)
    variables = quick(model.init)(jax.random.key(3), jnp.zeros((1, 1), jnp.int32))
    save_gpt2(path, model, jax.tree.map(lambda x: 8 * x, variables))
    tokenizer = vocabulary.byte_pairs(TEXT, TOKENS).stored["tokenizer"]
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    return path


@pytest.fixture
def lm(experiment, tmp_path):
    """`lm(*arguments)`: trains on a text of its own."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    return lambda *arguments: experiment("lm", f"--text_file={text}", *STEPS, *SAMPLES, *arguments)


def params(path):
    state = checkpoints.load_state(path / "checkpoints")
    return {name: value for name, value in state.items() if name.startswith("params/")}


def greedy(model, variables, tokens, count):
    """One after another by whole passes, without a cache."""
    for _ in range(count):
        padded = jnp.zeros((1, model.context), jnp.int32).at[0, : len(tokens)].set(jnp.array(tokens))
        logits = quick(model.apply)(variables, padded)
        tokens = [*tokens, int(logits[0, len(tokens) - 1].argmax())]
    return tokens


def test_it_begins_with_the_weights_of_gpt2(lm, gpt2, tmp_path):
    still, expected = tmp_path / "still", checkpoints.named_leaves(load_gpt2(gpt2)[1])
    done = lm(f"--init_from={gpt2}", f"--workdir={still}", "--learning_rate=0", "--num_seeds=2", "--context=12")
    assert done.code == 0, done.err
    flags = (still / "flags.txt").read_text().split()
    assert {"--layers=2", "--width=16", "--context=12", "--bias=true", "--positions=learned"} <= set(flags)
    expected["params/embedding/embedding"] = expected["params/embedding/embedding"][:TOKENS]
    expected["params/position/embedding"] = expected["params/position/embedding"][:12]
    found = params(still)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], np.stack([value, value]))


def test_it_learns_on_resumes_writes_and_is_begun_with(lm, experiment, gpt2, tmp_path):
    fine = tmp_path / "fine"
    begun = [f"--init_from={gpt2}", "--layers=7"]  # the model's own counts
    done = lm(*begun, f"--workdir={fine}")
    assert done.code == 0, done.err
    rows = map(json.loads, (fine / "metrics.jsonl").read_text().splitlines())
    first, last = (row["loss"] for row in rows if row["split"] == "train")
    assert last < first - 0.5

    half = shutil.copytree(fine, tmp_path / "half")
    (half / "summary.json").unlink()
    shutil.rmtree(half / "checkpoints" / "8")
    again = lm(*begun, f"--workdir={half}")
    assert "resuming after step 4" in again.out, again.err
    for name, value in params(fine).items():
        np.testing.assert_array_equal(value, params(half)[name])

    known, state = vocabulary.read(fine / "vocabulary.json"), params(fine)
    variables = load_gpt2(gpt2)[1]
    variables = jax.tree.unflatten(jax.tree.structure(variables), state.values())
    model = GPT(TOKENS, context=16, layers=2, heads=2, width=16)
    expected = known.decode(greedy(model, variables, list(known.encode("the cat")), 12))
    for flag in ("workdir", "init_from"):
        written = experiment("lm", f"--{flag}={fine}", "--prompt=the cat", *SAMPLES)
        assert written.out == f"{expected}\n{'-' * 80}\n" * 2, written.err


def test_gpt2_writes_what_is_most_probable(experiment, gpt2):
    known = vocabulary.read(gpt2 / "tokenizer.json")
    model, variables = load_gpt2(gpt2)
    variables["params"]["embedding"]["embedding"] = variables["params"]["embedding"]["embedding"][:TOKENS]
    tokens = list(known.encode("the cat"))
    expected = known.decode(greedy(model.clone(vocabulary=TOKENS), variables, tokens, 12))
    done = experiment("lm", f"--init_from={gpt2}", "--prompt=the cat", *SAMPLES)
    assert done.out == f"{expected}\n{'-' * 80}\n" * 2, done.err


def test_mistakes(lm, gpt2, tmp_path):
    def told(*flags):
        done = lm(f"--workdir={tmp_path / 'none'}", *flags)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
        return done.err

    assert "nowhere is neither a finished run of experiments.lm nor a GPT-2" in told("--init_from=nowhere")
    old = tmp_path / "old"
    old.mkdir()
    (old / "summary.json").write_text('{"experiment": "lm"}')
    (old / "flags.txt").write_text("--context=16\n")
    assert "was made before there was --model, --size, --layers" in told(f"--init_from={old}")
    assert "--context=17, but the model in" in told(f"--init_from={gpt2}", "--context=17")
    tokenizer = gpt2 / "tokenizer.json"
    tokenizer.write_text(json.dumps(vocabulary.byte_pairs(TEXT, ROWS + 1).stored["tokenizer"]))
    assert f"tokenizer.json has {ROWS + 1} tokens, its model {ROWS}" in told(f"--init_from={gpt2}")
    tokenizer.unlink()
    assert "there is no vocabulary" in told(f"--init_from={gpt2}")
