"""Recurrent language models: published counts, a loop in NumPy, streams in pieces, and where dropout falls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.recurrent_lm import SIZES, RecurrentLM
from tests.compiling import quick

PUBLISHED = {"zaremba_small": 4_651_600, "zaremba_medium": 19_775_200, "zaremba_large": 66_022_000}
TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 11)
KEYS = {"params": jax.random.key(1), "dropout": jax.random.key(2)}


def init(model):
    return quick(lambda key: model.init(key, TOKENS))(jax.random.key(1))


@pytest.mark.parametrize("size", SIZES)
def test_counts_are_those_published(size):
    shapes = jax.eval_shape(lambda: RecurrentLM(**SIZES[size]).init(KEYS, TOKENS))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == PUBLISHED[size]
    tied = jax.eval_shape(lambda: RecurrentLM(**SIZES[size], tied=True).init(KEYS, TOKENS))
    assert sum(x.size for x in jax.tree.leaves(tied)) == PUBLISHED[size] - 10_000 * SIZES[size]["width"]


def test_the_range_of_weights_as_published():
    model = RecurrentLM(11, width=40, init_scale=0.05, forget_bias=0.0)
    for name, value in jax.tree_util.tree_leaves_with_path(init(model)):
        if "bias" in str(name[-1]):
            assert not np.any(value)
        else:
            assert abs(value.max() - 0.05) < 0.002 and abs(value.min() + 0.05) < 0.002, name


@pytest.mark.parametrize("tied", [False, True])
def test_an_lstm_step_by_step_in_numpy(tied):
    model = RecurrentLM(11, width=5, tied=tied)
    variables = init(model)
    p = jax.tree.map(np.asarray, variables["params"])

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    states = [[np.zeros((2, 5)), np.zeros((2, 5))] for _ in range(2)]
    expected = []
    for t in range(TOKENS.shape[1]):
        x = p["embedding"]["embedding"][np.asarray(TOKENS[:, t])]
        for layer, state in enumerate(states):
            r = {name: p["recurrent"][f"layer{layer}_{name}"] for name in ("kernel", "recurrent_kernel", "bias")}
            i, f, g, o = np.split(x @ r["kernel"] + state[0] @ r["recurrent_kernel"] + r["bias"], 4, axis=1)
            state[1] = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
            x = state[0] = sigmoid(o) * np.tanh(state[1])
        if tied:
            expected.append(x @ p["embedding"]["embedding"].T + p["bias"])
        else:
            expected.append(x @ p["output"]["kernel"] + p["output"]["bias"])
    logits, carry = quick(model.apply)(variables, TOKENS)
    np.testing.assert_allclose(logits, np.stack(expected, 1), atol=1e-5)
    np.testing.assert_allclose(carry[1][1], states[1][1], atol=1e-5)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_stream_in_pieces_is_the_whole(cell):
    model = RecurrentLM(11, cell, width=6)
    variables = init(model)
    whole, end = quick(model.apply)(variables, TOKENS)
    carry, pieces = model.apply(variables, 2, method="start"), []
    for first, last in ((0, 4), (4, 5), (5, 7)):
        logits, carry = model.apply(variables, TOKENS[:, first:last], carry)
        pieces.append(logits)
    np.testing.assert_allclose(jnp.concatenate(pieces, 1), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), carry, end)


def test_ordinary_dropout_spares_the_way_from_step_to_step():
    """Of what the last layer says every number is dropped anew, or twice as large; the other layer sees embeddings."""
    model = RecurrentLM(11, "rnn", layers=1, width=8, dropout=0.5)
    variables = init(model)
    variables["params"]["embedding"]["embedding"] *= 0  # with nothing to drop below, states are those without dropout
    variables["params"]["recurrent"]["layer0_bias"] += 0.3
    variables["params"]["output"]["kernel"] = jnp.eye(8, 11)
    plain, end = model.apply(variables, TOKENS)
    dropped, also = model.apply(variables, TOKENS, train=True, rngs={"dropout": jax.random.key(3)})
    ratio = np.asarray(dropped / plain)[..., :8]
    assert np.all(np.isclose(ratio, 0) | np.isclose(ratio, 2, atol=1e-5)) and 0.3 < (ratio == 0).mean() < 0.7
    assert np.any(ratio[:, 1:] != ratio[:, :1])
    np.testing.assert_allclose(also[0], end[0], atol=1e-6)


def test_variational_dropout_is_the_same_at_every_step():
    """Of a word that is dropped every occurrence is, and the output has one mask for all steps."""
    model = RecurrentLM(11, "rnn", layers=1, width=8, dropout=0.5, variational=True)
    variables = init(model)
    params = variables["params"]
    params["recurrent"]["layer0_recurrent_kernel"] *= 0
    params["output"]["kernel"] = jnp.eye(8, 11)
    tokens = jnp.tile(jnp.arange(11), (40, 2))  # each word twice
    said, _ = model.apply(variables, tokens, train=True, rngs={"dropout": jax.random.key(3)})
    said = np.asarray(said)[..., :8]
    np.testing.assert_allclose(said[:, :11], said[:, 11:], atol=1e-6)
    assert 0.35 < (said == 0).all(-1).mean() < 0.65  # words
    units = (said == 0).all(1)  # outputs of a sequence
    assert 0.35 < units.mean() < 0.65


def test_float64():
    with jax.enable_x64(True):
        model = RecurrentLM(11, width=4, init_scale=0.1, dtype=jnp.float64, param_dtype=jnp.float64)
        logits, carry = model.apply(model.init(KEYS, TOKENS), TOKENS)
        assert logits.dtype == jnp.float64 == carry[0][0].dtype
