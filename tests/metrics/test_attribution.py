"""Attributions of networks whose right answer is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.metrics import attribution
from dlfx.ops.intermediates import cut
from dlfx.types import UserError

KEYS = jax.random.split(jax.random.key(0), 4)
IMAGES = jax.random.normal(KEYS[0], (3, 6, 5, 2))
WEIGHTS = jax.random.normal(KEYS[1], (6 * 5 * 2, 4))
CLASSES = jnp.array([2, 0, 3])


def linear(x):
    return x.reshape(len(x), -1) @ WEIGHTS


def of_classes():
    """The weights of each image's class, [3, 6, 5, 2]."""
    return np.asarray(WEIGHTS)[:, np.asarray(CLASSES)].T.reshape(3, 6, 5, 2)


def test_of_a_linear_network_the_gradient_is_its_weights():
    np.testing.assert_allclose(attribution.input_gradient(linear, IMAGES, CLASSES), of_classes(), rtol=1e-6)
    saliency = attribution.saliency(linear, IMAGES, CLASSES)
    np.testing.assert_allclose(saliency, np.abs(of_classes()).max(-1), rtol=1e-6)
    integrated = attribution.integrated_gradients(linear, IMAGES, CLASSES, baseline=0.5, steps=1)
    np.testing.assert_allclose(integrated, of_classes() * (np.asarray(IMAGES) - 0.5), rtol=1e-5)


def test_integrated_gradients_are_complete_and_the_gradient_alone_is_not():
    def network(x):  # saturates: its gradient at the image says nearly nothing
        return jnp.tanh(2 * linear(x))

    def total(images):
        return np.take_along_axis(np.asarray(network(images)), np.asarray(CLASSES)[:, None], 1)[:, 0]

    wanted = total(IMAGES) - total(jnp.zeros_like(IMAGES))
    whole = attribution.integrated_gradients(network, IMAGES, CLASSES, steps=300).sum((1, 2, 3))
    np.testing.assert_allclose(whole, wanted, atol=2e-3)
    product = (attribution.input_gradient(network, IMAGES, CLASSES) * IMAGES).sum((1, 2, 3))
    assert np.abs(product - wanted).max() > 0.1


def test_grad_cam_is_the_class_activation_map_of_a_pooling_head():
    kernel, head = jax.random.normal(KEYS[2], (2, 7)), jax.random.normal(KEYS[3], (7, 4))

    def network(x):
        maps = jax.nn.relu(x @ kernel)
        return maps.mean((1, 2)) @ head, {"maps": maps}

    maps, rest = cut(network, IMAGES, "maps")
    # Zhou et al. 2015: sum_k w_kc A_k. Pooling spreads each weight over the 30 places.
    classic = np.einsum("bhwk,kb->bhw", maps, np.asarray(head)[:, np.asarray(CLASSES)]) / 30
    np.testing.assert_allclose(attribution.grad_cam(maps, rest, CLASSES), np.maximum(classic, 0), rtol=1e-4, atol=1e-6)


def test_occlusion_against_a_loop():
    found = np.asarray(attribution.occlusion(linear, IMAGES, CLASSES, size=3, stride=2, fill=0.25))
    assert found.shape == (3, 2, 2)

    def probability(image, label):
        logits = image.reshape(-1) @ np.asarray(WEIGHTS)
        powers = np.exp(logits - logits.max())
        return powers[label] / powers.sum()

    for image, label, got in zip(np.asarray(IMAGES), np.asarray(CLASSES), found, strict=True):
        for i, top in enumerate((0, 2)):
            for j, left in enumerate((0, 2)):
                covered = image.copy()
                covered[top : top + 3, left : left + 3] = 0.25
                wanted = probability(image, label) - probability(covered, label)
                np.testing.assert_allclose(got[i, j], wanted, atol=1e-5)


@pytest.mark.parametrize("size, stride", [(0, 1), (6, 1), (2, 0)])
def test_squares_that_cannot_be(size, stride):
    with pytest.raises(UserError, match="images of 6x5: its side must be from 1 to 5, the stride at least 1"):
        attribution.occlusion(linear, IMAGES, CLASSES, size, stride)


def test_integrated_gradients_need_a_step():
    with pytest.raises(UserError, match="at least 1 step, not 0"):
        attribution.integrated_gradients(linear, IMAGES, CLASSES, steps=0)


def test_deletion_takes_the_highest_scores_first():
    def network(x):  # answers by the first pixel alone
        return jnp.stack([x[:, 0, 0, 0] * 20 - 10, jnp.zeros(len(x))], -1)

    images, classes = jnp.ones((2, 4, 4, 1)), jnp.zeros(2, int)
    first = jnp.zeros((2, 4, 4)).at[:, 0, 0].set(1.0)
    curve = np.asarray(attribution.deletion(network, images, classes, first, steps=16))
    assert curve.shape == (2, 17) and (curve[:, 0] > 0.99).all() and (curve[:, 1:] < 0.01).all()
    last = np.asarray(attribution.deletion(network, images, classes, -first, steps=16))
    assert (last[:, :16] > 0.99).all() and (last[:, 16] < 0.01).all()
    coarse = np.asarray(attribution.deletion(network, images, classes, -first, steps=3))
    assert (coarse[:, :3] > 0.99).all() and (coarse[:, 3] < 0.01).all()
