"""Dice losses against loops over pixels, scikit-learn's F1 score, optax and the gradient that V-Net's authors give."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.metrics import f1_score

from dlfx.losses.classification import softmax_cross_entropy
from dlfx.losses.segmentation import binary_dice, multiclass_dice
from dlfx.types import UserError
from tests.compiling import quick

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 4, 5, 4)) * 2
LABELS = RNG.integers(0, 4, (3, 4, 5))
MASK = RNG.random((3, 4, 5)) < 0.7


def dice(probs, region, mask, smooth, squared):
    """Of one image and one region, pixel by pixel."""
    overlap = size = 0.0
    for p, y, counts in zip(probs.ravel(), region.ravel(), mask.ravel(), strict=True):
        if counts:
            overlap += p * y
            size += p * p + y * y if squared else p + y
    return 1 - (2 * overlap + smooth) / (size + smooth)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
@pytest.mark.parametrize("mask", [None, MASK])
def test_equal_loops_over_pixels(dtype, squared, smooth, mask):
    counts = np.ones_like(MASK) if mask is None else mask
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    sigmoid = 1 / (1 + np.exp(-LOGITS[..., 0]))
    with jax.enable_x64(dtype == np.float64):
        logits, rtol = jnp.array(LOGITS, dtype), 50 * np.finfo(dtype).eps
        found = quick(lambda x: multiclass_dice(x, LABELS, mask, smooth=smooth, squared=squared))(logits)
        assert found.dtype == dtype
        expected = [
            np.mean([dice(softmax[b, ..., k], LABELS[b] == k, counts[b], smooth, squared) for k in range(4)])
            for b in range(3)
        ]
        np.testing.assert_allclose(found, expected, rtol=rtol)
        found = quick(lambda x: binary_dice(x, LABELS == 1, mask, smooth=smooth, squared=squared))(logits[..., 0])
        expected = [dice(sigmoid[b], LABELS[b] == 1, counts[b], smooth, squared) for b in range(3)]
        np.testing.assert_allclose(found, expected, rtol=rtol)


@pytest.mark.parametrize("squared", [False, True])
def test_of_certain_predictions_it_is_one_less_f1(squared):
    """And so 0 for a perfect one, 1 for a disjoint one; logits of 1e4 leave values and gradients finite."""
    truth = LABELS == 2
    other = RNG.random(truth.shape) < 0.4
    for region in (truth, ~truth, other):
        logits = jnp.where(jnp.array(region), 1e4, -1e4)
        expected = [1 - f1_score(t.ravel(), r.ravel()) for t, r in zip(truth, region, strict=True)]
        loss, slope = jax.value_and_grad(lambda x: binary_dice(x, truth, smooth=0.0, squared=squared).sum())(logits)
        np.testing.assert_allclose(loss, sum(expected), rtol=1e-6, atol=1e-6)
        assert np.isfinite(slope).all()
    for smooth in (0.0, 1.0):
        np.testing.assert_array_equal(binary_dice(jnp.where(truth, 1e4, -1e4), truth, smooth=smooth), 0)
        certain = 1e4 * (2 * jax.nn.one_hot(LABELS, 4) - 1)
        np.testing.assert_array_equal(multiclass_dice(certain, LABELS, smooth=smooth, squared=squared), 0)


def test_an_empty_prediction_of_an_empty_region_is_right():
    def loss(logits, smooth):
        return binary_dice(logits, jnp.zeros((1, 2, 2)), smooth=smooth).sum()

    for smooth in (0.0, 1.0):
        value, slope = jax.value_and_grad(loss)(jnp.full((1, 2, 2), -1e4), smooth)
        assert value == 0 and np.isfinite(slope).all()
    nothing = jnp.zeros((1, 2, 2))
    assert binary_dice(jnp.ones((1, 2, 2)), nothing + 1, nothing, smooth=0.0) == 0  # no pixel counts


def test_agrees_with_optax_where_that_has_it():
    """optax halves numerator and denominator, so that its smoothing of 1 is one of 2."""
    logits, regions = jnp.array(LOGITS, jnp.float32), jax.nn.one_hot(LABELS, 4)
    np.testing.assert_allclose(
        multiclass_dice(logits, LABELS, smooth=2.0), optax.losses.dice_loss(logits, regions, smooth=1.0), rtol=1e-5
    )


def test_the_gradient_of_the_squared_form_is_that_of_v_net():
    """dD/dp_j = 2 (g_j (sum p^2 + sum g^2) - 2 p_j sum p g) / (sum p^2 + sum g^2)^2."""
    with jax.enable_x64(True):
        logits, g = jnp.array(LOGITS[:1, ..., 0]), (LABELS[:1] == 1).astype(float)
        slope = jax.grad(lambda x: binary_dice(x, g, smooth=0.0, squared=True).sum())(logits)
        p = 1 / (1 + np.exp(-np.asarray(logits)))
        size = (p**2 + g**2).sum()
        expected = -2 * (g * size - 2 * p * (p * g).sum()) / size**2 * p * (1 - p)
        np.testing.assert_allclose(slope, expected, rtol=1e-10)


def test_masked_pixels_count_neither_in_the_value_nor_in_the_gradient():
    mask = jnp.array(MASK)
    filled = np.where(MASK, LABELS, 255)  # what many data sets write where they do not know

    def loss(logits, labels):
        return multiclass_dice(logits, labels, mask).mean()

    logits = jnp.array(LOGITS, jnp.float32)
    value, slope = jax.value_and_grad(loss)(logits, filled)
    assert value == loss(jnp.where(mask[..., None], logits, 1e4), LABELS)
    assert not np.any(slope[~MASK]) and np.all(np.any(slope[MASK], -1))


def test_cross_entropy_by_pixels_is_that_of_all_pixels_in_a_row():
    logits = jnp.array(LOGITS, jnp.float32)
    found = quick(softmax_cross_entropy)(logits, LABELS)
    assert found.shape == (3, 4, 5)
    np.testing.assert_allclose(found.ravel(), softmax_cross_entropy(logits.reshape(-1, 4), LABELS.ravel()), rtol=1e-6)
    filled = np.where(MASK, LABELS, 255)
    slope = jax.grad(lambda x: jnp.where(MASK, softmax_cross_entropy(x, filled), 0).sum())(logits)
    expected = (jax.nn.softmax(logits) - jax.nn.one_hot(LABELS, 4)) * MASK[..., None]
    np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_pixels_are_counted_in_float32(dtype):
    """300 * 300 pixels are more than float16 can hold, and bfloat16 counts no further than 256."""
    logits = jnp.full((1, 300, 300), 100.0, dtype)
    truth = jnp.zeros((1, 300, 300)).at[0, 0, :150].set(1)
    loss = binary_dice(logits, truth, smooth=0.0)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 1 - 300 / (90000 + 150), rtol=1e-6)


def test_a_population_of_predictions_under_vmap():
    logits = jnp.array(RNG.normal(size=(2, *LOGITS.shape)), jnp.float32)
    found = quick(jax.vmap(lambda x: multiclass_dice(x, LABELS)))(logits)
    for member in range(2):
        np.testing.assert_allclose(found[member], multiclass_dice(logits[member], LABELS), rtol=1e-6)


def test_shapes_must_agree():
    with pytest.raises(UserError, match=r"targets of shape \(3, 4, 5, 1\), expected \(3, 4, 5\)"):
        binary_dice(jnp.zeros((3, 4, 5)), jnp.zeros((3, 4, 5, 1)))
    with pytest.raises(UserError, match=r"labels of shape \(3, 4, 5, 4\)"):
        multiclass_dice(jnp.zeros((3, 4, 5, 4)), jnp.zeros((3, 4, 5, 4), int))
    with pytest.raises(UserError, match=r"mask of shape \(4, 5\)"):
        multiclass_dice(jnp.zeros((3, 4, 5, 4)), jnp.zeros((3, 4, 5), int), jnp.ones((4, 5)))
