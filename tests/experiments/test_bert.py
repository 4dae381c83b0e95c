"""BERT's pretraining as a command: it learns and resumes to the same bits."""

import json
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints

TINY = ["--context=24", "--layers=2", "--heads=2", "--width=16", "--batch_size=16", "--steps=60", "--steps_per_call=10"]
TINY += ["--learning_rate=0.01", "--checkpoint_every=30", "--log_every=30", "--dropout=0"]


@pytest.fixture
def bert(experiment, tmp_path):
    """`bert(*arguments)`: the tiny configuration on a text of its own."""
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. a dog ran to the tree. we saw a bird in the sky. " * 40)
    return lambda *arguments: experiment("bert", f"--text_file={text}", *TINY, *arguments)


def test_it_learns_and_resumes(bert, tmp_path):
    whole = tmp_path / "whole"
    done = bert(f"--workdir={whole}")
    assert done.code == 0, done.err
    told = json.loads((whole / "summary.json").read_text())
    assert told["metrics"]["valid_masked_loss"] < np.log(17) - 0.5  # better than all of its 17 words alike
    assert {file.stem for file in (whole / "figures").glob("*.png")} == {"attention", "curves", "masked"}
    half = shutil.copytree(whole, tmp_path / "half")
    (half / "summary.json").unlink()
    shutil.rmtree(half / "checkpoints" / "60")
    again = bert(f"--workdir={half}")
    assert "resuming after step 30" in again.out, again.err
    assert json.loads((half / "summary.json").read_text())["params_sha256"] == told["params_sha256"]


def test_a_population_holds_what_its_seeds_come_to_alone(bert, tmp_path):
    both, alone = tmp_path / "both", tmp_path / "alone"
    assert bert(f"--workdir={both}", "--num_seeds=2", "--steps=10").code == 0
    assert bert(f"--workdir={alone}", "--seed=1", "--steps=10").code == 0
    together, single = (checkpoints.load_state(path / "checkpoints") for path in (both, alone))
    for name, value in single.items():
        if name.startswith("params/"):
            np.testing.assert_allclose(together[name][1], value, rtol=1e-3, atol=1e-4)


def test_bad_input(bert):
    for flags, message in (["--tokens=characters"], "words or byte_pairs"), (["--heads=3"], "does not divide"):
        refused = bert(*flags)
        assert refused.code == 2 and message in refused.err and refused.err.count("\n") == 1, refused.err
