"""Classifiers and taggers of sequences: padding, PyTorch, what stays and what is trained, and formulas by hand."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.tagger import Tagger
from dlfx.models.sequence.text_classifier import (
    CHANNELS,
    ConvolutionalEncoder,
    RecurrentEncoder,
    TextClassifier,
    TransformerEncoder,
)
from dlfx.nn.recurrent import Recurrent
from dlfx.types import UserError
from tests.compiling import quick

ENCODERS = {
    "rnn": RecurrentEncoder(Recurrent("rnn", 5)),
    "bilstm": RecurrentEncoder(Recurrent("lstm", 4, 2, bidirectional=True)),
    "textcnn": ConvolutionalEncoder((1, 3, 5), 4),
    "transformer": TransformerEncoder(2, 2, 8),
}
TOKENS = jax.random.randint(jax.random.key(1), (3, 6), 1, 9)
LENGTHS = jnp.array([6, 2, 4])


def classifier(name, **options):
    return TextClassifier(9, 3, 4, ENCODERS[name], **options)


@pytest.mark.parametrize("name", ENCODERS)
def test_padding_does_not_matter(name):
    model = classifier(name)
    variables = quick(model.init)(jax.random.key(0), TOKENS, LENGTHS)
    given = quick(model.apply)(variables, TOKENS, LENGTHS)
    assert given.shape == (3, 3) and given.dtype == jnp.float32
    longer = jnp.pad(jnp.where(jnp.arange(6) < LENGTHS[:, None], TOKENS, 7), ((0, 0), (0, 3)), constant_values=5)
    np.testing.assert_allclose(quick(model.apply)(variables, longer, LENGTHS), given, rtol=2e-5, atol=1e-6)
    alone = quick(model.apply)(variables, TOKENS[1:2, :2])
    np.testing.assert_allclose(alone[0], given[1], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_word_and_every_weight_matters(name):
    model = classifier(name, dropout=0.0)
    variables = quick(model.init)(jax.random.key(0), TOKENS, LENGTHS)

    def logit(params, x):
        return jnp.square(model.apply({"params": params}, x, LENGTHS, method="classify")).sum()

    x = model.apply(variables, TOKENS, method="embed")
    of_params, of_x = quick(jax.grad(logit, (0, 1)))(variables["params"], x)
    there = jnp.arange(6) < LENGTHS[:, None]
    assert not np.any(of_x[~there]) and (name == "textcnn" or np.all(np.abs(of_x[there]).max(-1) > 0))
    still = {"/".join(k.key for k in path) for path, g in jax.tree.leaves_with_path(of_params) if not np.any(g)}
    assert still <= {"vectors", "encoder/Stack_0/blocks/attention/key/bias"}  # softmax takes no constant of a key


def test_kims_convolution_by_loops():
    encoder = ConvolutionalEncoder((2, 3), 4)
    x = jax.random.normal(jax.random.key(2), (3, 6, 5))
    lengths = np.array([6, 1, 3])
    variables = encoder.init(jax.random.key(0), x)
    bias = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, variables["params"])
    given = encoder.apply({"params": bias}, x, jnp.asarray(lengths))
    for row, length in enumerate(lengths):
        wanted = []
        for h in (2, 3):
            kernel, offset = (np.asarray(bias[f"window{h}"][name]) for name in ("kernel", "bias"))
            words = np.zeros((max(length, h), 5), np.float32)
            words[:length] = x[row, :length]
            windows = [words[i : i + h].reshape(-1) for i in range(len(words) - h + 1)]
            wanted.append(np.maximum(np.max([window @ kernel + offset for window in windows], 0), 0))
        np.testing.assert_allclose(given[row], np.concatenate(wanted), rtol=1e-5, atol=1e-6)


def test_kims_convolution_is_pytorchs():
    torch = pytest.importorskip("torch")
    encoder = ConvolutionalEncoder((3,), 4)
    x = np.asarray(jax.random.normal(jax.random.key(2), (2, 6, 5)))
    variables = encoder.init(jax.random.key(0), x)
    layer = torch.nn.Conv1d(5, 4, 3, bias=False)
    kernel = np.array(variables["params"]["window3"]["kernel"]).reshape(3, 5, 4)  # in time, features, maps
    layer.weight.data = torch.tensor(kernel.transpose(2, 1, 0).copy())
    wanted = torch.relu(layer(torch.tensor(x.transpose(0, 2, 1).copy()))).max(2).values.detach().numpy()
    np.testing.assert_allclose(encoder.apply(variables, x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("channels", CHANNELS)
def test_word_vectors_that_stay_and_that_are_trained(channels):
    given = np.arange(36, dtype=np.float32).reshape(9, 4)
    model = classifier("textcnn", channels=channels, vectors=lambda key, shape, dtype: jnp.asarray(given, dtype))
    variables = quick(model.init)(jax.random.key(0), TOKENS)
    x = model.apply(variables, TOKENS, method="embed")
    np.testing.assert_array_equal(x, np.tile(given[TOKENS], 2 if channels == "both" else 1))
    assert ("static" in variables) == (channels != "trained")
    assert ("vectors" in variables["params"]) == (channels != "static")
    # Kim's sizes with 300 numbers a word: windows of 3, 4 and 5 words, 100 maps each, two classes.
    kim = TextClassifier(9, 2, 300, ConvolutionalEncoder(), channels=channels)
    shapes = jax.eval_shape(kim.init, jax.random.key(0), TOKENS)["params"]
    width = 600 if channels == "both" else 300
    words = 0 if channels == "static" else 9 * 300
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == words + 100 * (3 + 4 + 5) * width + 300 + 300 * 2 + 2


def test_dropout_is_of_training_alone():
    model = classifier("textcnn")
    variables = quick(model.init)(jax.random.key(0), TOKENS)
    draw = partial(model.apply, variables, TOKENS, LENGTHS, train=True)
    first, second = (draw(rngs={"dropout": jax.random.key(i)}) for i in (1, 2))
    assert np.abs(first - second).max() > 1e-3


def test_mistakes_are_named():
    with pytest.raises(UserError, match="unknown kind of word vectors 'kept'"):
        classifier("textcnn", channels="kept").init(jax.random.key(0), TOKENS)
    with pytest.raises(UserError, match="windows.*at least 1"):
        ConvolutionalEncoder((3, 0)).init(jax.random.key(0), jnp.zeros((1, 4, 2)))


LETTERS = jax.random.randint(jax.random.key(3), (3, 6, 4), 1, 7) * (
    jnp.arange(4) < jnp.array([4, 2, 1, 3, 4, 2])[:, None]
)


def tagger(chain, **options):
    model = Tagger(9, 3, 5, 4, chain=chain, letters=7, **options)
    variables = quick(model.init)(jax.random.key(0), TOKENS, LENGTHS, LETTERS)
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    noisy = [x + 0.5 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return model, jax.tree.unflatten(tree, noisy)


@pytest.mark.parametrize("chain", [True, False])
def test_a_taggers_loss_is_of_a_distribution_whose_mode_it_decodes(chain):
    model, variables = tagger(chain)
    length = 4
    every = jnp.array(list(itertools.product(range(3), repeat=length)))
    alike = [jnp.broadcast_to(x[2, :length], (len(every), *x[2, :length].shape)) for x in (TOKENS, LETTERS)]
    nats = quick(partial(model.apply, method="loss"))(
        variables, alike[0], jnp.full(len(every), length), every, alike[1]
    )
    np.testing.assert_allclose(np.exp(-nats).sum(), 1, rtol=1e-4)
    best = quick(partial(model.apply, method="decode"))(variables, TOKENS, LENGTHS, LETTERS)
    np.testing.assert_array_equal(best[2, :length], every[nats.argmin()])
    assert not best[2, length:].any()


@pytest.mark.parametrize("chain", [True, False])
def test_padding_does_not_matter_to_a_tagger(chain):
    model, variables = tagger(chain)
    tags = jax.random.randint(jax.random.key(5), TOKENS.shape, 0, 3)
    loss, decode = (quick(partial(model.apply, method=method)) for method in ("loss", "decode"))
    given, best = loss(variables, TOKENS, LENGTHS, tags, LETTERS), decode(variables, TOKENS, LENGTHS, LETTERS)
    inside = jnp.arange(6) < LENGTHS[:, None]
    tokens, labels, letters = jnp.where(inside, TOKENS, 5), jnp.where(inside, tags, 9), LETTERS * inside[..., None]
    pads = ((0, 0), (0, 2)), ((0, 0), (0, 2), (0, 3))
    tokens, labels, letters = jnp.pad(tokens, pads[0]), jnp.pad(labels, pads[0]), jnp.pad(letters, pads[1])
    np.testing.assert_allclose(loss(variables, tokens, LENGTHS, labels, letters), given, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(decode(variables, tokens, LENGTHS, letters)[:, :6], best)


def test_unknown_words_in_training_differ_by_their_letters_alone():
    model, variables = tagger(False, word_dropout=1.0, dropout=0.0)
    rngs = {"dropout": jax.random.key(0)}
    train, apply = quick(partial(model.apply, train=True, rngs=rngs)), quick(model.apply)
    some = train(variables, TOKENS, LENGTHS, LETTERS)
    others = train(variables, (TOKENS + 3) % 9, LENGTHS, LETTERS)
    unknown = apply(variables, jnp.ones_like(TOKENS), LENGTHS, LETTERS)
    np.testing.assert_array_equal(some, others)
    assert np.abs(some - apply(variables, TOKENS, LENGTHS, LETTERS)).max() > 1e-2
    np.testing.assert_allclose(some, unknown, rtol=1e-5)


def test_float64():
    with jax.enable_x64():
        types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        encoders = [ConvolutionalEncoder((2,), 3, **types), TransformerEncoder(1, 2, 4, **types)]
        encoders.append(RecurrentEncoder(Recurrent("lstm", 3, bidirectional=True, **types)))
        for encoder in encoders:
            model = TextClassifier(9, 2, 4, encoder, **types)
            shapes = jax.eval_shape(model.init_with_output, jax.random.key(0), TOKENS, LENGTHS)
            assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("float64")}
