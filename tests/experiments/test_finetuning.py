"""Trained on one half of the digits, exported, and fine-tuned on the other with frozen layers."""

import json
import shutil

import numpy as np
import pytest

from dlfx.training import checkpoints
from dlfx.weights.files import load_tensors, save_safetensors

SHORT = ["--steps=16", "--checkpoint_every=8"]


def parameters(path):
    return {n: x for n, x in checkpoints.load_state(path / "checkpoints").items() if n.startswith("params/")}


@pytest.fixture
def exported(cnn, experiment, tmp_path):
    run, file = tmp_path / "low", tmp_path / "low.safetensors"
    assert cnn("--dataset=digits_0to5", f"--workdir={run}", *SHORT, pictures=False).code == 0
    done = experiment("export", f"--workdir={run}", f"--output={file}")
    assert done.code == 0 and done.out.startswith("10 tensors of lenet5, test accuracy "), done.err
    return run, file


def test_a_frozen_body_and_a_new_head(cnn, exported, tmp_path):
    run, file = exported
    tensors, trained = load_tensors(file), parameters(run)
    np.testing.assert_array_equal(tensors["c3.weight"], trained["params/c3/kernel"].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(tensors["output.weight"], trained["params/output/kernel"].T)

    fine = tmp_path / "high"
    flags = ["--dataset=digits_6to9", f"--workdir={fine}", *SHORT, f"--init_from={file}", r"--freeze=c\d|f6.bias"]
    done = cnn(*flags, pictures=False)
    assert done.code == 0, done.err
    assert f"beginning: 8 of 10 tensors are taken from {file}; output, of 6 classes there, is new" in done.out
    after = parameters(fine)
    for name, value in trained.items():
        frozen = name.startswith("params/c") or name == "params/f6/bias"
        assert name.startswith("params/output") or (after[name].tobytes() == value.tobytes()) == frozen, name
    assert after["params/output/kernel"].shape == (84, 4)
    told = (fine / "flags.txt").read_text()
    assert f"--init_from={file}\n" in told and "--freeze=c\\d|f6.bias\n" in told

    # Cut off half-way, it goes on without the file, and ends in the same bits.
    digest = json.loads((fine / "summary.json").read_text())["params_sha256"]
    (fine / "summary.json").unlink()
    shutil.rmtree(fine / "checkpoints" / "16")
    file.unlink()
    again = cnn(f"--flagfile={fine / 'flags.txt'}", base=[], pictures=False)
    assert again.code == 0 and "resuming after step 8" in again.out, again.err
    assert json.loads((fine / "summary.json").read_text())["params_sha256"] == digest


def test_a_population_begins_with_the_file_too(cnn, exported, tmp_path):
    _, file = exported
    fine = tmp_path / "both"
    rest = ["--dataset=digits_6to9", "--num_seeds=2", "--freeze=c1"]
    done = cnn(f"--workdir={fine}", *SHORT, f"--init_from={file}", *rest, pictures=False)
    assert done.code == 0, done.err
    kernel = load_tensors(file)["c1.weight"].transpose(2, 3, 1, 0)
    after = parameters(fine)
    np.testing.assert_array_equal(after["params/c1/kernel"], np.stack([kernel, kernel]))
    assert (after["params/output/kernel"][0] != after["params/output/kernel"][1]).any()


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--freeze=conv"], "--freeze=conv matches none of the 10 parameters, such as c1.bias, c1.kernel, "),
        (["--freeze=.*"], "--freeze=.* matches all 10 parameters; none would be trained"),
        (["--freeze=("], "--freeze=( is no regular expression: "),
        (["--init_from=nowhere.pth"], "there is no file nowhere.pth"),
        (["--dropout=0.5"], "--dropout is not of lenet5; these models have it: conv_blocks, alexnet, "),
        (["--aux_heads"], "--aux_heads is not of lenet5; these models have it: googlenet, googlenet_bn, inception_v3"),
        (["--pattern=1x2p", "--model=vgg11"], "--pattern is not of vgg11; these models have it: conv_blocks"),
        (["--width=0"], "flag --width=0"),
        (["--image_size=9"], "got [1, 9, 9, 1]; --image_size=9 with --resize brings them to a size"),
    ],
)
def test_mistakes_are_told_before_a_directory_is_made(cnn, tmp_path, flags, told):
    done = cnn(f"--workdir={tmp_path / 'run'}", "--steps=1", *flags)
    assert done.code == 2 and told in done.err and "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_a_file_of_another_model_is_told_before_a_directory_is_made(cnn, experiment, tmp_path):
    save_safetensors(tmp_path / "x.safetensors", {"c1.weight": np.ones((6, 2, 5, 5), np.float32), "y": np.ones(3)})
    done = cnn(f"--workdir={tmp_path / 'run'}", f"--init_from={tmp_path / 'x.safetensors'}")
    assert done.code == 2 and not (tmp_path / "run").exists()
    assert "of 10 tensors, 9 missing (c1.bias, " in done.err and "1 unexpected (y)" in done.err
    assert "c1.weight [6, 2, 5, 5] for [6, 1, 5, 5]" in done.err
    done = experiment("export", f"--workdir={tmp_path}", f"--output={tmp_path / 'y.safetensors'}")
    assert done.code == 2 and "holds no run of experiments.cnn" in done.err
    done = experiment("export", f"--workdir={tmp_path}", "--output=y.pth")
    assert done.code == 2 and "--output=FILE.safetensors" in done.err
