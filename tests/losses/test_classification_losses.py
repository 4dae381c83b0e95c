"""Cross-entropy against NumPy, and label smoothing against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.losses.classification import softmax_cross_entropy

LOGITS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 3
LABELS = np.array([0, 1, 2, 3, 4, 0, 2])


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
