"""experiments.inspect: counts that are published, and what layers see against the support of gradients."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification import MODELS
from dlfx.nn.recording import record
from tests.compiling import quick

# Parameters and multiply-adds of torchvision's and timm's tables, whose "GFLOPS" are multiply-adds; 569 million of
# MobileNet in Howard et al. 2017, table 4.
PUBLISHED = {
    "alexnet": (61_100_840, 714_188_480),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "googlenet_bn": (6_624_904, 1_498_376_192),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mobilenet_v2": (3_504_872, 300_774_272),
}


@pytest.fixture(scope="module")
def inspect():
    import importlib

    return importlib.import_module("experiments.inspect")


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name, experiment):
    done = experiment("inspect", f"--model={name}", "--format=json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["params"], told["macs"]) == PUBLISHED[name] and told["input"] == [224, 224, 3]
    assert sum(layer["params"] for layer in told["layers"]) == told["params"]


def test_auxiliary_heads_count_when_asked_for(experiment):
    counts = [
        json.loads(experiment("inspect", "--model=googlenet", "--format=json", *more).out)["params"]
        for more in ([], ["--aux_heads"])
    ]
    assert counts == [6_998_552, 13_378_280]


@pytest.mark.parametrize(
    ("name", "image", "sees"), [("vgg16", 300, 196), ("mobilenet_v1", 600, 315), ("alexnet", 300, 163)]
)
def test_published_receptive_fields(inspect, name, image, sees):
    """Araujo et al. 2019: 212, 315 and 195; with the last pooling, of 16 pixels in VGG-16 and of 32 in AlexNet."""
    convolutions = [layer for layer in inspect.layers(MODELS[name](), (image, image, 3)) if len(layer.shape) == 3]
    assert convolutions[-1].receptive_field == (sees, sees)


@pytest.mark.parametrize(
    ("name", "image", "options"),
    [
        ("lenet5", 32, {}),
        ("resnet20", 40, {"width": 0.25}),
        ("conv_blocks", 36, {"pattern": "1x4k5v,2x6p,1x5;", "grid": 1}),
    ],
)
def test_layers_see_what_gradients_reach(inspect, name, image, options):
    """The rows of the image that have a gradient of the middle output, where every weight is positive."""
    module = MODELS[name](**options)
    found = [layer for layer in inspect.layers(module, (image, image, 3)) if len(layer.shape) == 3 and layer.macs]
    variables = module.init(jax.random.key(0), jnp.zeros((1, image, image, 3)))
    variables = jax.tree.map(lambda x: jnp.abs(x) + 0.01, variables)
    pixels = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1, (1, image, image, 3)), jnp.float32)
    # Where maxima and rectifiers choose, a gradient reaches less: averages over draws of the image fill the field.
    for layer in found[len(found) // 2 : len(found) // 2 + 1]:
        reached = np.zeros(image, bool)

        def output(pixels, name=layer.name):
            outputs = [each.output for each in record(lambda: module.apply(variables, pixels)) if each.name == name]
            rows, columns = outputs[0].shape[1:3]
            return outputs[0][0, (rows - 1) // 2, (columns - 1) // 2].sum()

        slope = quick(jax.grad(output))
        for draw in range(12 if name == "lenet5" else 3):
            shifted = pixels * np.random.default_rng(draw).uniform(0.2, 1, pixels.shape)
            reached |= np.asarray(jnp.abs(slope(jnp.asarray(shifted, jnp.float32))).sum((0, 2, 3)) > 0)
        rows = np.flatnonzero(reached)
        assert rows[-1] - rows[0] + 1 == layer.receptive_field[0], layer


def test_a_table_and_a_picture(experiment, tmp_path):
    picture = tmp_path / "network.png"
    done = experiment("inspect", "--model=resnet18", "--image_size=64", "--num_classes=10", f"--draw={picture}")
    assert done.code == 0 and "layer1.0.conv1" in done.out and "11,181,642 parameters" in done.out
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model=resnet5"], "unknown model 'resnet5'; did you mean resnet"),
        (["--model=vgg11", "--image_size=16"], "vgg11 takes images"),
        (["--format=yaml"], "--format"),
        (["--draw=network.doc"], "--draw=network.doc must end in"),
        (["--model=lenet5", "--image_size=28", "--draw=/dev/null/all.png"], "/dev/null/all.png cannot be written"),
        (["--model=resnet18", "--aux_heads"], "--aux_heads is not of resnet18"),
    ],
)
def test_mistakes_get_one_line(experiment, flags, said):
    done = experiment("inspect", *flags)
    assert done.code == 2 and said in done.err and len(done.err.strip().splitlines()) == 1
