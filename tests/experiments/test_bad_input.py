"""Every mistake of a user gets one line that names it, exit code 2, no traceback, and loses nothing."""

import re

import pytest

CASES = {
    "--modle=lenet5": "modle.*model",
    "--model=lenet": "unknown model 'lenet'; did you mean lenet5",
    "--dataset=digit": "unknown data set 'digit'; did you mean digits",
    "--dataset=tfds:none --data_dir=/nowhere": "not prepared in /nowhere",
    "--optimizer=adm": "unknown optimizer 'adm'; did you mean adam",
    "--flagfile=experiments/flagfiles/cnn/lenet_digits.flags": "unknown recipe.*did you mean .*lenet5_digits.flags",
    "--batch_size=0": "batch_size.*0",
    "--batch_size=-4": "batch_size.*-4",
    "--batch_size=5000": "batch size 5000 is not possible.*1442",
    "--batch_size=many": "batch_size.*many",
    "--steps=-1": "steps.*-1",
    "--augment=rotate": "unknown augmentation 'rotate'",
    "--image_size=17": "17",
    "--image_size=8": "8.*--image_size|--image_size.*8|lenet5|LeNet",
    "--monitor=tset_accuracy": "tset_accuracy.*did you mean test_accuracy",
    "--warmup_steps=90": "warmup_steps=90.*fewer",
    "--shortcut=A": "shortcut.*lenet5",
    "--schedule=step --decay_at=half": "decay_at",
    "--num_processes=2": "--coordinator",
    "--mesh=data:2": "--mesh=data:2 is not of the form data:4,model:2",
    "--mesh=data:2,model:2": "--mesh=data:2,model:2 is of 4 devices; there are 1",
    "digits": "unexpected argument 'digits'",
    "--learning_rate=1e30 --optimizer=sgd": "not finite at step .*no checkpoint had been saved|not finite after step",
}


@pytest.mark.parametrize("arguments", CASES)
def test_one_clear_line(cnn, tmp_path, arguments):
    path = tmp_path / "run"
    done = cnn("--steps=20", f"--workdir={path}", *arguments.split())
    assert done.code in (1, 2)
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert re.search(CASES[arguments], " ".join(lines)), done.err
    assert len(lines) == 1 and "Traceback" not in done.err
    if "learning_rate" not in arguments and "monitor" not in arguments:
        assert not path.exists()


def test_a_workdir_that_is_a_file(cnn, tmp_path):
    (tmp_path / "file").write_text("mine")
    done = cnn("--steps=2", f"--workdir={tmp_path / 'file'}")
    assert done.code == 2 and "is a file" in done.err and (tmp_path / "file").read_text() == "mine"
    assert cnn("--steps=2", f"--workdir={tmp_path / 'file' / 'below'}").code == 2


def test_a_workdir_that_cannot_be_written(cnn):
    done = cnn("--steps=2", "--workdir=/proc/dlfx")
    assert done.code == 2 and "/proc/dlfx cannot be used" in done.err and len(done.err.splitlines()) == 1


def test_debug_nans_names_the_operation(cnn, tmp_path):
    done = cnn("--steps=20", f"--workdir={tmp_path}", "--learning_rate=1e30", "--optimizer=sgd", "--debug_nans")
    assert done.code == 2 and "Traceback" not in done.err
    assert re.search(r"error: --debug_nans: invalid value \(nan\) encountered in \w+ at dlfx/\S+\.py:\d+", done.err)


def test_a_full_disk_is_told_and_nothing_is_lost(cnn, tmp_path, monkeypatch):
    from dlfx.training import checkpoints

    usage = checkpoints.shutil.disk_usage(tmp_path)
    saved = []

    def shrinking(path):
        saved.append(path)
        return usage._replace(free=usage.free if len(saved) == 1 else 1000)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "disk_usage", shrinking)
        done = cnn("--steps=16", "--checkpoint_every=8", f"--workdir={tmp_path}")
    assert done.code == 2 and "is full; nothing saved so far is lost" in done.err and len(done.err.splitlines()) == 1
    done = cnn("--steps=16", "--checkpoint_every=8", f"--workdir={tmp_path}")
    assert done.code == 0 and "resuming after step 8" in done.out
