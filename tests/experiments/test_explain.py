"""A tiny run, explained."""

import hashlib
import json

import pytest

PICTURES = {"attribution", "deletion", "features", "filters", "separation", "space"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "blocks"


@pytest.fixture
def run(cnn, path):
    """A tiny run with options of its model, trained once."""
    if not path.exists():
        flags = ["--model=conv_blocks", "--pattern=1x8p,1x16p;32", "--width=0.5", "--steps=60", "--learning_rate=0.01"]
        done = cnn(f"--workdir={path}", *flags)
        assert done.code == 0, done.err
    return path


def digest(path):
    return hashlib.sha256((path / "summary.json").read_bytes()).hexdigest()


def test_it_leaves_pictures_and_numbers_and_the_run_as_it_was(run, experiment):
    before = digest(run)
    done = experiment("explain", f"--workdir={run}", "--images=3", "--examples=60")
    assert done.code == 0, done.err
    assert "5 nearest neighbours: pixels " in done.out and digest(run) == before
    made = run / "figures" / "explain"
    assert {file.stem for file in made.glob("*.png")} == PICTURES
    assert all(file.stat().st_size > 4000 for file in made.glob("*.png"))
    found = json.loads((made / "explain.json").read_text())
    assert found["network"] == "conv_blocks-digits" and found["examples"] == 60
    assert set(found["deletion"]) == {"saliency", "integrated gradients", "Grad-CAM", "occlusion", "random"}
    names = list(found["separation"])
    assert names[0] == "pixels" and found["layer"] in names and len(names) > 3
    # What it learned: its own features tell classes apart better than the pixels do.
    assert found["separation"][names[-1]]["ratio"] < found["separation"]["pixels"]["ratio"] < 1
    assert found["deletion"]["occlusion"] < found["deletion"]["random"]


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--layer=block9"], "unknown layer 'block9'"),
        (["--square=99"], "a square of 99 pixels every 49 cannot cover images of 16x16"),
        (["--images=0"], "flag --images=0"),
    ],
)
def test_mistakes(run, experiment, flags, told):
    done = experiment("explain", f"--workdir={run}", *flags)
    assert done.code == 2 and told in done.err and done.err.count("\n") == 1, done.err


def test_a_directory_that_is_no_run(experiment, tmp_path):
    assert "give the directory of a finished run" in experiment("explain").err
    assert "holds no run of experiments.cnn" in experiment("explain", f"--workdir={tmp_path}").err
