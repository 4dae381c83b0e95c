"""The learner of VQ-VAEs against NumPy: codes, the straight gradient, moving averages, restarts, and the prior."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners import vqvae
from dlfx.models.generative.vqvae import CodePrior
from dlfx.types import UserError
from tests.compiling import quick

WIDTH = 2


class Linear(nn.Module):
    """Two linear maps; every column of an image 2x2 is a position of the grid."""

    codes: int = 3

    def setup(self):
        self.project, self.generate = nn.Dense(WIDTH), nn.Dense(2)
        self.code_prior = CodePrior(self.codes, 4)

    def __call__(self, images):
        vectors = self.encode(images)
        return self.decode(vectors), self.prior(jnp.zeros(vectors.shape[:3], jnp.int32))

    def encode(self, images):
        return self.project(images.squeeze(-1).swapaxes(1, 2))[:, None]  # [B, 1, 2, WIDTH]

    def decode(self, vectors):
        return self.generate(vectors[:, 0]).swapaxes(1, 2)[..., None], jnp.log(0.5)

    def prior(self, codes):
        return self.code_prior(codes[:, 0])[:, None]


RNG = np.random.default_rng(0)
BATCH = {"image": jnp.asarray(RNG.uniform(size=(6, 2, 2, 1)), jnp.float32)}


def learner(optimizer=None, codes=3, **options):
    return vqvae.vqvae(Linear(codes), optimizer or optax.sgd(0.1), codes, WIDTH, **options)


def begin(rule):
    """A state whose codes lie where the vectors do."""
    state = rule.init(jax.random.key(0), BATCH)
    codebook = jnp.array([[0.2, 0.1], [-0.4, 0.6], [0.7, -0.3]])
    averages = state.averages and vqvae.Averages(jnp.array([2.0, 4.0, 6.0]), codebook * jnp.array([[2.0], [4], [6]]))
    return state._replace(codebook=codebook, averages=averages)


def in_numpy(state):
    """Vectors and their codes `[12, D]`, `[12]`, what is decoded, and the gradient that comes back to the entries."""
    params, codebook = jax.tree.map(np.asarray, (state.params, state.codebook))
    x = np.asarray(BATCH["image"])[..., 0].swapaxes(1, 2).reshape(12, 2)
    z = x @ params["project"]["kernel"] + params["project"]["bias"]
    codes = ((z[:, None] - codebook) ** 2).sum(-1).argmin(-1)
    e = codebook[codes]
    mean = e @ params["generate"]["kernel"] + params["generate"]["bias"]
    to_e = (mean - x) / 0.5 @ params["generate"]["kernel"].T
    return x, z, codes, e, mean, to_e


def test_the_encoder_gets_the_decoder_s_gradient_and_the_commitment_s():
    rule = learner(decay=0.0, commitment=0.4)
    state = begin(rule)
    after, metrics = quick(rule.step)(state, BATCH)
    x, z, codes, e, mean, to_e = in_numpy(state)
    assert len(set(codes)) > 1
    # Of 6 images; distances are means over the 2 positions of each.
    expected = x.T @ (to_e + 0.4 * 2 * (z - e) / 2) / 6
    moved = (state.params["project"]["kernel"] - after.params["project"]["kernel"]) / 0.1
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-5)
    expected = e.T @ (mean - x) / 0.5 / 6
    moved = (state.params["generate"]["kernel"] - after.params["generate"]["kernel"]) / 0.1
    np.testing.assert_allclose(moved, expected, rtol=1e-3, atol=1e-5)
    book = np.zeros((3, 2))
    np.add.at(book, codes, 2 * (e - z) / 2 / 6)
    np.testing.assert_allclose((state.codebook - after.codebook) / 0.1, book, rtol=1e-3, atol=1e-5)
    reconstruction = 0.5 * ((x - mean) ** 2 / 0.5 + np.log(2 * np.pi * 0.5)).sum() / 6
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(metrics["commitment"], ((z - e) ** 2).sum(-1).mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], metrics["reconstruction"] + metrics["prior"], rtol=1e-6)
    p = np.bincount(codes, minlength=3) / 12
    np.testing.assert_allclose(metrics["perplexity"], np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()), rtol=1e-5)
    assert after.averages is None and after.step == 1


def test_moving_averages_make_the_codebook():
    rule = learner(optax.adamw(0.1, weight_decay=0.5), decay=0.9)
    state = begin(rule)
    after, _ = quick(rule.step)(state, BATCH)
    _, z, codes, *_ = in_numpy(state)
    usage = 0.9 * np.asarray(state.averages.usage) + 0.1 * np.bincount(codes, minlength=3)
    totals = 0.9 * np.asarray(state.averages.totals)
    np.add.at(totals, codes, 0.1 * z)
    np.testing.assert_allclose(after.averages.usage, usage, rtol=1e-5)
    np.testing.assert_allclose(after.averages.totals, totals, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after.codebook, totals / usage[:, None], rtol=1e-3)


def test_a_code_that_is_hardly_used_begins_anew_at_a_vector_of_the_batch():
    rule = learner(decay=0.9, restart=1.0)
    state = begin(rule)
    far = vqvae.Averages(state.averages.usage.at[1].set(0.5), state.averages.totals.at[1].set(500.0))
    state = state._replace(codebook=state.codebook.at[1].set(1e3), averages=far)
    after, _ = quick(rule.step)(state, BATCH)
    _, z, codes, *_ = in_numpy(state)
    assert 1 not in codes
    assert np.abs(np.asarray(after.codebook)[1] - z).sum(-1).min() < 1e-4
    assert after.averages.usage[1] == 1 and after.averages.usage[0] != 1
    without = quick(learner(decay=0.9).step)(state, BATCH)[0]
    assert np.abs(without.codebook[1]).min() > 100


def test_the_prior_s_chance_of_samples_is_how_often_they_are_drawn():
    model = Linear()
    params = begin(learner()).params
    shapes = params["code_prior"]
    rng = np.random.default_rng(3)
    params = {
        **params,
        "code_prior": jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes),
    }
    drawn = np.asarray(quick(lambda key: vqvae.sample(model, params, (20_000, 1, 2), key))(jax.random.key(0)))
    every = jnp.asarray(list(np.ndindex(3, 3))).reshape(9, 1, 2)
    logits = model.apply({"params": params}, every, method="prior")
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), every[..., None], -1).sum((1, 2, 3))
    counts = np.bincount(drawn[:, 0, 0] * 3 + drawn[:, 0, 1], minlength=9)
    np.testing.assert_allclose(counts / 20_000, np.exp(log_p), atol=0.012)


def test_the_prior_learns_codes_that_depend_on_each_other_and_touches_nothing_else():
    rule = learner(optax.adam(0.1))
    state = begin(rule)
    halves = jnp.array([[0.1, 0.1], [0.1, 0.1]]), jnp.array([[0.9, 0.9], [0.2, 0.2]])
    batch = {"image": jnp.stack(halves * 4)[..., None]}  # both columns of an image are alike, and so their codes
    step = quick(lambda s: jax.lax.scan(lambda s, _: rule.step(s, batch), s, None, 200))
    _, metrics = step(state)
    assert abs(metrics["prior"][-1] - np.log(2)) < 0.05  # one of two pairs, not two independent codes: log 4
    other = {**state.params, "code_prior": jax.tree.map(lambda x: x + 1, state.params["code_prior"])}
    moved = [quick(rule.step)(state._replace(params=p), batch)[0].params["project"] for p in (state.params, other)]
    jax.tree.map(np.testing.assert_array_equal, *moved)


def test_perplexity_counts_codes():
    usage = jnp.array([[5.0, 5, 5, 5], [7, 0, 0, 0], [3, 3, 0, 0]])
    np.testing.assert_allclose(vqvae.perplexity(usage), [4, 1, 2], rtol=1e-6)


@pytest.mark.parametrize("options", [{"decay": 0.0}, {"decay": 0.9, "restart": 2.0}])
def test_parts_on_several_devices_are_the_whole_batch(options):
    options |= {"likelihood": "bernoulli", "binarize": True}
    state = begin(learner(**options))
    whole, metrics = quick(learner(**options).step)(state, BATCH)
    parts = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), BATCH)
    split = jax.vmap(learner(**options, axis_name="data").step, (None, 0), axis_name="data")
    found, each = quick(split)(state, parts)
    for name in ("loss", "perplexity", "commitment"):
        np.testing.assert_allclose(each[name], metrics[name], rtol=1e-5)
    for part in (found.params, found.codebook), (whole.params, whole.codebook):
        assert np.isfinite(jax.tree.leaves(part)[0]).all()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=1e-5),
        (found.params, found.codebook),
        (whole.params, whole.codebook),
    )


def test_it_compiles_once_and_survives_vmap_and_scan():
    traces = []
    rule = learner(optax.adam(0.02), restart=0.1)

    @quick
    def run(keys):
        traces.append(1)
        states = jax.vmap(rule.init, (0, None))(keys, BATCH)
        return jax.lax.scan(lambda s, _: jax.vmap(rule.step, (0, None))(s, BATCH), states, None, 100)

    keys = jax.random.split(jax.random.key(0), 3)
    (states, metrics), (again, _) = run(keys), run(keys)
    assert len(traces) == 1 and (states.step == 100).all()
    jax.tree.map(np.testing.assert_array_equal, states.codebook, again.codebook)
    assert (metrics["loss"][-1] < metrics["loss"][0] - 0.5).all()
    assert (jax.random.key_data(states.key) == jax.random.key_data(keys)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"likelihood": "cauchy"}, "there is bernoulli, gaussian"),
        ({"codes": 1}, "1 codes"),
        ({"decay": 1.0}, "decay is below 1"),
        ({"commitment": -0.1}, "commitment = -0.1"),
        ({"decay": 0.0, "restart": 1.0}, "moving averages"),
        ({"likelihood": "gaussian", "binarize": True}, "bernoulli"),
    ],
)
def test_what_is_not_possible_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        learner(**options)
