"""Attention against loops, closed forms and PyTorch; who sees whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.nn import attention
from dlfx.nn.attention import (
    AdditiveAttention,
    KeysAndValues,
    MultiHeadAttention,
    MultiplicativeAttention,
    attention_weights,
    causal_mask,
    dot_product_attention,
    empty_cache,
    padding_mask,
)
from dlfx.types import UserError
from tests.compiling import quick
from tests.torch_transformers import put_attention


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def loop(query, key, value, allowed):
    out = np.zeros((*query.shape[:3], value.shape[-1]))
    for b, t, h in np.ndindex(*query.shape[:3]):
        seen = np.flatnonzero(
            np.broadcast_to(allowed, (len(query), query.shape[2], query.shape[1], key.shape[1]))[b, h, t]
        )
        scores = np.array([query[b, t, h] @ key[b, s, h] for s in seen]) / np.sqrt(query.shape[-1])
        out[b, t, h] = softmax(scores) @ value[b, seen, h]
    return out


@pytest.mark.parametrize("causal, block", [(False, 64), (True, 3), (True, 64)])  # so many queries at once
@pytest.mark.parametrize("steps, size", [(7, 7), (5, 8), (8, 5)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_a_loop(monkeypatch, block, steps, size, causal, masked):
    monkeypatch.setattr(attention, "BLOCK", block)
    with jax.enable_x64(True):
        query, key, value = normal(0, 2, steps, 3, 4), normal(1, 2, size, 3, 4), normal(2, 2, size, 3, 4)
        mask = padding_mask(jnp.array([size, 2]), size) if masked else None
        allowed = np.ones((1, 1, steps, size), bool) if mask is None else np.asarray(mask)
        if causal:
            allowed = allowed & np.tril(np.ones((steps, size), bool))
        found = quick(lambda *xs: dot_product_attention(*xs, causal))(query, key, value, mask)
        np.testing.assert_allclose(found, loop(query, key, value, allowed), atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_the_fused_form_is_called_for_the_same_thing(causal):
    """cuDNN's shares its arguments with XLA's, whose meaning is thereby tested; the kernel itself needs a GPU."""
    query, key, value = (jnp.asarray(normal(i, 2, 6, 2, 4), jnp.float32) for i in range(3))
    mask = padding_mask(jnp.array([6, 4]), 6)
    found = dot_product_attention(query, key, value, mask, causal)
    expected = jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal, implementation="xla")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_blocks_have_the_gradient_of_the_whole(monkeypatch):
    inputs = [jnp.asarray(normal(i, 2, 7, 2, 4), jnp.float32) for i in range(3)]
    found = []
    for block in (3, 64):
        monkeypatch.setattr(attention, "BLOCK", block)
        gradient = jax.grad(lambda xs: (dot_product_attention(*xs, causal=True) ** 2).sum())
        found.append(quick(gradient)(inputs))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *found)


@pytest.mark.parametrize("size", [16, 64, 512])
def test_products_have_the_variance_of_their_size_so_that_the_scale_is_one_over_its_root(size):
    """The notes have the factor d_k where the variance is d_k: divided by it, scores would vanish with the size."""
    query, key = normal(0, 1, 100, 1, size), normal(1, 1, 100, 1, size)
    products = query[0, :, 0] @ key[0, :, 0].T
    assert abs(products.var() / size - 1) < 0.1
    scores = np.log(np.asarray(attention_weights(*(jnp.asarray(x, jnp.float32) for x in (query, key))))[0, 0])
    scores -= scores.mean(-1, keepdims=True)
    assert abs(scores.std() - 1) < 0.06
    expected = products - products.mean(-1, keepdims=True)
    np.testing.assert_allclose(scores, expected / np.sqrt(size), atol=2e-4)
    assert np.abs(scores - expected / size).max() > 1


def test_weights_are_float32_and_sum_to_one_in_half_precision():
    query, key = (jnp.asarray(normal(i, 1, 5, 2, 4), jnp.bfloat16) for i in range(2))
    weights = attention_weights(query, key, causal_mask(5, 5))
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert (np.asarray(weights)[..., np.triu(np.ones((5, 5), bool), 1)] == 0).all()
    assert dot_product_attention(query, key, key).dtype == jnp.bfloat16


def made(module, *inputs):
    """The variables, biases drawn too."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), *inputs))
    return tree.unflatten([0.3 * jnp.asarray(normal(i, *leaf.shape), leaf.dtype) for i, leaf in enumerate(leaves)])


@pytest.mark.parametrize("causal, cross", [(False, False), (True, False), (False, True)])
def test_multi_head_attention_is_pytorch_s(causal, cross):
    torch = pytest.importorskip("torch")
    with jax.enable_x64(True):
        module = MultiHeadAttention(8, 2, causal=causal, dtype=jnp.float64, param_dtype=jnp.float64)
        x, memory, lengths = normal(0, 3, 5, 8), normal(1, 3, 6, 8), np.array([5, 3, 1])
        seen = memory if cross else x
        variables = made(module, x)
        mask = padding_mask(jnp.asarray(lengths), seen.shape[1])

        def run(module, x, seen, mask):
            return module.attend(x, module.project(seen), mask) if cross else module(x, mask)

        both = quick(
            lambda *xs: (module.apply(*xs, method=run, mutable="intermediates"), module.apply(*xs, method=run))
        )
        (found, sown), without = both(variables, x, seen, mask)
        net = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
        put_attention(torch, net, variables["params"])
        later = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1) if causal else None
        padding = torch.tensor(np.arange(seen.shape[1]) >= lengths[:, None])
        y, weights = net(
            *map(torch.tensor, (x, seen, seen)), key_padding_mask=padding, attn_mask=later, average_attn_weights=False
        )
        np.testing.assert_allclose(found, y.detach(), atol=1e-12)
        np.testing.assert_allclose(without, found, atol=1e-12)
        np.testing.assert_allclose(sown["intermediates"]["weights"][0], weights.detach(), atol=1e-12)


def test_one_head_and_its_sum_over_heads_in_blocks():
    """Multi-head attention is the sum over heads of attention through the rows and columns of each."""
    with jax.enable_x64(True):
        module = MultiHeadAttention(6, 3, dtype=jnp.float64, param_dtype=jnp.float64)
        x = normal(0, 2, 4, 6)
        variables = made(module, x)
        w = jax.tree.map(np.asarray, variables["params"])
        total = w["out"]["bias"] + np.zeros_like(x)
        for head in (slice(0, 2), slice(2, 4), slice(4, 6)):
            q, k, v = (x @ w[n]["kernel"][:, head] + w[n]["bias"][head] for n in ("query", "key", "value"))
            for b in range(2):
                weights = np.stack([softmax(row) for row in q[b] @ k[b].T / np.sqrt(2)])
                total[b] += weights @ v[b] @ w["out"]["kernel"][head]
        np.testing.assert_allclose(module.apply(variables, x), total, atol=1e-12)


def test_self_attention_knows_no_order_without_positions():
    x = jnp.asarray(normal(0, 1, 6, 8), jnp.float32)
    order = jnp.array([3, 0, 5, 1, 4, 2])
    for options, equivariant in (({}, True), ({"rotary": True}, False), ({"causal": True}, False)):
        module = MultiHeadAttention(8, 2, **options)
        variables = made(module, x)
        run = quick(module.apply)
        apart = np.abs(run(variables, x)[:, order] - run(variables, x[:, order])).max()
        assert (apart < 1e-5) if equivariant else (apart > 1e-2)


def test_padding_changes_nothing():
    module = MultiHeadAttention(8, 2)
    x = jnp.asarray(normal(0, 2, 6, 8), jnp.float32)
    variables = made(module, x)
    run = quick(module.apply)
    whole = run(variables, x, padding_mask(jnp.array([6, 4]), 6))
    np.testing.assert_allclose(whole[1:, :4], run(variables, x[1:, :4]), atol=1e-6)
    other = run(variables, x.at[1, 4:].set(1e3), padding_mask(jnp.array([6, 4]), 6))
    np.testing.assert_array_equal(other[1, :4], whole[1, :4])


@pytest.mark.parametrize("rotary", [False, True])
def test_decoding_step_by_step_is_the_whole(rotary):
    module = MultiHeadAttention(8, 2, causal=True, rotary=rotary)
    x = jnp.asarray(normal(0, 2, 7, 8), jnp.float32)
    variables = made(module, x)
    decode = quick(lambda x, cache, position: module.apply(variables, x, cache, position, method="decode"))
    cache, parts = empty_cache(2, 9, 2, 8), []
    for start, stop in ((0, 3), (3, 4), (4, 5), (5, 7)):
        y, new = decode(x[:, start:stop], cache, start)
        cache = KeysAndValues(*(jnp.asarray(a).at[:, :, start:stop].set(b) for a, b in zip(cache, new, strict=True)))
        parts.append(y)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), quick(module.apply)(variables, x), atol=1e-5)
    # What stands in the cache behind the position is not looked at.
    dirty = KeysAndValues(*(part.at[:, :, 5:].set(1e3) for part in cache))
    np.testing.assert_array_equal(decode(x[:, 5:], dirty, 5)[0], parts[-1])


def test_dropout_acts_in_training_alone():
    module = MultiHeadAttention(4, 1, dropout=0.5)
    x = jnp.asarray(normal(0, 1, 50, 4), jnp.float32)
    variables = made(module, x)
    run = quick(lambda key: module.apply(variables, x, train=True, rngs={"dropout": key}))
    draws = np.stack([run(jax.random.key(i)) for i in range(40)])
    plain = np.asarray(module.apply(variables, x))
    assert np.abs(draws[0] - draws[1]).max() > 0.01
    # Dropped weights count on average as themselves: the error of the mean, within 6 deviations.
    assert (np.abs(draws.mean(0) - plain) < 6 * draws.std(0) / np.sqrt(40)).all()


def test_heads_divide_features():
    with pytest.raises(UserError, match="3 heads do not divide 8 features"):
        MultiHeadAttention(8, 3).init(jax.random.key(0), jnp.ones((1, 2, 8)))


def single(module, query, memory, mask=None):
    def run(module, query, memory, mask):
        return module(query, module.project(memory), memory, mask)

    variables = quick(lambda *inputs: module.init(*inputs, method=run))(jax.random.key(1), query, memory, mask)
    return variables, quick(lambda q, m, k: module.apply(variables, q, m, k, method=run))(query, memory, mask)


@pytest.mark.parametrize("kind", ["additive", "general", "dot"])
def test_single_query_attention_is_that_of_a_loop(kind):
    with jax.enable_x64(True):
        types = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        features = 4 if kind == "dot" else 5
        if kind == "additive":
            module = AdditiveAttention(6, **types)
        else:
            module = MultiplicativeAttention(features, general=kind == "general", **types)
        query, memory, lengths = normal(0, 2, features), normal(1, 2, 7, 4), [7, 3]
        mask = jnp.arange(7) < jnp.array(lengths)[:, None]
        variables, (context, weights) = single(module, jnp.asarray(query), jnp.asarray(memory), mask)
        w = {name: np.asarray(layer["kernel"]) for name, layer in variables.get("params", {}).items()}
        for b, length in enumerate(lengths):
            scores = np.empty(length)
            for s in range(length):
                if kind == "additive":
                    scores[s] = w["score"][:, 0] @ np.tanh(w["query"].T @ query[b] + w["key"].T @ memory[b, s])
                else:
                    scores[s] = query[b] @ (w["key"].T @ memory[b, s] if kind == "general" else memory[b, s])
            np.testing.assert_allclose(weights[b], np.pad(softmax(scores), (0, 7 - length)), atol=1e-12)
            np.testing.assert_allclose(context[b], softmax(scores) @ memory[b, :length], atol=1e-12)
            assert (weights[b, length:] == 0).all()
        several = jnp.stack([query, 2 * query], 1)
        _, (contexts, all_weights) = single(module, several, jnp.asarray(memory), mask)
        assert contexts.shape == (2, 2, 4) and all_weights.shape == (2, 2, 7)
        np.testing.assert_allclose(contexts[:, 0], context, atol=1e-12)


def test_dot_product_attention_names_what_does_not_fit():
    with pytest.raises(UserError, match="queries of 5 features takes keys of as many; got 4"):
        single(MultiplicativeAttention(5, general=False), jnp.ones((1, 5)), jnp.ones((1, 3, 4)))
