"""The evidence lower bound: its parts in closed form, and the whole where log p(x) is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from dlfx.learners import vae
from dlfx.losses import elbo
from tests.compiling import quick

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 1.0), (1.5, 0.3), (-0.4, 4.0)])
def test_the_divergence_is_the_integral_that_defines_it(mean, variance):
    q, p = stats.norm(mean, variance**0.5), stats.norm()
    expected, _ = integrate.quad(lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - 20, mean + 20)
    np.testing.assert_allclose(elbo.gaussian_kl(jnp.float32(mean), jnp.log(variance)), expected, rtol=1e-5, atol=1e-6)


def test_log_densities_are_scipy_s():
    x, mean, log_variance = RNG.normal(size=(3, 5, 2, 3, 1)).astype(np.float32)
    scale = np.exp(log_variance / 2)
    expected = stats.norm.logpdf(x, mean, scale)
    np.testing.assert_allclose(elbo.normal_log_density(x, mean, log_variance), expected, rtol=1e-4)
    np.testing.assert_allclose(elbo.normal_log_density(x), stats.norm.logpdf(x), rtol=1e-5)
    found = elbo.gaussian_log_likelihood(mean, jnp.float32(-1.3), x)
    np.testing.assert_allclose(found, stats.norm.logpdf(x, mean, np.exp(-0.65)).sum((1, 2, 3)), rtol=1e-4)


def test_the_bernoulli_likelihood_is_scipy_s_and_finite_anywhere():
    logits = 3 * RNG.normal(size=(5, 2, 3, 1)).astype(np.float32)
    x = RNG.integers(0, 2, logits.shape).astype(np.float32)
    expected = stats.bernoulli.logpmf(x, special.expit(logits)).sum((1, 2, 3))
    np.testing.assert_allclose(elbo.bernoulli_log_likelihood(logits, jnp.zeros(()), x), expected, rtol=1e-5)
    sure = jnp.full((1, 1, 1, 1), 1e4)
    value, slope = jax.value_and_grad(lambda y: elbo.bernoulli_log_likelihood(y, 0.0, 0 * sure)[0])(sure)
    assert value == -1e4 and slope.item() == -1
    at_zero = jax.grad(lambda y: elbo.bernoulli_log_likelihood(y, 0.0, sure / 1e4)[0])(0 * sure)
    assert at_zero.item() == 0.5  # x - sigmoid(0), whatever corner the formula has there


def test_the_gradient_of_an_expectation_through_its_draws():
    """E z^2 = mu^2 + s^2, so that its gradient is 2 mu and, by log s^2, s^2."""

    def mean_square(mean, log_variance):
        noise = jax.random.normal(jax.random.key(0), (200_000,))
        return (elbo.reparameterize(mean, log_variance, noise) ** 2).mean()

    slopes = jax.grad(mean_square, (0, 1))(0.7, np.log(1.5).astype(np.float32))
    np.testing.assert_allclose(slopes, (1.4, 1.5), rtol=0.02)


def test_importance_weights_are_averaged():
    log_weights = RNG.normal(size=(4, 7)) - 300  # whose exponentials are 0 in float32
    expected = np.log(np.exp(log_weights + 300).mean(-1)) - 300
    np.testing.assert_allclose(elbo.importance_weighted(log_weights), expected, rtol=1e-6)


def test_binarized_pixels_are_ones_as_often_as_they_are_bright():
    images = jnp.array([0.0, 1 / 255, 0.3, 0.999, 1.0]).repeat(200_000).reshape(5, -1)
    drawn = elbo.binarize(jax.random.bits(jax.random.key(1), images.shape, jnp.uint16), images)
    assert set(np.unique(drawn)) == {0, 1} and drawn.dtype == images.dtype
    np.testing.assert_allclose(drawn.mean(1), images[:, 0], atol=4e-3)
    assert not drawn[0].any() and drawn[-1].all()


class LinearGaussian:
    """Probabilistic PCA: p(z) = N(0, I), p(x | z) = N(W z + b, v I), so that log p(x) and p(z | x) are known.

    Its q(z | x) has the posterior's form for `factor` 1 and `shift` 0, as the columns of W are orthogonal.
    """

    W = np.linalg.qr(RNG.normal(size=(6, 2)))[0] * np.array([1.5, 0.8])
    b, v = RNG.normal(size=6), 0.3

    def __init__(self, shift=0.0, factor=1.0):
        self.shift, self.factor = shift, factor

    def posterior(self):
        precision = np.eye(2) + self.W.T @ self.W / self.v
        return np.linalg.inv(precision) @ self.W.T / self.v, np.diag(np.linalg.inv(precision))

    def apply(self, variables, x, labels, method):
        if method == "encode":
            project, variance = self.posterior()
            mean = (x.reshape(len(x), -1) - self.b) @ project.T + self.shift
            return mean, jnp.broadcast_to(np.log(variance * self.factor), mean.shape)
        return (x @ self.W.T + self.b).reshape(-1, 1, 2, 3), jnp.log(self.v)

    def log_evidence(self, x):
        covariance = self.W @ self.W.T + self.v * np.eye(6)
        return stats.multivariate_normal.logpdf(x.reshape(len(x), -1), self.b, covariance)

    def gap(self):
        """KL(q || posterior), the same for every x."""
        _, variance = self.posterior()
        return 0.5 * (self.factor + self.shift**2 / variance - 1 - np.log(self.factor)).sum()


X = jnp.asarray(RNG.normal(size=(4, 1, 2, 3)) * 1.5)
LABELS = jnp.zeros(4, jnp.int32)


def bound(model, samples, seed=0, copies=1):
    """The bounds `[copies, 4]` of so many independent draws."""
    noise = jax.random.normal(jax.random.key(seed), (copies, 4, samples, 2))
    return np.asarray(quick(jax.vmap(lambda e: vae.bound(model, {}, X, LABELS, e, "gaussian").value))(noise))


def test_with_the_exact_posterior_every_importance_weight_is_the_evidence():
    model = LinearGaussian()
    np.testing.assert_allclose(bound(model, 3), model.log_evidence(X)[None], rtol=1e-4)


def test_the_bound_misses_the_evidence_by_the_divergence_from_the_posterior():
    for model in (LinearGaussian(), LinearGaussian(0.5, 1.0), LinearGaussian(-0.2, 2.5)):
        found = bound(model, 1, copies=10_000)
        error = 4 * found.std(0) / 100
        assert (np.abs(model.log_evidence(X) - found.mean(0) - model.gap()) < error).all()
    assert LinearGaussian().gap() == 0 and model.gap() > 0.3


def test_the_sampled_and_the_closed_divergence_agree_in_expectation():
    model = LinearGaussian(0.3, 0.5)
    noise = jax.random.normal(jax.random.key(0), (4, 50_000, 2))
    found = vae.bound(model, {}, X, LABELS, noise, "gaussian")
    sampled = found.log_likelihood + found.log_ratio
    closed = found.log_likelihood - found.kl.sum(-1)[:, None]
    np.testing.assert_allclose(sampled.mean(1), closed.mean(1), atol=0.04)
    assert (np.asarray(sampled.std(1)) != np.asarray(closed.std(1))).all()


def test_more_draws_tighten_the_bound():
    model = LinearGaussian(0.4, 1.8)
    evidence = model.log_evidence(X).mean()
    gaps = [evidence - bound(model, k, copies=3000).mean() for k in (1, 2, 8, 64)]
    assert abs(gaps[0] - model.gap()) < 0.03
    assert gaps[0] > 1.3 * gaps[1] and gaps[1] > 1.5 * gaps[2] and gaps[2] > 2 * gaps[3] > -2e-2


def test_the_streamed_bound_comes_to_the_evidence_and_ignores_the_last_chunk_s_surplus():
    model, keys = LinearGaussian(0.4, 1.8), jax.random.split(jax.random.key(3), 4)

    def streamed(model, samples, chunk):
        return quick(lambda x: vae.log_evidence(model, {}, x, LABELS, keys, "gaussian", samples, chunk))(X)

    np.testing.assert_allclose(streamed(model, 10_000, 256), model.log_evidence(X), atol=0.05)
    np.testing.assert_allclose(streamed(LinearGaussian(), 5, 3), model.log_evidence(X), rtol=1e-4)
    noise = vae.row_noise(jax.vmap(lambda key: jax.random.fold_in(key, 0))(keys), 7, 2, jnp.float32)
    whole = vae.bound(model, {}, X, LABELS, noise, "gaussian").value
    np.testing.assert_allclose(streamed(model, 7, 7), whole, rtol=1e-5)
