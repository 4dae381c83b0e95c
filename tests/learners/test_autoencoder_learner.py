"""The learner of autoencoders: losses in closed form, one step by hand, principal components, a shared batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import subspace_angles
from scipy.special import expit, rel_entr
from sklearn.decomposition import PCA

from dlfx.learners.autoencoder import autoencoder, corrupt, kl_sparsity, mean, reconstruct, reconstruction_loss
from dlfx.models.generative.autoencoder import Autoencoder
from dlfx.types import UserError
from tests.compiling import quick

SHAPE = (3, 2, 1)
MODEL = Autoencoder(SHAPE, (4,))


@pytest.fixture
def batch():
    return {"image": jnp.asarray(np.random.default_rng(0).random((8, *SHAPE)), jnp.float32)}


def test_the_losses_in_numpy(batch):
    x = np.asarray(batch["image"], np.float64)
    y = np.random.default_rng(1).normal(size=x.shape)
    got = reconstruction_loss("squared", jnp.asarray(y), jnp.asarray(x))
    np.testing.assert_allclose(got, ((x - y) ** 2).reshape(8, -1).sum(-1), rtol=1e-5)
    p = expit(y)
    nats = -(x * np.log(p) + (1 - x) * np.log(1 - p)).reshape(8, -1).sum(-1)
    np.testing.assert_allclose(reconstruction_loss("bernoulli", jnp.asarray(y), jnp.asarray(x)), nats, rtol=1e-5)
    np.testing.assert_allclose(mean("bernoulli", jnp.asarray(y)), p, rtol=1e-5)
    assert (mean("squared", jnp.asarray(y)) == jnp.asarray(y)).all()


def test_one_step_of_a_linear_autoencoder_is_the_closed_form(batch):
    model = Autoencoder(SHAPE, (2,), code_activation="linear")
    learner = autoencoder(model, optax.sgd(0.01))
    before = learner.init(jax.random.key(0), batch)
    after, metrics = quick(learner.step)(before, batch)
    x = np.asarray(batch["image"]).reshape(8, -1)
    w, v = (np.asarray(before.params[f"{name}_0"]["kernel"]) for name in ("encoder", "decoder"))
    away = x @ w @ v - x  # biases begin at 0
    gradient = {"encoder_0": 2 * x.T @ away @ v.T / 8, "decoder_0": 2 * (x @ w).T @ away / 8}
    for name, value in gradient.items():
        wanted = np.asarray(before.params[name]["kernel"]) - 0.01 * value
        np.testing.assert_allclose(after.params[name]["kernel"], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], (away**2).sum(-1).mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["pixel_error"], (away**2).mean(), rtol=1e-5)
    assert after.step == 1 and (jax.random.key_data(after.key) == jax.random.key_data(before.key)).all()


def test_a_linear_autoencoder_finds_the_principal_components():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    x = rng.normal(size=(200, 8)) * [3, 2.5, 2, 0.6, 0.5, 0.4, 0.3, 0.2] @ turn + rng.normal(size=8)
    pca = PCA(3).fit(x)
    batch = {"image": jnp.asarray(x.reshape(-1, 4, 2, 1), jnp.float32)}
    model = Autoencoder((4, 2, 1), (3,), code_activation="linear")
    learner = autoencoder(model, optax.adam(optax.cosine_decay_schedule(0.03, 5000)))

    def run(state):
        return jax.lax.scan(lambda state, _: learner.step(state, batch), state, None, 5000)

    state, metrics = quick(run)(learner.init(jax.random.key(0), batch))
    residual = ((x - pca.inverse_transform(pca.transform(x))) ** 2).sum(-1).mean()
    assert residual * (1 - 1e-5) < metrics["loss"][-1] < residual * 1.001
    components = pca.components_.T
    assert subspace_angles(np.asarray(state.params["decoder_0"]["kernel"]).T, components).max() < 0.01
    assert subspace_angles(np.asarray(state.params["encoder_0"]["kernel"]), components).max() < 0.05


def test_masking_zeroes_a_share_of_the_elements_and_gaussian_noise_has_its_deviation():
    x = jnp.asarray(1 + np.random.default_rng(0).random((200, 5, 5, 1)), jnp.float32)
    masked = np.asarray(corrupt("masking", 0.3, jax.random.key(0), x))
    gone = masked == 0
    assert abs(gone.mean() - 0.3) < 0.03 and (masked[~gone] == np.asarray(x)[~gone]).all()
    noise = np.asarray(corrupt("gaussian", 0.3, jax.random.key(0), x) - x)
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.02
    assert corrupt("gaussian", 0.0, jax.random.key(0), x) is x


@pytest.mark.parametrize("kind", ["masking", "gaussian"])
def test_a_denoising_step_sees_corrupted_images_and_wants_clean_ones(batch, kind):
    learner = autoencoder(MODEL, optax.sgd(0.0), loss="bernoulli", corruption=kind, amount=0.4)
    state = learner.init(jax.random.key(0), batch)._replace(step=jnp.int32(5))
    given = corrupt(kind, 0.4, jax.random.fold_in(state.key, 5), batch["image"])
    outputs, _ = MODEL.apply({"params": state.params}, given)
    wanted = reconstruction_loss("bernoulli", outputs, batch["image"]).mean()
    np.testing.assert_allclose(quick(learner.step)(state, batch)[1]["loss"], wanted, rtol=1e-5)
    other = quick(learner.step)(state._replace(step=jnp.int32(6)), batch)[1]["loss"]
    assert abs(other - wanted) > 1e-4


def test_the_divergence_of_mean_activations_is_scipys():
    active = np.array([0.01, 0.2, 0.5, 0.93])
    wanted = (rel_entr(0.05, active) + rel_entr(0.95, 1 - active)).sum()
    np.testing.assert_allclose(kl_sparsity(jnp.asarray(active), 0.05), wanted, rtol=1e-5)
    assert abs(kl_sparsity(jnp.full(3, 0.05), 0.05)) < 1e-6
    assert jnp.isfinite(kl_sparsity(jnp.array([0.0, 1.0]), 0.05))


@pytest.mark.parametrize("sparsity", ["kl", "l1"])
def test_penalties_are_weighed_and_added(batch, sparsity):
    learner = autoencoder(
        MODEL, optax.sgd(0.0), sparsity=sparsity, sparsity_weight=0.7, sparsity_target=0.1, contraction=0.3
    )
    state = learner.init(jax.random.key(0), batch)
    metrics = quick(learner.step)(state, batch)[1]
    outputs, _, code = reconstruct(MODEL, state, batch["image"], "squared")
    h = np.asarray(code, np.float64)
    penalty = np.abs(h).sum(-1).mean()
    if sparsity == "kl":
        penalty = (rel_entr(0.1, h.mean(0)) + rel_entr(0.9, 1 - h.mean(0))).sum()
    columns = (np.asarray(state.params["encoder_0"]["kernel"]) ** 2).sum(0)
    contraction = ((h * (1 - h)) ** 2 * columns).sum(-1).mean()
    plain = reconstruction_loss("squared", outputs, batch["image"]).mean()
    np.testing.assert_allclose(metrics["sparsity_loss"], penalty, rtol=1e-4)
    np.testing.assert_allclose(metrics["contraction_loss"], contraction, rtol=1e-4)
    np.testing.assert_allclose(metrics["reconstruction_loss"], plain, rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], plain + 0.7 * penalty + 0.3 * contraction, rtol=1e-4)


def trained(options, batch, steps=800):
    learner = autoencoder(Autoencoder(SHAPE, (12,)), optax.adam(0.01), **options)
    state = learner.init(jax.random.key(0), batch)
    last, metrics = quick(lambda s: jax.lax.scan(lambda s, _: learner.step(s, batch), s, None, steps))(state)
    return last, metrics


def test_penalties_do_what_they_are_for(batch):
    """The sparse code reaches its mean activation, the contractive encoder moves less than the plain one."""
    model = Autoencoder(SHAPE, (12,))

    def both(state):
        code = model.apply({"params": state.params}, batch["image"], method="encode")
        return code.mean(), model.apply({"params": state.params}, batch["image"], method="squared_jacobian").mean()

    plain, sparse, contractive = (
        both(trained(options, batch)[0])
        for options in ({}, {"sparsity_weight": 1.0, "sparsity_target": 0.1}, {"contraction": 1.0})
    )
    assert plain[0] > 0.3 and abs(sparse[0] - 0.1) < 0.03
    assert contractive[1] < plain[1] / 4


@pytest.mark.parametrize("corruption", ["masking", "gaussian"])
@pytest.mark.parametrize("sparsity", ["kl", "l1"])
def test_a_batch_shared_by_devices_is_one_batch(batch, corruption, sparsity):
    """Noise by row of the whole batch, the divergence of its whole mean, and so the same gradient."""
    options = {
        "corruption": corruption,
        "amount": 0.3,
        "sparsity": sparsity,
        "sparsity_weight": 2.0,
        "contraction": 0.5,
    }
    whole = autoencoder(MODEL, optax.sgd(0.1), **options)
    split = autoencoder(MODEL, optax.sgd(0.1), axis_name="data", **options)
    state = whole.init(jax.random.key(0), batch)
    halves = jax.tree.map(lambda x: x.reshape(2, 4, *x.shape[1:]), batch)
    parts, metrics = quick(jax.vmap(split.step, (None, 0), axis_name="data"))(state, halves)
    wanted, told = quick(whole.step)(state, batch)
    for name, value in told.items():
        np.testing.assert_allclose(metrics[name], jnp.stack([value, value]), rtol=1e-5, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5, atol=1e-6), parts.params, wanted.params)


def test_it_survives_vmap_and_scan_and_repeats(batch):
    learner = autoencoder(MODEL, optax.adam(0.02), loss="bernoulli", amount=0.2)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    traces = []

    def step(state, _):
        traces.append(1)
        return learner.step(state, batch)

    run = quick(jax.vmap(lambda state: jax.lax.scan(step, state, None, 100)))
    states = jax.vmap(learner.init, (0, None))(keys, batch)
    after, metrics = run(states)
    losses = metrics["loss"]
    assert (losses[:, -10:].mean(1) < losses[:, :10].mean(1)).all() and len(set(losses[:, -1].tolist())) == 3
    again = run(states)[0]
    jax.tree.map(np.testing.assert_array_equal, after.params, again.params)
    assert len(traces) == 1
    assert (jax.random.key_data(after.key) == jax.random.key_data(keys)).all()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"loss": "square"}, "unknown loss 'square'; did you mean squared"),
        ({"corruption": "mask"}, "unknown corruption 'mask'; did you mean masking"),
        ({"sparsity": "l2"}, "unknown sparsity 'l2'"),
        ({"amount": 1.0}, "corruption of 1 .*below 1"),
        ({"amount": -0.1}, "corruption of -0.1"),
        ({"sparsity_target": 0.0}, "mean activation of 0"),
    ],
)
def test_mistakes_get_one_line(options, says):
    with pytest.raises(UserError, match=says):
        autoencoder(MODEL, optax.sgd(0.1), **options)
