"""Divergences against SciPy, sums over every event, integrals and inverses; and where they are 0 or infinite."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.spatial.distance
import scipy.stats

from dlfx.losses import divergences
from tests.compiling import quick

RNG = np.random.default_rng(0)
P, Q = RNG.dirichlet(np.ones(6), (2, 4))
WITH_ZEROS = P * (RNG.random(P.shape) < 0.6)
WITH_ZEROS /= WITH_ZEROS.sum(-1, keepdims=True)
LOGITS_P, LOGITS_Q = RNG.normal(size=(2, 4, 6)) * 3
POSITIONS = RNG.normal(size=6)
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def rows(function):
    return lambda *arrays: np.array([function(*row) for row in zip(*arrays, strict=True)])


def most_different_event(p, q):
    """The largest difference in probability over all subsets of the classes."""
    events = itertools.product([0, 1], repeat=len(p))
    return max(abs(np.dot(event, p) - np.dot(event, q)) for event in events)


def transport(p, q):
    """The cheapest plan, as a linear program over all plans."""
    cost = np.abs(POSITIONS[:, None] - POSITIONS)
    sums = np.concatenate([np.kron(np.eye(6), np.ones(6)), np.kron(np.ones(6), np.eye(6))])
    return scipy.optimize.linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([p, q])).fun


def integral(mean, log_variance, other_mean, other_log_variance):
    """Over the line, of p log(p / q), coordinate by coordinate."""
    total = 0.0
    for m, s, n, t in zip(mean, log_variance, other_mean, other_log_variance, strict=True):
        p, q = scipy.stats.norm(m, np.exp(s / 2)), scipy.stats.norm(n, np.exp(t / 2))
        area = scipy.integrate.quad(lambda x, p=p, q=q: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), m - 12, m + 12)
        total += area[0]
    return total


def coin(logit_p, logit_q):
    p, q = 1 / (1 + np.exp(-logit_p)), 1 / (1 + np.exp(-logit_q))
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


GAUSSIANS = RNG.normal(size=(4, 4, 2)) * np.array([1.0, 0.4, 1.0, 0.4])[:, None, None]
# Ours, its arguments, and something that knows the answer by another way.
TABLE = [
    (divergences.entropy, (P,), rows(scipy.stats.entropy)),
    (divergences.entropy, (WITH_ZEROS,), rows(scipy.stats.entropy)),
    (divergences.cross_entropy, (P, Q), lambda p, q: -(p * np.log(q)).sum(-1)),
    (divergences.kl, (P, Q), rows(scipy.stats.entropy)),
    (divergences.kl, (WITH_ZEROS, Q), rows(scipy.stats.entropy)),
    (divergences.kl_categorical, (LOGITS_P, LOGITS_Q), lambda p, q: rows(scipy.stats.entropy)(softmax(p), softmax(q))),
    (divergences.kl_bernoulli, (LOGITS_P, LOGITS_Q), coin),
    (divergences.kl_diagonal_gaussians, tuple(GAUSSIANS), rows(integral)),
    (divergences.jensen_shannon, (P, Q), rows(lambda p, q: scipy.spatial.distance.jensenshannon(p, q) ** 2)),
    (divergences.jensen_shannon, (WITH_ZEROS, Q), rows(lambda p, q: scipy.spatial.distance.jensenshannon(p, q) ** 2)),
    (divergences.total_variation, (P, Q), rows(most_different_event)),
    (lambda p, q: divergences.wasserstein_1(p, q, jnp.array(POSITIONS, p.dtype)), (P, Q), rows(transport)),
]


@pytest.mark.parametrize(("ours", "arguments", "theirs"), TABLE)
@DTYPES
def test_values(ours, arguments, theirs, dtype):
    with jax.enable_x64(dtype == np.float64):
        arrays = [jnp.array(x, dtype) for x in arguments]
        found = quick(ours)(*arrays)
        assert found.dtype == dtype
        tolerance = 1e-5 if dtype == np.float32 else 1e-9
        np.testing.assert_allclose(found, theirs(*arguments), rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(jax.vmap(ours)(*arrays), found, rtol=tolerance)


@pytest.mark.parametrize(("ours", "arguments"), [row[:2] for row in TABLE if row[1][0] is not WITH_ZEROS])
def test_gradients_are_finite_differences(ours, arguments):
    """Along one direction: the slope of the loss is the inner product of its gradient with the direction."""
    directions, width = [RNG.normal(size=x.shape) for x in arguments], 1e-6
    with jax.enable_x64(True):
        total, places = quick(lambda *a: ours(*a).sum()), tuple(range(len(arguments)))
        ahead, behind = (
            total(*(x + step * v for x, v in zip(arguments, directions, strict=True))) for step in (width, -width)
        )
        gradients = quick(jax.grad(lambda *a: ours(*a).sum(), places))(*arguments)
        slope = sum((g * v).sum() for g, v in zip(gradients, directions, strict=True))
        np.testing.assert_allclose(slope, (ahead - behind) / (2 * width), rtol=1e-4, atol=1e-6)


def test_divergence_is_cross_entropy_less_entropy_and_its_gradients_are_the_textbook_s():
    with jax.enable_x64(True):
        p, q = jnp.array(WITH_ZEROS), jnp.array(Q)
        difference = divergences.cross_entropy(p, q) - divergences.entropy(p)
        np.testing.assert_allclose(divergences.kl(p, q), difference, rtol=1e-12)
        there = WITH_ZEROS > 0
        log_ratio = np.log(np.where(there, WITH_ZEROS / Q, 1))
        for loss, towards_p in [
            (divergences.kl, log_ratio + there),
            (divergences.cross_entropy, np.where(there, -np.log(Q), 0)),
        ]:
            found = jax.grad(lambda p, q, f=loss: f(p, q).sum(), (0, 1))(p, q)
            np.testing.assert_allclose(found[0], towards_p, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(found[1], -WITH_ZEROS / Q, rtol=1e-12)


def test_zeros():
    half, first, second = jnp.array([0.5, 0.5, 0.0]), jnp.array([1.0, 0.0, 0.0]), jnp.array([0.0, 1.0, 0.0])
    assert divergences.entropy(first) == 0
    np.testing.assert_allclose(divergences.kl(first, half), np.log(2), rtol=1e-6)
    assert divergences.kl(half, half) == divergences.kl(first, first) == divergences.jensen_shannon(half, half) == 0
    for f in (divergences.kl, divergences.cross_entropy):
        assert f(half, first) == np.inf and f(first, second) == np.inf
    functions = [divergences.kl, divergences.cross_entropy, divergences.jensen_shannon, divergences.total_variation]
    p, q = jnp.array(list(itertools.product([half, first, second], repeat=2))).swapaxes(0, 1)
    for f in functions:
        assert all(np.isfinite(g).all() for g in quick(jax.vmap(jax.grad(f, (0, 1))))(p, q))
    assert np.isfinite(jax.grad(divergences.entropy)(first)).all()


def test_jensen_shannon_and_the_value_of_the_best_critic():
    """max_D E_p log D + E_q log(1 - D), with D = p / (p + q), is -log 4 + 2 JS: 0 where disjoint."""
    d = P / (P + Q)
    value = (P * np.log(d) + Q * np.log(1 - d)).sum(-1)
    np.testing.assert_allclose(
        -np.log(4) + 2 * divergences.jensen_shannon(jnp.array(P), jnp.array(Q)), value, atol=1e-6
    )
    left, right = jnp.array([0.3, 0.7, 0, 0]), jnp.array([0, 0, 0.6, 0.4])
    for p, q, js, c in [(left, left, 0, -1.3863), (left, right, np.log(2), 0)]:
        assert divergences.jensen_shannon(p, q) == pytest.approx(js, abs=1e-7)
        assert -np.log(4) + 2 * divergences.jensen_shannon(p, q) == pytest.approx(c, abs=1e-4)
    smallest = jnp.array([1.0, jnp.finfo(jnp.float32).tiny])  # half of it is flushed to 0
    assert divergences.jensen_shannon(smallest, jnp.array([1.0, 0.0])) == pytest.approx(0, abs=1e-7)


@DTYPES
def test_gaussians_with_full_covariance(dtype):
    roots = RNG.normal(size=(2, 3, 3))
    (s, t), (m, n) = roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(3), RNG.normal(size=(2, 3))
    inverse, shift = np.linalg.inv(t), m - n
    logs = np.linalg.slogdet(t)[1] - np.linalg.slogdet(s)[1]
    expected = (np.trace(inverse @ s) - 3 + shift @ inverse @ shift + logs) / 2
    with jax.enable_x64(dtype == np.float64):
        tolerance = 1e-4 if dtype == np.float32 else 1e-12
        arrays = [jnp.array(x, dtype) for x in (m, s, n, t)]
        np.testing.assert_allclose(quick(divergences.kl_gaussians)(*arrays), expected, rtol=tolerance)
        two = jax.vmap(divergences.kl_gaussians)(
            *(jnp.stack([x, y]) for x, y in zip(arrays, arrays[2:] + arrays[:2], strict=True))
        )
        np.testing.assert_allclose(two[0], expected, rtol=tolerance)
        assert divergences.kl_gaussians(*arrays[:2], *arrays[:2]) == pytest.approx(0, abs=tolerance)
        slopes = jax.grad(divergences.kl_gaussians, (0, 2))(*arrays)
        np.testing.assert_allclose(slopes[0], inverse @ shift, rtol=10 * tolerance)
        np.testing.assert_allclose(slopes[1], -inverse @ shift, rtol=10 * tolerance)
        u, v = RNG.normal(size=(2, 3))
        full = divergences.kl_gaussians(arrays[0], jnp.diag(jnp.exp(u)), arrays[2], jnp.diag(jnp.exp(v)))
        diagonal = divergences.kl_diagonal_gaussians(arrays[0], u.astype(dtype), arrays[2], v.astype(dtype))
        np.testing.assert_allclose(full, diagonal, rtol=tolerance)
    assert np.isnan(divergences.kl_gaussians(jnp.zeros(2), -jnp.eye(2), jnp.zeros(2), jnp.eye(2)))


def test_logits_at_their_ends():
    """Finite at 1e4, and -inf is a class that cannot be."""
    for p, q, expected in [([1e4, -1e4], [-1e4, 1e4], 2e4), ([1e4, 0.0], [1e4, 0.0], 0), ([0.0, 0], [1e4, 0], 5e3)]:
        found, slopes = jax.value_and_grad(divergences.kl_categorical, (0, 1))(jnp.array(p), jnp.array(q))
        assert found == pytest.approx(expected, abs=1) and all(np.isfinite(g).all() for g in slopes)
    for p, q, expected in [(1e4, -1e4, 1e4), (-1e4, 1e4, 1e4), (1e4, 1e4, 0), (20.0, -20.0, 20)]:
        found, slopes = jax.value_and_grad(divergences.kl_bernoulli, (0, 1))(p, q)
        assert found == pytest.approx(expected, abs=1e-3) and all(np.isfinite(g).all() for g in slopes)
    masked, other = jnp.array([1.0, -jnp.inf, 2.0]), jnp.array([1.0, 5.0, 3.0])
    found, slope = jax.value_and_grad(divergences.kl_categorical)(masked, other)
    expected = divergences.kl(jax.nn.softmax(masked), jax.nn.softmax(other))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(slope).all() and divergences.kl_categorical(other, masked) == np.inf


def test_work_between_points_and_between_samples():
    """A unit of mass over a distance costs the distance; two samples lie on the places of both."""
    places = jnp.array([3.0, -1.0, 0.5])
    assert divergences.wasserstein_1(jnp.array([1.0, 0, 0]), jnp.array([0, 1.0, 0]), places) == 4
    assert divergences.wasserstein_1(places * 0 + 1 / 3, places * 0 + 1 / 3, places) == 0
    there = jax.grad(divergences.wasserstein_1)(places * 0 + 1 / 3, places * 0 + 1 / 3, places)
    assert not np.any(there)  # nothing pulls where there is nothing left to carry
    x, y = RNG.normal(size=7), RNG.normal(size=5) + 1
    p, q = np.repeat([1 / 7, 0], [7, 5]), np.repeat([0, 1 / 5], [7, 5])
    found = quick(divergences.wasserstein_1)(jnp.array(p), jnp.array(q), jnp.array(np.concatenate([x, y])))
    np.testing.assert_allclose(found, scipy.stats.wasserstein_distance(x, y), rtol=1e-5)


def test_divergences_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    d, kl = torch.distributions, torch.distributions.kl_divergence
    p, q, m, s = torch.tensor(LOGITS_P), torch.tensor(LOGITS_Q), *torch.tensor(GAUSSIANS[:2])
    with jax.enable_x64(True):
        for ours, theirs in [
            (
                divergences.kl(P, Q),
                torch.nn.functional.kl_div(torch.tensor(Q).log(), torch.tensor(P), reduction="none").sum(-1),
            ),
            (divergences.kl_categorical(LOGITS_P, LOGITS_Q), kl(d.Categorical(logits=p), d.Categorical(logits=q))),
            (divergences.kl_bernoulli(LOGITS_P, LOGITS_Q), kl(d.Bernoulli(logits=p), d.Bernoulli(logits=q))),
            (
                divergences.kl_diagonal_gaussians(*GAUSSIANS[:2], 0 * GAUSSIANS[0], 0 * GAUSSIANS[0]),
                kl(d.Normal(m, (s / 2).exp()), d.Normal(0 * m, 1 + 0 * s)).sum(-1),
            ),
        ]:
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-9)
