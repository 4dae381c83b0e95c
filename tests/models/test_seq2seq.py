"""Recurrent encoder and decoder: step by step as in one pass, padding, a NumPy loop, what one vector holds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.models.sequence.seq2seq import ATTENTIONS, Seq2Seq
from dlfx.types import UserError
from tests.compiling import quick

SOURCE = jax.random.randint(jax.random.key(1), (3, 5), 1, 7)
TARGET = jax.random.randint(jax.random.key(2), (3, 4), 1, 6)
LENGTHS = jnp.array([5, 2, 4])
OPTIONS = {"width": 6, "features": 3}


def made(attention, **options):
    model = Seq2Seq(6, 7, attention, **OPTIONS | options)
    return model, quick(model.init)(jax.random.key(0), SOURCE, TARGET, LENGTHS)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_step_by_step_is_one_pass_and_padding_does_not_matter(attention):
    model, variables = made(attention, layers=1 + (attention == "none"), bidirectional=True)
    apply = quick(model.apply)
    whole = apply(variables, SOURCE, TARGET, LENGTHS)
    assert whole.shape == (3, 4, 6) and whole.dtype == jnp.float32
    known = quick(partial(model.apply, method="start"))(variables, SOURCE[1:2, :2])  # alone, without its padding
    decode = quick(partial(model.apply, method="decode"))
    for t in range(4):
        logits, known = decode(variables, TARGET[1:2, t : t + 1], known)
        np.testing.assert_allclose(logits[:, 0], whole[1:2, t], rtol=1e-5, atol=1e-6)
    other = jnp.where(jnp.arange(5) < LENGTHS[:, None], SOURCE, 3)
    np.testing.assert_array_equal(apply(variables, other, TARGET, LENGTHS), whole)


@pytest.mark.parametrize("attention", ["none", "dot"])
def test_a_loop_in_numpy(attention):
    model, variables = made(attention, cell="rnn")
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])

    def recurrent(weights, x, h):
        return np.tanh(x @ weights["layer0_kernel"] + h @ weights["layer0_recurrent_kernel"] + weights["layer0_bias"])

    given = quick(model.apply)(variables, SOURCE, TARGET, LENGTHS)
    for row, length in enumerate(LENGTHS):
        h, seen = np.zeros(6), []
        for token in SOURCE[row, :length]:
            h = recurrent(p["encoder"], p["source_embedding"]["embedding"][token], h)
            seen.append(h)
        for t, token in enumerate(TARGET[row]):
            h = recurrent(p["decoder"], p["embedding"]["embedding"][token], h)
            out = h
            if attention == "dot":
                scores = np.exp(np.array(seen) @ h)
                context = scores @ np.array(seen) / scores.sum()
                out = np.tanh(np.concatenate([context, h]) @ p["combine"]["kernel"])
            wanted = out @ p["out"]["kernel"] + p["out"]["bias"]
            np.testing.assert_allclose(given[row, t], wanted, rtol=1e-4, atol=1e-5)


def test_all_that_one_vector_holds_is_the_last_state():
    model, variables = made("none")
    known = jax.eval_shape(partial(model.apply, method="start"), variables, SOURCE, LENGTHS)
    assert [leaf.shape for leaf in jax.tree.leaves(known)] == [(3, 6), (3, 6)]  # h and c, of whatever source


def test_weights_of_attention_are_kept_on_request():
    model, variables = made("additive")
    _, kept = quick(partial(model.apply, mutable="intermediates"))(variables, SOURCE, TARGET, LENGTHS)
    (weights,) = kept["intermediates"]["weights"]
    np.testing.assert_allclose(weights.sum(-1), np.ones((3, 4)), rtol=1e-6)
    assert not np.any(weights[1, :, 2:]) and np.all(weights[1, :, :2] > 0)


@pytest.mark.parametrize("attention", ["none", "general"])
def test_every_weight_is_trained(attention):
    model, variables = made(attention, dropout=0.1, bidirectional=True)

    def loss(variables):
        rngs = {"dropout": jax.random.key(3)}
        return jnp.square(model.apply(variables, SOURCE, TARGET, LENGTHS, train=True, rngs=rngs)).sum()

    for leaf in jax.tree.leaves(quick(jax.grad(loss))(variables)):
        assert np.all(np.isfinite(leaf)) and np.any(leaf)


def test_mistakes():
    with pytest.raises(UserError, match="unknown attention 'dott'"):
        made("dott")
    with pytest.raises(UserError, match="half of the width in each; the width is 7"):
        made("none", width=7, bidirectional=True)
