"""A run of experiments.cnn as a judge: it judges as the run did, and one that cannot judge says why in one line."""

import functools
import importlib
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.data import batches, sources
from dlfx.learners import supervised
from dlfx.models.classification import MODELS
from dlfx.training import checkpoints
from dlfx.types import UserError
from tests.compiling import quick


@pytest.fixture
def load():
    """`experiments.classifiers.load`."""
    return importlib.import_module("experiments.classifiers").load


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def trained(cnn, runs):
    """`trained(name, *arguments)`: the directory of a tiny run, trained once for this file."""

    def directory(name="lenet5", *arguments):
        path = runs / name
        if not path.exists():
            done = cnn(f"--workdir={path}", "--steps=20", *arguments)
            assert done.code == 0, done.err
        return path

    return directory


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run, to damage."""
    return shutil.copytree(trained(), tmp_path / "copy")


def refused(load, *arguments, match):
    with pytest.raises(UserError) as told:
        load(*arguments)
    assert re.search(match, str(told.value)), told.value
    assert "\n" not in str(told.value)


def resave(path, change):
    """Writes the last checkpoint of a run anew, changed."""
    arrays = checkpoints.load_state(path / "checkpoints")
    change(arrays)
    shutil.rmtree(path / "checkpoints")
    store = checkpoints.open_checkpoints(path / "checkpoints", 1)
    store.save(20, arrays, {}, None)
    store.close()


def test_it_judges_as_the_run_did(load, trained):
    path = trained()
    test = sources.read_all(sources.digits()[1])
    classifier = load(str(path), (8, 8, 1), 10)
    logits = classifier.logits(test["image"])
    accuracy = (logits.argmax(-1) == test["label"]).mean()
    assert 0.2 < accuracy < 1  # neither chance nor certainty, so that another preparation would show
    assert classifier.accuracy == pytest.approx(float(accuracy), abs=1e-6)
    assert classifier.accuracy == json.loads((path / "summary.json").read_text())["metrics"]["test_accuracy"]
    assert classifier.num_classes == 10 and classifier.name == "lenet5-digits"

    features = classifier.features(test["image"])
    assert features.shape == (355, 84) and features.dtype == logits.dtype == jnp.float32
    saved = checkpoints.load_state(path / "checkpoints")
    np.testing.assert_allclose(
        features @ saved["params/output/kernel"] + saved["params/output/bias"], logits, rtol=1e-4, atol=1e-4
    )
    # Of the size that the network takes and in bytes, images come to the same.
    np.testing.assert_allclose(
        load(str(path)).logits(np.round(test["image"] * 255).astype(np.uint8)), logits, rtol=0.05, atol=0.05
    )
    sized = batches.preprocess(jnp.asarray(test["image"]), 0, 1, 16, "bilinear")
    np.testing.assert_allclose(classifier.logits(sized), logits, rtol=1e-4, atol=1e-4)
    both = jax.jit(lambda x: (classifier.features(x), classifier.logits(x)))(test["image"])
    np.testing.assert_allclose(both[0], features, rtol=1e-4, atol=1e-4)


def test_of_a_population_the_first_member_counts_and_computes_in_float32(load, trained):
    path = trained("population", "--num_seeds=2", "--precision=bfloat16")
    test = sources.read_all(sources.digits()[1])
    classifier = load(str(path), (8, 8, 1), 10)
    logits, features = classifier.logits(test["image"]), classifier.features(test["image"])
    saved = checkpoints.load_state(path / "checkpoints")
    kernel, bias = saved["params/output/kernel"][0], saved["params/output/bias"][0]
    assert features.dtype == logits.dtype == jnp.float32
    np.testing.assert_allclose(features @ kernel + bias, logits, rtol=1e-4, atol=1e-4)
    values = json.loads((path / "summary.json").read_text())["metrics"]["test_accuracy"]["values"]
    assert values[0] != values[1] and classifier.accuracy == values[0]
    assert classifier.accuracy == pytest.approx(float((logits.argmax(-1) == test["label"]).mean()), abs=0.02)


def test_of_a_residual_network_with_running_statistics_and_padding(load, tmp_path):
    """As a run leaves it, but without the minute that it takes: the state of a supervised learner, flags, a summary."""
    images = jax.random.uniform(jax.random.key(0), (3, 10, 10, 3))
    model = MODELS["resnet20"](num_classes=7, shortcut="B")
    variables = quick(functools.partial(model.init, train=False))(jax.random.key(1), images)
    statistics = jax.tree.map(lambda x: x * 1.3 + 0.1, variables["batch_stats"])
    extra = {"batch_stats": statistics}
    state = supervised.State(variables["params"], extra, (jnp.zeros(2),), jnp.int32(5), jnp.zeros(2, jnp.uint32))
    store = checkpoints.open_checkpoints(tmp_path / "checkpoints", 1)
    store.save(5, jax.tree.map(np.asarray, state), {}, None)
    store.close()
    flags = {"dataset": "tfds:cifar10", "data_dir": "", "model": "resnet20", "shortcut": "B", "num_seeds": "1"}
    flags |= {"image_size": "16", "resize": "pad"}
    (tmp_path / "flags.txt").write_text("".join(f"--{name}={value}\n" for name, value in flags.items()))
    (tmp_path / "summary.json").write_text('{"experiment": "cnn", "steps": 5, "metrics": {"test_accuracy": 0.5}}')

    classifier = load(str(tmp_path), (10, 10, 3), 7)
    padded = (np.pad(images, [(0, 0), (3, 3), (3, 3), (0, 0)]) - 0.4734) / 0.2516  # of CIFAR-10
    logits, features = model.apply({"params": variables["params"], **extra}, padded, train=False)
    np.testing.assert_allclose(classifier.logits(images), logits, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(classifier.features(images), features["pooled"], rtol=1e-3, atol=1e-4)
    assert classifier.name == "resnet20-cifar10" and classifier.accuracy == 0.5 and classifier.num_classes == 7
    refused(load, str(tmp_path), (10, 10, 1), match="trained on images of 3 channels; these have 1")


def test_where_there_is_no_finished_run(load, trained, copied, tmp_path):
    refused(load, str(tmp_path / "nowhere"), match="there is no directory .*nowhere")
    refused(load, str(tmp_path), match="holds no run of experiments.cnn$")
    summary = copied / "summary.json"
    told = json.loads(summary.read_text())
    summary.write_text(json.dumps(told | {"experiment": "dqn"}))
    refused(load, str(copied), match="no run of experiments.cnn but one of experiments.dqn")
    summary.write_text("{")
    refused(load, str(copied), match="the run in .* cannot be read: ")
    summary.unlink()
    refused(load, str(copied), match="is not finished")
    summary.write_text(json.dumps(told))
    shutil.rmtree(copied / "checkpoints" / "20" / "state")
    refused(load, str(copied), match="the checkpoint in .* is damaged: ")
    shutil.rmtree(copied / "checkpoints" / "20")
    refused(load, str(copied), match="no checkpoint 20 in .*; it has (none|.*8.*)")
    shutil.rmtree(copied / "checkpoints")
    refused(load, str(copied), match="no checkpoint 20 in .*; it has none")


def test_where_the_images_are_of_other_channels_or_classes(load, trained):
    refused(load, str(trained()), (8, 8, 3), match="trained on images of 1 channels; these have 3")
    refused(load, str(trained()), (8, 8, 1), 100, match=r"tells 10 classes apart \(digits\); these images have 100")


def test_where_images_are_taken_as_they_are(load, copied):
    flags = (copied / "flags.txt").read_text()
    (copied / "flags.txt").write_text(flags.replace("--image_size=16", "--image_size=0"))
    assert load(str(copied), (16, 16, 1), 10).logits(jnp.zeros((2, 16, 16, 1))).shape == (2, 10)
    refused(load, str(copied), (8, 8, 1), match=r"cannot judge these images: lenet5 takes .* at least 16.*8, 8")
    refused(load, str(copied), match=r"cannot judge these images: lenet5 takes .* at least 16.*8, 8")  # as the digits
    refused(load, str(copied), (28, 28, 1), match=r"does not fit its model on images of \[28, 28, 1\].*c5/kernel")


@pytest.mark.parametrize(
    ("flag", "match"),
    [
        ("--model=resnet20", r"does not fit its model.* \d+ tensors differ"),
        ("--model=lenet5_1998", "lenet5_1998 takes images|does not fit its model|cannot judge"),
        ("--model=lenet6", "unknown model 'lenet6'; did you mean lenet5"),
    ],
)
def test_where_the_checkpoint_is_of_another_model(load, copied, flag, match):
    flags = (copied / "flags.txt").read_text()
    (copied / "flags.txt").write_text(flags.replace("--model=lenet5", flag))
    refused(load, str(copied), (8, 8, 1), 10, match=match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x.pop("params/c3/bias"), r"1 tensors differ, first 'params/c3/bias' \(there None, expected \[16\]"),
        (lambda x: x.update({"params/c3/bias": np.zeros(7)}), r"'params/c3/bias' \(there \[7\], expected \[16\]"),
        (lambda x: x.update({"params/c9/bias": np.zeros(7)}), r"'params/c9/bias' \(there \[7\], expected None"),
        (lambda x: x.pop("params/output/bias"), r"'params/output/bias' \(there None"),
    ],
)
def test_where_tensors_are_missing_or_of_other_shapes(load, copied, change, match):
    resave(copied, change)
    refused(load, str(copied), (8, 8, 1), match=match)


def test_channels_are_those_of_the_run_where_the_shape_is_open(load, copied):
    resave(copied, lambda x: x.update({"params/c1/kernel": np.repeat(x["params/c1/kernel"], 3, 2)}))
    assert load(str(copied)).logits(jnp.zeros((2, 16, 16, 3))).shape == (2, 10)
    refused(load, str(copied), (16, 16, 1), match="trained on images of 3 channels; these have 1")


def test_a_file_of_weights_is_inception(load, tmp_path, monkeypatch):
    classifiers = importlib.import_module("experiments.classifiers")
    refused(load, str(tmp_path / "none.safetensors"), match="no file .*none.safetensors")
    (tmp_path / "bad.safetensors").write_text("no weights")
    refused(load, str(tmp_path / "bad.safetensors"), match="bad.safetensors")
    (tmp_path / "file").write_text("no weights")
    refused(load, str(tmp_path / "file"), match="file")

    class Seen:
        """In place of the network: what it is shown is what it says."""

        num_classes = 1008

        def apply(self, variables, images, *, train):
            assert not train
            return images.mean((1, 2)), {"stem": images, "pooled": images.reshape(len(images), -1)}

    monkeypatch.setattr(classifiers, "load_inception_v3", lambda path: (Seen(), {"params": {}}))
    gray = np.random.default_rng(0).uniform(size=(2, 30, 20, 1)).astype(np.float32)
    classifier = load(str(tmp_path / "any.pth"), (30, 20, 1), 10)
    assert classifier.num_classes == 1008 and classifier.accuracy is None and classifier.name == "inception_v3"
    seen = np.asarray(classifier.features(gray)).reshape(2, 299, 299, 3)
    assert (seen[..., 0] == seen[..., 1]).all() and (seen[..., 0] == seen[..., 2]).all()

    def weights(size):
        """Bilinear: pixel centers on a common scale, the border repeated."""
        at = np.clip((np.arange(299) + 0.5) * size / 299 - 0.5, 0, size - 1)
        return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size)))

    expected = 2 * np.einsum("yh,xw,bhw->byx", weights(30), weights(20), gray[..., 0]) - 1
    np.testing.assert_allclose(seen[..., 0], expected, atol=1e-5)
    refused(load, str(tmp_path / "any.pth"), (30, 20, 2), match="1 or 3 channels; these have 2")
