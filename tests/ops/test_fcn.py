"""Dense layers as convolutions: a classifier's logits at every place, against the classifier on crops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.classification.alexnet import AlexNet
from dlfx.models.classification.lenet import LeNet5
from dlfx.ops.fcn import dense_to_conv, fully_convolutional
from dlfx.ops.pooling import max_pool
from dlfx.types import UserError
from tests.compiling import quick


def dense_layers(params, names):
    return [(params[name]["kernel"], params[name]["bias"]) for name in names]


def test_lenet5_at_every_place_of_a_larger_image():
    """Its convolutions are not padded, so that cell (i, j) of the map is the logits of the crop at (4 i, 4 j)."""
    images = jax.random.normal(jax.random.key(0), (2, 36, 32, 1))

    @quick
    def run(images):
        variables = LeNet5().init(jax.random.key(1), images[:, :28, :28])
        params = variables["params"]
        # The model's own dense layer fits images of 28 alone; what lies before it takes any.
        other = {"c5": {"kernel": jnp.zeros((6 * 5 * 16, 120)), "bias": params["c5"]["bias"]}}
        _, features = LeNet5().apply({"params": params | other}, images)
        dense = fully_convolutional(features["s4"], dense_layers(params, ("c5", "f6", "output")), (4, 4), False)
        crops = [images[:, i : i + 28, j : j + 28] for i in (0, 4, 8) for j in (0, 4)]
        return dense, LeNet5().apply(variables, jnp.concatenate(crops))[0]

    dense, crops = run(images)
    expected = np.asarray(crops).reshape(3, 2, 2, 10).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-5)


def test_alexnet_gives_its_logits_at_its_size_and_a_map_on_a_larger_image():
    model = AlexNet(width=1 / 16, num_classes=5)
    image = jax.random.normal(jax.random.key(0), (1, 224, 224, 3))

    @quick
    def run(image):
        variables = model.init(jax.random.key(1), image)
        layers = dense_layers(variables["params"], ("classifier.1", "classifier.4", "classifier.6"))

        def look(image):
            logits, features = model.apply(variables, image)
            return logits, fully_convolutional(max_pool(features["stage3"], 3, 2), layers, (6, 6), channel_first=True)

        return look(image), look(jnp.pad(image, ((0, 0), (0, 32), (0, 64), (0, 0))))[1]

    (logits, dense), larger = run(image)
    np.testing.assert_allclose(dense[:, 0, 0], logits, rtol=1e-4, atol=1e-6)
    assert dense.shape == (1, 1, 1, 5) and larger.shape == (1, 2, 3, 5)


def test_the_order_in_which_a_map_was_flattened():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(60, 7)).astype(np.float32)
    for first, flat in ((True, maps.transpose(0, 3, 1, 2)), (False, maps)):
        conv = dense_to_conv(jnp.asarray(kernel), (3, 4), channel_first=first)
        np.testing.assert_allclose(
            np.einsum("bhwc,hwco->bo", maps, conv), flat.reshape(2, 60) @ kernel, rtol=1e-4, atol=1e-5
        )


def test_maps_that_do_not_fit():
    layers = [(jnp.ones((60, 7)), jnp.ones(7))]
    with pytest.raises(UserError, match="60 inputs does not read a map of 7 x 1"):
        fully_convolutional(jnp.ones((1, 7, 7, 5)), layers, (7, 1), channel_first=True)
    for shape in ((1, 2, 9, 5), (1, 3, 4, 6)):
        with pytest.raises(UserError, match=r"dense layers that read \[3, 4, 5\]"):
            fully_convolutional(jnp.ones(shape), layers, (3, 4), channel_first=True)
