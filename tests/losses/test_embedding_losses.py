"""Negative sampling, angles and perplexity against SciPy, loops over words and products of probabilities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax

from dlfx.losses import embedding
from tests.compiling import quick

RNG = np.random.default_rng(0)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@DTYPES
def test_negative_sampling_is_mikolov_s_loop(dtype):
    centre, context, drawn = RNG.normal(size=(5, 8)), RNG.normal(size=(5, 8)), RNG.normal(size=(5, 3, 8))
    mask = RNG.random((5, 3)) < 0.6
    expected, masked = np.zeros((2, 5))
    for b in range(5):
        here = -np.log(expit(context[b] @ centre[b]))
        losses = [-np.log(expit(-u @ centre[b])) for u in drawn[b]]
        expected[b] = here + sum(losses)
        masked[b] = here + sum(loss for loss, counts in zip(losses, mask[b], strict=True) if counts)
    with jax.enable_x64(dtype == np.float64):
        v, u, us = (jnp.array(x, dtype) for x in (centre, context, drawn))

        def loss(v, mask=None):
            return embedding.negative_sampling((u * v).sum(-1), jnp.einsum("bkd,bd->bk", us, v), mask)

        rtol = 50 * np.finfo(dtype).eps
        np.testing.assert_allclose(quick(loss)(v), expected, rtol=rtol)
        np.testing.assert_allclose(quick(loss)(v, mask), masked, rtol=rtol)
        slope = jax.grad(lambda v: loss(v).sum())(v)
        positive, negatives = (context * centre).sum(-1), np.einsum("bkd,bd->bk", drawn, centre)
        by_hand = (expit(positive) - 1)[:, None] * context + np.einsum("bk,bkd->bd", expit(negatives), drawn)
        np.testing.assert_allclose(slope, by_hand, rtol=rtol, atol=rtol)


def test_negative_sampling_at_its_ends():
    np.testing.assert_allclose(embedding.negative_sampling(jnp.zeros(2), jnp.zeros((2, 5))), 6 * np.log(2), rtol=1e-6)
    for size in (1e4, -1e4):
        value, slope = jax.value_and_grad(embedding.negative_sampling, (0, 1))(jnp.float32(size), jnp.full(2, -size))
        assert value == (0 if size > 0 else 3e4) and all(np.isfinite(x).all() for x in slope)


@DTYPES
def test_lengths_and_angle_give_the_dot_product(dtype):
    x, kernel = RNG.normal(size=(2, 6, 2)), RNG.normal(size=(2, 4))
    with jax.enable_x64(dtype == np.float64):
        features, weights, tolerance = jnp.array(x, dtype), jnp.array(kernel, dtype), 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(
            quick(embedding.angular_logits)(features, weights), x @ kernel, rtol=tolerance, atol=tolerance
        )
        # The angles themselves, from the directions of vectors in the plane.
        angle = np.arctan2(x[..., 1], x[..., 0])[..., None] - np.arctan2(kernel[1], kernel[0])
        np.testing.assert_allclose(quick(embedding.cosines)(features, weights), np.cos(angle), atol=tolerance)
        weight = jnp.array(RNG.normal(size=(2, 6, 4)), dtype)
        ours, plain = (
            jax.grad(lambda x, w, f=f: (f(x, w) * weight).sum(), (0, 1))(features, weights)
            for f in (embedding.angular_logits, jnp.matmul)
        )
        for a, b in zip(ours, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=50 * tolerance, atol=50 * tolerance)


def test_a_vector_without_length_has_no_angle_and_no_nan():
    x, kernel = jnp.array([[0.0, 0.0], [3.0, 4.0]]), jnp.array([[1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(embedding.cosines(x, kernel), [[0, 0], [0.6, 0]])
    for f in (embedding.cosines, embedding.angular_logits):
        assert all(np.isfinite(g).all() for g in jax.grad(lambda *a, f=f: f(*a).sum(), (0, 1))(x, kernel))


@DTYPES
def test_the_probability_of_a_sentence_is_the_product_of_its_words(dtype):
    logits, tokens, lengths = RNG.normal(size=(3, 6, 5)) * 2, RNG.integers(0, 5, (3, 6)), [6, 1, 4]
    mask = np.arange(6) < np.array(lengths)[:, None]
    product = np.ones(3)
    for b in range(3):
        for t in range(lengths[b]):
            product[b] *= np.exp(log_softmax(logits[b, t]))[tokens[b, t]]
    with jax.enable_x64(dtype == np.float64):
        rtol = 50 * np.finfo(dtype).eps
        log_probs = quick(embedding.token_log_probs)(jnp.array(logits, dtype), tokens)
        assert log_probs.shape == (3, 6) and log_probs.dtype == dtype
        filled = jnp.where(mask, log_probs, jnp.nan)  # what stands after the end must not matter
        likelihood, perplexity = quick(embedding.negative_log_likelihood), quick(embedding.perplexity)
        np.testing.assert_allclose(jnp.exp(-likelihood(filled, mask)), product, rtol=rtol)
        np.testing.assert_allclose(perplexity(filled, mask), product ** (-1 / np.array(lengths)), rtol=rtol)
        np.testing.assert_allclose(perplexity(filled.ravel(), mask.ravel()), product.prod() ** (-1 / 11), rtol=rtol)
        whole = log_probs[:1]
        np.testing.assert_allclose(likelihood(whole), likelihood(whole, mask[:1]), rtol=rtol)
        np.testing.assert_allclose(perplexity(whole), perplexity(whole, mask[:1]), rtol=rtol)
        np.testing.assert_allclose(jax.vmap(embedding.perplexity)(filled, mask), perplexity(filled, mask), rtol=rtol)
        slope = jax.grad(lambda x: embedding.negative_log_likelihood(x, mask).sum())(filled)
        np.testing.assert_array_equal(slope, -1.0 * mask)


def test_perplexity_at_its_ends():
    uniform = embedding.token_log_probs(jnp.zeros((4, 50)), jnp.arange(4))
    np.testing.assert_allclose(embedding.perplexity(uniform), 50, rtol=1e-5)
    assert embedding.perplexity(jnp.zeros(4)) == 1  # every word was certain
    assert embedding.perplexity(uniform, jnp.zeros(4)) == 1  # there was none
    far = embedding.token_log_probs(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    assert far == -2e4 and embedding.perplexity(far) == np.inf


def test_negative_log_likelihood_is_pytorch_s_cross_entropy():
    torch = pytest.importorskip("torch")
    logits, tokens = RNG.normal(size=(7, 5)), RNG.integers(0, 5, 7)
    theirs = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(tokens), reduction="sum")
    with jax.enable_x64(True):
        ours = embedding.negative_log_likelihood(embedding.token_log_probs(jnp.array(logits), jnp.array(tokens)))
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-12)
