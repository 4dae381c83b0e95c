"""The learner of variational autoencoders: gradients in closed form, probabilistic PCA's optimum, the contract."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.learners import vae
from dlfx.types import UserError
from tests.compiling import quick


class Linear(nn.Module):
    """A linear encoder with one variance for all x, and a linear decoder with a learned or given one."""

    latent: int = 2
    pixels: int = 4
    variance: float | None = None

    def setup(self):
        self.project, self.generate = nn.Dense(self.latent), nn.Dense(self.pixels)
        self.spread = self.param("spread", nn.initializers.zeros, (self.latent,))
        if self.variance is None:
            self.log_variance = self.param("log_variance", nn.initializers.zeros, ())

    def __call__(self, images, labels):
        return self.decode(self.encode(images, labels)[0], labels)

    def encode(self, images, labels):
        mean = self.project(images.reshape(len(images), -1))
        return mean, jnp.broadcast_to(self.spread, mean.shape)

    def decode(self, latents, labels):
        scale = self.log_variance if self.variance is None else jnp.log(self.variance)
        return self.generate(latents).reshape(-1, 2, self.pixels // 2, 1), scale


RNG = np.random.default_rng(0)
BATCH = {"image": jnp.asarray(RNG.uniform(size=(6, 2, 2, 1)), jnp.float32), "label": jnp.zeros(6, jnp.int32)}


def learner(optimizer=None, model=None, **options):
    return vae.vae(model or Linear(), optimizer or optax.sgd(0.1), 2, **options)


@pytest.fixture(scope="module")
def state():
    return learner().init(jax.random.key(0), BATCH)


def noise(state, samples=1):
    """What the step draws."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0)
    return np.asarray(jax.random.normal(key, (6, samples, 2)))


def test_one_step_is_the_gradient_of_the_bound_in_closed_form(state):
    """Bernoulli pixels: the logits' gradient is p - x, and beta weighs the divergence's mu and (s^2 - 1) / 2."""
    beta = 0.7
    after, metrics = quick(learner(beta=beta).step)(state, BATCH)
    params = jax.tree.map(np.asarray, state.params)
    x, e = np.asarray(BATCH["image"]).reshape(6, 4), noise(state)[:, 0]
    mean = x @ params["project"]["kernel"] + params["project"]["bias"]
    scale = np.exp(params["spread"] / 2)
    z = mean + scale * e
    logits = z @ params["generate"]["kernel"] + params["generate"]["bias"]
    p = 1 / (1 + np.exp(-logits))
    to_z = (p - x) @ params["generate"]["kernel"].T
    expected = {
        ("generate", "kernel"): z.T @ (p - x) / 6,
        ("generate", "bias"): (p - x).mean(0),
        ("project", "kernel"): x.T @ (to_z + beta * mean) / 6,
        ("spread",): (to_z * e * scale / 2).mean(0) + beta * (scale**2 - 1) / 2,
    }
    for path, gradient in expected.items():
        before, moved = state.params, after.params
        for name in path:
            before, moved = before[name], moved[name]
        np.testing.assert_allclose(moved, before - 0.1 * gradient, rtol=1e-4, atol=1e-6, err_msg=str(path))
    reconstruction = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1).mean()
    kl = 0.5 * (mean**2 + scale**2 - 1 - params["spread"]).sum(1).mean()
    np.testing.assert_allclose(metrics["reconstruction"], reconstruction, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], reconstruction + kl, rtol=1e-5)  # without the weight
    assert after.step == 1 and (jax.random.key_data(after.key) == jax.random.key_data(state.key)).all()


def test_the_importance_weighted_objective_and_its_gradient_are_weighted_means(state):
    """The gradient of log mean w is the mean gradient of log w, weighted by w (Burda et al., equation 14)."""
    samples = 5
    after, metrics = quick(learner(samples=samples).step)(state, BATCH)
    params = jax.tree.map(np.asarray, state.params)
    x, e = np.asarray(BATCH["image"]).reshape(6, 1, 4), noise(state, samples)
    mean = x @ params["project"]["kernel"] + params["project"]["bias"]
    z = mean + np.exp(params["spread"] / 2) * e
    logits = z @ params["generate"]["kernel"] + params["generate"]["bias"]
    p = 1 / (1 + np.exp(-logits))
    log_w = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(-1)
    log_w += 0.5 * (e**2 + params["spread"] - z**2).sum(-1)
    np.testing.assert_allclose(metrics["loss"], -np.log(np.exp(log_w).mean(1)).mean(), rtol=1e-5)
    weights = np.exp(log_w) / np.exp(log_w).sum(1, keepdims=True)
    bias = params["generate"]["bias"] - 0.1 * (weights[..., None] * (p - x)).sum(1).mean(0)
    np.testing.assert_allclose(after.params["generate"]["bias"], bias, rtol=1e-4)


def test_the_weight_of_the_divergence_rises_linearly(state):
    """Far into the warm-up a step is that of the weight reached."""
    slow = quick(learner(beta=2.0, warmup_steps=10).step)
    for step, weight in ((0, 0.2), (4, 1.0), (9, 2.0), (30, 2.0)):
        at = state._replace(step=jnp.int32(step))
        expected = quick(learner(beta=weight).step)(at, BATCH)[0].params
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), slow(at, BATCH)[0].params, expected)


def test_free_bits_silence_latents_below_them_alone(state):
    """With more bits free than the divergence takes, its gradient is gone: as with beta 0."""
    free = quick(learner(free_bits=100.0).step)(state, BATCH)[0].params
    nothing = quick(learner(beta=0.0).step)(state, BATCH)[0].params
    whole = quick(learner().step)(state, BATCH)[0].params
    least = quick(learner(free_bits=1e-9).step)(state, BATCH)[0].params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), free, nothing)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), least, whole)
    assert not np.allclose(whole["spread"], nothing["spread"]) or not np.allclose(
        whole["project"]["kernel"], nothing["project"]["kernel"]
    )


def test_training_reaches_the_maximum_likelihood_of_probabilistic_pca():
    """Whose noise is the mean of the discarded eigenvalues (Tipping and Bishop 1999, equation 8)."""
    rng = np.random.default_rng(2)
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    data = rng.normal(size=(500, 4)) * np.sqrt([4.0, 2.0, 0.3, 0.2]) @ rotation.T
    data = (data - data.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(data.T, bias=True)).T)
    data = data * np.sqrt([4.0, 2.0, 0.3, 0.2]) @ rotation.T  # has exactly these eigenvalues
    batch = {"image": jnp.asarray(data.reshape(-1, 2, 2, 1), jnp.float32), "label": jnp.zeros(500, jnp.int32)}
    rule = learner(optax.adam(optax.cosine_decay_schedule(0.05, 2500)), likelihood="gaussian")

    @quick
    def run(key):
        return jax.lax.scan(lambda state, _: rule.step(state, batch), rule.init(key, batch), None, 2500)

    state, metrics = run(jax.random.key(0))
    noise_variance = 0.25
    best = 0.5 * (4 * np.log(2 * np.pi) + np.log(4.0 * 2.0) + 2 * np.log(noise_variance) + 4)
    np.testing.assert_allclose(np.exp(state.params["log_variance"]), noise_variance, rtol=0.05)
    np.testing.assert_allclose(metrics["loss"][-100:].mean(), best, atol=0.05)
    kernel = state.params["generate"]["kernel"]
    np.testing.assert_allclose(np.linalg.eigvalsh(kernel @ kernel.T), [1.75, 3.75], rtol=0.1)


def test_pixels_are_drawn_anew_at_every_step_and_the_same_for_the_same(state):
    rule = learner(optax.sgd(0.0), binarize=True)
    grey = {**BATCH, "image": jnp.full((6, 2, 2, 1), 0.5)}
    step = quick(rule.step)
    losses = [step(state._replace(step=jnp.int32(i)), grey)[1]["loss"] for i in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]
    drawn = vae.binarized(jax.random.key(0), jnp.full((100, 8, 8, 1), 0.3), None)
    assert set(np.unique(drawn)) == {0, 1} and abs(drawn.mean() - 0.3) < 0.02


def test_parts_on_several_devices_are_the_whole_batch(state):
    options = {"samples": 3, "binarize": True}
    whole, metrics = quick(learner(**options).step)(state, BATCH)
    parts = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), BATCH)
    split = jax.vmap(learner(**options, axis_name="data").step, (None, 0), axis_name="data")
    found, each = quick(split)(state, parts)
    np.testing.assert_allclose(each["loss"], metrics["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-6), found.params, whole.params)


@pytest.mark.parametrize("free_bits", [0.0, 0.01])
def test_free_bits_are_of_the_whole_batch_on_several_devices(state, free_bits):
    whole, _ = quick(learner(free_bits=free_bits).step)(state, BATCH)
    parts = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), BATCH)
    split = jax.vmap(learner(free_bits=free_bits, axis_name="data").step, (None, 0), axis_name="data")
    found, _ = quick(split)(state, parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-4, atol=1e-6), found.params, whole.params)


def test_it_compiles_once_and_survives_vmap_and_scan():
    traces = []
    rule = learner(optax.adam(0.05), binarize=True)

    @quick
    def run(keys):
        traces.append(1)
        states = jax.vmap(rule.init, (0, None))(keys, BATCH)

        def one(states, _):
            return jax.vmap(rule.step, (0, None))(states, BATCH)

        return jax.lax.scan(one, states, None, 100)

    keys = jax.random.split(jax.random.key(0), 3)
    (states, metrics), (again, _) = run(keys), run(keys)
    assert len(traces) == 1 and (states.step == 100).all()
    jax.tree.map(np.testing.assert_array_equal, states.params, again.params)
    assert (metrics["loss"][-20:].mean(0) < metrics["loss"][:5].mean(0)).all()
    assert (jax.random.key_data(states.key) == jax.random.key_data(keys)).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"likelihood": "gausian"}, "did you mean gaussian"),
        ({"samples": 0}, "samples = 0"),
        ({"beta": -1.0}, "beta = -1"),
        ({"free_bits": -0.5}, "free_bits = -0.5"),
        ({"likelihood": "gaussian", "binarize": True}, "bernoulli"),
        ({"samples": 2, "free_bits": 1.0}, "one sample"),
    ],
)
def test_what_is_not_possible_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        learner(**options)
    with pytest.raises(UserError, match="latent = 0"):
        vae.vae(Linear(), optax.sgd(0.1), 0)
