"""Losses of classification against their definitions, SciPy, scikit-learn and PyTorch, and at the ends of the range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.test_util import check_grads
from sklearn.metrics import log_loss, zero_one_loss

from dlfx.losses import classification
from dlfx.losses.classification import softmax_cross_entropy
from dlfx.losses.divergences import cross_entropy
from tests.compiling import quick

LOGITS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 4, 0, 2])
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_equals_the_definition(smoothing):
    log_p = LOGITS - np.log(np.exp(LOGITS.astype(np.float64)).sum(-1, keepdims=True))
    q = np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5
    got = softmax_cross_entropy(jnp.array(LOGITS), jnp.array(LABELS), smoothing)
    np.testing.assert_allclose(got, -(q * log_p).sum(-1), rtol=1e-5)


def test_the_gradient_is_the_probability_less_the_target():
    gradient = jax.grad(lambda x: softmax_cross_entropy(x, jnp.array(LABELS)).sum())(jnp.array(LOGITS))
    np.testing.assert_allclose(gradient, jax.nn.softmax(LOGITS) - np.eye(5)[LABELS], atol=1e-6)


def test_smoothing_keeps_the_precision_of_the_logits():
    assert softmax_cross_entropy(jnp.array(LOGITS, jnp.bfloat16), jnp.array(LABELS), 0.1).dtype == jnp.bfloat16


@DTYPES
def test_softmax_loss_is_cross_entropy_after_softmax_and_its_mean_is_the_cost(dtype):
    """What lists cross-entropy and softmax loss lists one loss twice; the cost is the mean over examples."""
    with jax.enable_x64(dtype == np.float64):
        logits, rtol = jnp.array(LOGITS, dtype), 50 * np.finfo(dtype).eps
        one_hot = jax.nn.one_hot(LABELS, 5, dtype=dtype)
        loss = quick(classification.softmax_cross_entropy)(logits, LABELS)
        assert loss.shape == (7,) and loss.dtype == dtype
        np.testing.assert_allclose(loss, cross_entropy(one_hot, jax.nn.softmax(logits)), rtol=rtol)
        np.testing.assert_allclose(
            loss, quick(classification.softmax_cross_entropy_with_probabilities)(logits, one_hot), rtol=rtol
        )
        probs = scipy.special.softmax(LOGITS.astype(np.float64), -1)
        np.testing.assert_allclose(loss.mean(), log_loss(LABELS, probs), rtol=rtol)
        np.testing.assert_allclose(jax.vmap(classification.softmax_cross_entropy)(logits, LABELS), loss, rtol=rtol)


@DTYPES
def test_target_probabilities(dtype):
    targets = np.random.default_rng(1).dirichlet(np.ones(5), 7)
    with jax.enable_x64(dtype == np.float64):
        logits, y, rtol = jnp.array(LOGITS, dtype), jnp.array(targets, dtype), 50 * np.finfo(dtype).eps
        loss = classification.softmax_cross_entropy_with_probabilities
        expected = -(targets * scipy.special.log_softmax(LOGITS.astype(np.float64), -1)).sum(-1)
        np.testing.assert_allclose(quick(loss)(logits, y), expected, rtol=rtol)
        slope = jax.grad(lambda x: loss(x, y).sum())(logits)
        np.testing.assert_allclose(slope, jax.nn.softmax(logits) - y, atol=rtol)
        binary, expected = classification.sigmoid_cross_entropy, scipy.special.expit(LOGITS.astype(np.float64))
        np.testing.assert_allclose(
            quick(binary)(logits, y), -targets * np.log(expected) - (1 - targets) * np.log1p(-expected), rtol=rtol
        )
        slope = jax.grad(lambda x: binary(x, y).sum())(logits)
        np.testing.assert_allclose(slope, expected - targets, atol=rtol)
    impossible = jnp.array([1.0, -jnp.inf, 2.0])
    value, slope = jax.value_and_grad(loss)(impossible, jnp.array([0.5, 0.0, 0.5]))
    assert value == pytest.approx(np.log(np.exp(-1) + 1) + 0.5, rel=1e-6) and np.isfinite(slope).all()


def test_binary_cross_entropy_is_scikit_learn_s_and_softmax_of_two():
    logits, labels = jnp.array(LOGITS[:, 0]), LABELS % 2
    loss = classification.sigmoid_cross_entropy(logits, labels)
    np.testing.assert_allclose(loss.mean(), log_loss(labels, scipy.special.expit(LOGITS[:, 0])), rtol=1e-5)
    pairs = jnp.stack([jnp.zeros(7), logits], -1)
    np.testing.assert_allclose(loss, classification.softmax_cross_entropy(pairs, labels), rtol=1e-5, atol=1e-6)


def test_zero_one_loss_is_scikit_learn_s():
    loss = quick(classification.zero_one)(jnp.array(LOGITS), LABELS)
    assert loss.dtype == jnp.float32 and set(loss.tolist()) == {0.0, 1.0}
    np.testing.assert_allclose(loss.mean(), zero_one_loss(LABELS, LOGITS.argmax(-1)), rtol=1e-6)
    assert not np.any(jax.grad(lambda x: classification.zero_one(x, LABELS).sum())(jnp.array(LOGITS)))


@DTYPES
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_losses_are_lin_s_loop(dtype, gamma):
    probs, alpha = scipy.special.softmax(LOGITS.astype(np.float64), -1), np.linspace(0.1, 0.9, 5)
    truth, coin = np.eye(5)[LABELS], scipy.special.expit(LOGITS.astype(np.float64))
    p_t, alpha_t = np.where(truth, coin, 1 - coin), np.where(truth, 0.25, 0.75)
    expected = [-((1 - p[y]) ** gamma) * np.log(p[y]) for p, y in zip(probs, LABELS, strict=True)]
    with jax.enable_x64(dtype == np.float64):
        logits, rtol = jnp.array(LOGITS, dtype), 100 * np.finfo(dtype).eps
        focal = quick(lambda x, alpha=None: classification.softmax_focal(x, LABELS, gamma, alpha))
        assert focal(logits).dtype == dtype
        np.testing.assert_allclose(focal(logits), expected, rtol=rtol)
        np.testing.assert_allclose(focal(logits, jnp.array(alpha, dtype)), alpha[LABELS] * expected, rtol=rtol)
        binary = quick(lambda x: classification.sigmoid_focal(x, truth, gamma, 0.25))(logits)
        np.testing.assert_allclose(binary, -alpha_t * (1 - p_t) ** gamma * np.log(p_t), rtol=rtol)
        if not gamma:
            np.testing.assert_allclose(focal(logits), classification.softmax_cross_entropy(logits, LABELS), rtol=rtol)
            np.testing.assert_allclose(
                classification.sigmoid_focal(logits, truth, 0.0),
                classification.sigmoid_cross_entropy(logits, truth),
                rtol=rtol,
            )
    with jax.enable_x64(True):
        logits = jnp.array(LOGITS, np.float64)
        check_grads(lambda x: classification.softmax_focal(x, LABELS, gamma).sum(), [logits], 1, "rev", rtol=1e-5)


EXTREMES = jnp.array([1e4, -1e4, 0.0, 1e4, 30.0])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: classification.softmax_cross_entropy(x, y),
        lambda x, y: classification.softmax_cross_entropy(x, y, 0.1),
        lambda x, y: classification.softmax_cross_entropy_with_probabilities(x, jax.nn.one_hot(y, 5)),
        lambda x, y: classification.sigmoid_cross_entropy(x, jax.nn.one_hot(y, 5)).sum(),
        *(lambda x, y, g=g: classification.softmax_focal(x, y, g) for g in (0.0, 0.5, 2.0)),
        *(lambda x, y, g=g: classification.sigmoid_focal(x, jax.nn.one_hot(y, 5), g).sum() for g in (0.0, 0.5, 2.0)),
    ],
)
def test_values_and_gradients_are_finite_at_ten_thousand(loss):
    logits = jnp.concatenate([jnp.tile(EXTREMES, (5, 1)), jnp.tile(-EXTREMES, (5, 1)), jnp.full((5, 5), 1e4)])
    values, slopes = quick(jax.vmap(jax.value_and_grad(loss)))(logits, jnp.tile(jnp.arange(5), 3))
    assert np.isfinite(values).all() and np.isfinite(slopes).all() and (values >= 0).all()


def test_softmax_of_two_and_thirty():
    np.testing.assert_allclose(jax.nn.softmax(jnp.array([2.0, 30.0])), [6.914e-13, 1], rtol=1e-4)
    np.testing.assert_allclose(classification.softmax_cross_entropy(jnp.array([2.0, 30.0]), jnp.array(0)), 28)


def test_losses_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    functional, logits = torch.nn.functional, torch.tensor(LOGITS.astype(np.float64))
    labels, truth = torch.tensor(LABELS), torch.tensor(np.eye(5)[LABELS])
    with jax.enable_x64(True):
        ours = jnp.array(LOGITS, np.float64)
        for loss, theirs in [
            (classification.softmax_cross_entropy(ours, LABELS), functional.cross_entropy(logits, labels)),
            (
                classification.softmax_cross_entropy(ours, LABELS, 0.1),
                functional.cross_entropy(logits, labels, label_smoothing=0.1),
            ),
            (
                classification.sigmoid_cross_entropy(ours, truth.numpy()),
                functional.binary_cross_entropy_with_logits(logits, truth),
            ),
        ]:
            np.testing.assert_allclose(loss.mean(), theirs.item(), rtol=1e-12)
