"""The networks of autoencoders: shapes of codes, forward passes written out in NumPy, Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate2d
from scipy.special import expit

from dlfx.models.generative.autoencoder import Autoencoder, ConvolutionalAutoencoder, StackedAutoencoder
from dlfx.types import UserError
from tests.compiling import quick

SHAPE = (4, 4, 2)


def images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).random(shape), jnp.float32)


def made(model, x, **options):
    """Variables in which no bias is 0."""
    variables = quick(lambda key: model.init(key, x, **options))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return variables | {"params": jax.tree.unflatten(tree, noisy)}


def ran(model, variables, x, **options):
    return quick(lambda variables, x: model.apply(variables, x, **options))(variables, x)


@pytest.mark.parametrize(
    "model",
    [
        Autoencoder(SHAPE, (20, 3)),
        Autoencoder(SHAPE, (3,), tied=True),
        ConvolutionalAutoencoder(SHAPE, code_size=3, channels=(4, 6)),
    ],
)
def test_an_autoencoder_has_a_code_of_its_own_size(model):
    """Image to code to image: the code exists, is smaller here, and is all that the decoder sees."""
    x = images(5, *SHAPE)
    variables = made(model, x)
    outputs, code = ran(model, variables, x)
    assert code.shape == (5, 3) and outputs.shape == (5, *SHAPE)
    np.testing.assert_array_equal(code, ran(model, variables, x, method="encode"))
    np.testing.assert_array_equal(outputs, ran(model, variables, code, method="decode"))


def test_the_forward_pass_in_numpy():
    x = images(5, *SHAPE)
    model = Autoencoder(SHAPE, (20, 3), activation="tanh", code_activation="sigmoid")
    variables = made(model, x)
    p = jax.tree.map(np.asarray, variables["params"])
    flat = np.asarray(x).reshape(5, -1)
    hidden = np.tanh(flat @ p["encoder_0"]["kernel"] + p["encoder_0"]["bias"])
    code = expit(hidden @ p["encoder_1"]["kernel"] + p["encoder_1"]["bias"])
    back = np.tanh(code @ p["decoder_1"]["kernel"] + p["decoder_1"]["bias"])
    outputs = (back @ p["decoder_0"]["kernel"] + p["decoder_0"]["bias"]).reshape(x.shape)
    got = ran(model, variables, x)
    np.testing.assert_allclose(got[1], code, rtol=1e-5)
    np.testing.assert_allclose(got[0], outputs, rtol=1e-4, atol=1e-5)


def test_tied_decoders_use_the_transposed_kernels():
    x = images(5, *SHAPE)
    model = Autoencoder(SHAPE, (20, 3), activation="relu", code_activation="linear", tied=True)
    variables = made(model, x)
    p = jax.tree.map(np.asarray, variables["params"])
    assert set(p) == {"encoder_0", "encoder_1", "bias_0", "bias_1"}
    code = ran(model, variables, x, method="encode")
    back = np.maximum(code @ p["encoder_1"]["kernel"].T + p["bias_1"], 0) @ p["encoder_0"]["kernel"].T + p["bias_0"]
    np.testing.assert_allclose(ran(model, variables, x)[0].reshape(5, -1), back, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widths", [(7,), (9, 6, 5)])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "linear"])
def test_the_squared_jacobian_is_that_of_jax(widths, activation):
    x = images(4, *SHAPE)
    model = Autoencoder(SHAPE, widths, activation="tanh", code_activation=activation)
    variables = made(model, x)

    def code(image):
        return model.apply(variables, image[None], method="encode")[0]

    jacobians = quick(jax.vmap(jax.jacobian(code)))(x)
    got = ran(model, variables, x, method="squared_jacobian")
    np.testing.assert_allclose(got, (np.asarray(jacobians) ** 2).reshape(4, -1).sum(-1), rtol=1e-4)


def test_the_squared_jacobian_of_one_sigmoid_layer_in_closed_form():
    x = images(4, *SHAPE)
    model = Autoencoder(SHAPE, (7,))
    variables = made(model, x)
    h = np.asarray(ran(model, variables, x, method="encode"))
    columns = (np.asarray(variables["params"]["encoder_0"]["kernel"]) ** 2).sum(0)
    got = ran(model, variables, x, method="squared_jacobian")
    np.testing.assert_allclose(got, ((h * (1 - h)) ** 2 * columns).sum(-1), rtol=1e-5)


def convolve(x, layer, stride=1):
    """A 3x3 convolution with a rim of zeros, image by image and channel by channel."""
    kernel, bias = layer["kernel"], layer["bias"]
    out = [
        [sum(correlate2d(image[..., c], kernel[:, :, c, o], "same") for c in range(kernel.shape[2])) + bias[o]]
        for image in x
        for o in range(kernel.shape[3])
    ]
    out = np.array(out).reshape(len(x), kernel.shape[3], *x.shape[1:3])
    return np.moveaxis(out, 1, -1)[:, ::stride, ::stride]


def test_the_convolutional_forward_pass_in_numpy():
    x = images(3, 8, 4, 2)
    model = ConvolutionalAutoencoder((8, 4, 2), code_size=5, channels=(3, 4), code_activation="tanh")
    variables = made(model, x)
    p = jax.tree.map(np.asarray, variables["params"])
    first = np.maximum(convolve(np.asarray(x), p["encoder_0"], 2), 0)
    second = np.maximum(convolve(first, p["encoder_1"], 2), 0)
    assert first.shape == (3, 4, 2, 3) and second.shape == (3, 2, 1, 4)
    features = ran(model, variables, x, method="features")
    np.testing.assert_allclose(features["conv0"], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["conv1"], second, rtol=1e-4, atol=1e-5)
    code = np.tanh(second.reshape(3, -1) @ p["to_code"]["kernel"] + p["to_code"]["bias"])
    back = np.maximum(code @ p["from_code"]["kernel"] + p["from_code"]["bias"], 0).reshape(second.shape)
    back = np.maximum(convolve(np.kron(back, np.ones((1, 2, 2, 1))), p["decoder_1"]), 0)
    outputs = convolve(np.kron(back, np.ones((1, 2, 2, 1))), p["decoder_0"])
    got = ran(model, variables, x)
    np.testing.assert_allclose(got[1], code, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[0], outputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_stack_in_numpy(normalize):
    x = images(5, *SHAPE)
    model = StackedAutoencoder(SHAPE, (9, 7), num_classes=3, normalize=normalize)
    variables = made(model, x, method="everything")
    p = jax.tree.map(np.asarray, variables["params"])
    assert set(p) == {"layer_0", "layer_1", "decoder_0", "decoder_1", "output"}

    def layer(x, n, statistics=None):
        a = x @ p[f"layer_{n}"]["dense"]["kernel"] + p[f"layer_{n}"]["dense"].get("bias", 0)
        if normalize:
            mean, var = (a.mean(0), a.var(0)) if statistics else (0, 1)  # the running ones as they begin
            norm = p[f"layer_{n}"]["norm"]
            a = (a - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        return expit(a)

    def dense(x, name):
        return x @ p[name]["kernel"] + p[name]["bias"]

    codes = [np.asarray(x).reshape(5, -1)]
    for n in range(2):
        codes.append(layer(codes[-1], n))
    for depth, code in enumerate(codes):
        np.testing.assert_allclose(ran(model, variables, x, depth=depth, method="encode"), code, rtol=1e-4)
    logits, features = ran(model, variables, x)
    np.testing.assert_allclose(logits, dense(codes[2], "output"), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["layer_0"], codes[1], rtol=1e-4)

    got, _ = ran(model, variables, codes[1], n=1, train=True, method="reconstruct", mutable=["batch_stats"])
    np.testing.assert_allclose(got, dense(layer(codes[1], 1, statistics=True), "decoder_1"), rtol=1e-3, atol=1e-4)
    back = expit(dense(expit(dense(codes[2], "decoder_1")), "decoder_0")).reshape(x.shape)
    got = ran(model, variables, codes[2], depth=2, mean=jax.nn.sigmoid, method="decode")
    np.testing.assert_allclose(got, back, rtol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda dtype: Autoencoder(SHAPE, (6, 3), dtype=dtype),
        lambda dtype: Autoencoder(SHAPE, (6, 3), tied=True, dtype=dtype),
        lambda dtype: ConvolutionalAutoencoder(SHAPE, 3, (4,), dtype=dtype),
    ],
)
def test_bfloat16_is_close_and_its_outputs_are_float32(make):
    x = images(3, *SHAPE)
    variables = made(make(jnp.float32), x)
    outputs, code = ran(make(jnp.bfloat16), variables, x)
    assert outputs.dtype == code.dtype == jnp.float32
    np.testing.assert_allclose(outputs, ran(make(jnp.float32), variables, x)[0], atol=0.1)


@pytest.mark.parametrize(
    ("model", "shape", "says"),
    [
        (Autoencoder(SHAPE, (0,)), SHAPE, "code of 0 units.*at least 1"),
        (Autoencoder(SHAPE, (3,), code_activation="sigmod"), SHAPE, "did you mean sigmoid"),
        (Autoencoder(SHAPE, (3,)), (8, 8, 1), r"of images of \[4, 4, 2\]; got \[8, 8, 1\]"),
        (ConvolutionalAutoencoder((6, 6, 1), 3), (6, 6, 1), "multiples of 4; got 6x6"),
        (ConvolutionalAutoencoder(SHAPE, 0), SHAPE, "code of 0 units"),
        (StackedAutoencoder(SHAPE, (4,), initializer="hee"), SHAPE, "did you mean he"),
    ],
)
def test_mistakes_get_one_line(model, shape, says):
    with pytest.raises(UserError, match=says):
        model.init(jax.random.key(0), images(2, *shape))
