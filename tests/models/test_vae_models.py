"""The networks of variational autoencoders: parameters counted by hand, shapes of any side, what depends on what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.generative import vae
from dlfx.models.generative.vqvae import VQVAE, CodePrior
from dlfx.types import UserError
from tests.compiling import quick


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def dense(latent=20, hidden=(500,), shape=(28, 28, 1), **options):
    return vae.VAE(vae.DenseEncoder(hidden), vae.DenseDecoder(shape, hidden[::-1]), latent, **options)


def conv(shape, latent=3, widths=(4, 6), **options):
    return vae.VAE(vae.ConvEncoder(widths, 1, (8,)), vae.ConvDecoder(shape, widths, 1, (8,)), latent, **options)


def initial(model, *inputs):
    return quick(model.init)(jax.random.key(0), *inputs)


def images(*shape):
    return jnp.asarray(np.random.default_rng(0).uniform(size=shape), jnp.float32)


def test_the_network_of_the_recipe_has_its_parameters():
    shapes = jax.eval_shape(dense().init, jax.random.key(0), images(1, 28, 28, 1), jnp.zeros(1, jnp.int32))
    encoder, decoder = 785 * 500 + 501 * 40, 21 * 500 + 501 * 784
    assert count(shapes) == encoder + decoder
    learned = dense(num_classes=10, variance=None)
    shapes = jax.eval_shape(learned.init, jax.random.key(0), images(1, 28, 28, 1), jnp.zeros(1, jnp.int32))
    assert count(shapes) == encoder + decoder + 2 * 10 * 500 + 1


@pytest.mark.parametrize("shape", [(8, 8, 1), (7, 5, 3)])
def test_convolutions_come_back_to_any_shape(shape):
    model, x, labels = conv(shape, num_classes=4), images(2, *shape), jnp.array([0, 3])
    variables = initial(model, x, labels)
    mean, log_variance = model.apply(variables, x, labels, method="encode")
    outputs, scale = model.apply(variables, mean, labels, method="decode")
    assert mean.shape == log_variance.shape == (2, 3) and outputs.shape == x.shape
    assert scale == 0  # the logarithm of the variance 1


@pytest.mark.parametrize("make", [dense, conv])
def test_both_networks_see_the_label_where_there_are_classes(make):
    x = images(1, 8, 8, 1).repeat(2, 0)
    for classes, differ in ((0, False), (3, True)):
        model = make(shape=(8, 8, 1), latent=2, num_classes=classes)
        labels = jnp.array([0, 2])
        variables = initial(model, x, labels)
        for found in (
            model.apply(variables, x, labels, method="encode")[0],
            model.apply(variables, jnp.ones((2, 2)), labels, method="decode")[0],
        ):
            assert np.allclose(found[0], found[1], atol=1e-5) != differ


def test_the_variance_is_given_or_learned():
    x, labels = images(1, 8, 8, 1), jnp.zeros(1, jnp.int32)
    fixed, learned = dense(shape=(8, 8, 1), variance=0.25), dense(shape=(8, 8, 1), variance=None)
    variables = initial(learned, x, labels)
    assert variables["params"]["log_variance"].shape == ()
    assert learned.apply(variables, jnp.ones((1, 20)), labels, method="decode")[1] == -4
    rest = {"params": {k: v for k, v in variables["params"].items() if k != "log_variance"}}
    np.testing.assert_allclose(fixed.apply(rest, jnp.ones((1, 20)), labels, method="decode")[1], np.log(0.25))


def test_precision_is_lost_inside_alone():
    model = vae.VAE(
        vae.DenseEncoder((8,), dtype=jnp.bfloat16), vae.DenseDecoder((2, 2, 1), (8,), dtype=jnp.bfloat16), 2,
        dtype=jnp.bfloat16,
    )  # fmt: skip
    x, labels = images(1, 2, 2, 1), jnp.zeros(1, jnp.int32)
    variables = initial(model, x, labels)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    encoded = model.apply(variables, x, labels, method="encode")
    decoded = model.apply(variables, encoded[0], labels, method="decode")
    assert all(value.dtype == jnp.float32 for value in (*encoded, *decoded))


def test_depth_to_space_is_pytorch_s_pixel_shuffle_by_indices():
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    found = vae.depth_to_space(jnp.asarray(x))
    assert found.shape == (1, 4, 6, 2)
    for i, j, c in np.ndindex(4, 6, 2):
        assert found[0, i, j, c] == x[0, i // 2, j // 2, (2 * (i % 2) + j % 2) * 2 + c]


def test_a_latent_of_nothing_is_refused():
    with pytest.raises(UserError, match="0 dimensions"):
        initial(dense(latent=0), images(1, 28, 28, 1), jnp.zeros(1, jnp.int32))


def test_the_networks_around_codes():
    model, x = VQVAE((9, 7, 1), 5, 3, (4, 6), prior_hidden=4), images(2, 9, 7, 1)
    variables = initial(model, x)
    vectors = model.apply(variables, x, method="encode")
    assert vectors.shape == (2, 3, 2, 3)
    assert model.apply(variables, vectors, method="decode")[0].shape == x.shape
    logits = model.apply(variables, jnp.zeros((2, 3, 2), jnp.int32), method="prior")
    assert logits.shape == (2, 3, 2, 5)


def test_the_prior_over_codes_is_a_distribution_in_which_no_code_sees_itself_or_what_follows():
    prior, codes = CodePrior(3, 4), jnp.asarray(list(np.ndindex(3, 3, 3)))
    shapes = jax.eval_shape(prior.init, jax.random.key(0), codes)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes)
    logits = np.asarray(quick(prior.apply)(variables, codes))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chances = np.take_along_axis(p, np.asarray(codes)[..., None], -1).prod((1, 2))
    np.testing.assert_allclose(chances.sum(), 1, rtol=1e-5)  # over all 27 sequences
    params = variables["params"]
    hidden = params["offset"] + params["table"][0, 2] + params["table"][1, 1]
    expected = (hidden / (1 + np.exp(-hidden))) @ params["weights"][2] + params["bias"][2]
    np.testing.assert_allclose(logits[np.ravel_multi_index((2, 1, 0), (3, 3, 3)), 2], expected, rtol=1e-4)
