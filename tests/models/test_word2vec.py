"""word2vec: the losses by hand, the Huffman tree against brute force, and neighbours that are of one kind."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlfx.losses.embedding import negative_sampling
from dlfx.models.sequence import word2vec
from dlfx.types import UserError
from tests.compiling import quick

RNG = np.random.default_rng(0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_loss_of_negative_sampling_and_its_gradients_by_hand():
    x, y = RNG.normal(size=(3, 2, 4)), RNG.normal(size=(3, 6, 4))
    real = np.ones((3, 1, 5))
    real[1, 0, 2] = 0  # a noise word that is the true one

    def loss(x, y):
        scores = word2vec.scores(x, y)
        return negative_sampling(scores[..., 0], scores[..., 1:], jnp.asarray(real)).sum()

    value, (gx, gy) = quick(jax.value_and_grad(loss, (0, 1)))(jnp.asarray(x), jnp.asarray(y))
    expected, ex, ey = 0.0, np.zeros_like(x), np.zeros_like(y)
    for b, c, m in itertools.product(range(3), range(2), range(6)):
        if m and not real[b, 0, m - 1]:
            continue
        p, truth = sigmoid(x[b, c] @ y[b, m]), float(m == 0)
        expected -= np.log(p if m == 0 else 1 - p)
        ex[b, c] += (p - truth) * y[b, m]
        ey[b, m] += (p - truth) * x[b, c]
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gx, ex, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gy, ey, rtol=1e-4, atol=1e-5)


def test_the_mean_of_a_context_and_its_gradient():
    x, real = RNG.normal(size=(3, 4, 2)), np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0.0]])
    mean = word2vec.context_mean(jnp.asarray(x), jnp.asarray(real))
    np.testing.assert_allclose(mean[:, 0], [x[0, [0, 2, 3]].mean(0), [0, 0], x[2, 1]], rtol=1e-5)
    gradient = jax.grad(lambda x: word2vec.context_mean(x, jnp.asarray(real)).sum())(jnp.asarray(x))
    np.testing.assert_allclose(gradient[..., 0], real / np.maximum(real.sum(1, keepdims=True), 1), rtol=1e-6)


def codes(tree):
    return ["".join("+" if s > 0 else "-" for s in row if s) for row in tree.signs]


def shortest(counts):
    """The least sum of the counts of all inner nodes of a binary tree, over every way to merge two at a time."""

    @functools.cache
    def best(heights):
        if len(heights) == 1:
            return 0
        totals = []
        for i, j in itertools.combinations(range(len(heights)), 2):
            rest = [h for k, h in enumerate(heights) if k not in (i, j)]
            merged = heights[i] + heights[j]
            totals.append(merged + best(tuple(sorted([*rest, merged]))))
        return min(totals)

    return best(tuple(sorted(counts)))


@pytest.mark.parametrize(
    "counts", [[1, 1], [5, 1, 1], [1, 2, 4, 8, 16, 32], [3, 3, 3, 3, 3], [7, 1, 5, 2, 2, 9], [0, 0, 4, 1]]
)
def test_a_huffman_tree_is_as_short_as_can_be(counts):
    tree = word2vec.huffman(np.array(counts))
    assert (tree.lengths * counts).sum() == shortest(tuple(counts))


def test_a_large_tree_lies_within_the_bounds_of_entropy():
    counts = (1e6 / np.arange(1, 2001)).astype(int)
    tree, p = word2vec.huffman(counts), counts / counts.sum()
    entropy = -(p * np.log2(p)).sum()
    assert entropy <= (p * tree.lengths).sum() < entropy + 1
    assert (0.5**tree.lengths).sum() == 1  # Kraft: no end of the tree is left unused
    ordered = sorted(codes(tree))  # a prefix would stand right before what it begins
    assert not any(after.startswith(before) for before, after in itertools.pairwise(ordered))
    assert (tree.nodes[:, 0] == 1998).all() and set(tree.nodes.ravel()) == set(range(1999))
    # Whoever is at an inner node came the same way: nodes and signs before it agree.
    ways = {}
    for nodes, signs, length in zip(tree.nodes, tree.signs, tree.lengths, strict=True):
        for k in range(length):
            way = (*nodes[:k], *signs[:k])
            assert ways.setdefault(nodes[k], way) == way
    with pytest.raises(UserError, match="two words; there are 1"):
        word2vec.huffman(counts[:1])


def test_probabilities_of_all_words_sum_to_one():
    tree = word2vec.huffman(RNG.integers(1, 99, 37))
    output, inputs = RNG.normal(size=(36, 8)), RNG.normal(size=(37, 5, 8))
    inputs[:] = inputs[0]  # 5 inputs, the same for every word
    scores = word2vec.scores(jnp.asarray(inputs), jnp.asarray(output[tree.nodes]))
    logs = word2vec.log_probability(scores, jnp.asarray(tree.signs)[:, None])
    assert logs.shape == (37, 5)
    np.testing.assert_allclose(jnp.exp(logs).sum(0), 1, rtol=1e-5)
    word, path = 20, []
    for node, sign in zip(tree.nodes[word], tree.signs[word], strict=True):
        path += [np.log(sigmoid(sign * output[node] @ inputs[0, 3]))] if sign else []
    np.testing.assert_allclose(logs[word, 3], sum(path), rtol=1e-5)


def test_before_training_every_word_costs_the_same_bit_by_bit():
    tables = word2vec.init(jax.random.key(0), 9, 8, 50)
    assert tables["input"].shape == (9, 50) and not tables["output"].any() and tables["output"].shape == (8, 50)
    assert 0.009 < jnp.abs(tables["input"]).max() <= 0.01
    tree = word2vec.huffman(np.arange(1, 10))
    scores = word2vec.scores(tables["input"][:, None], tables["output"][tree.nodes])
    logs = word2vec.log_probability(scores, jnp.asarray(tree.signs)[:, None])[:, 0]
    np.testing.assert_allclose(logs, -tree.lengths * np.log(2), rtol=1e-6)
    half = word2vec.scores(jnp.ones((1, 1, 4), jnp.bfloat16), jnp.ones((1, 2, 4), jnp.bfloat16))
    assert half.dtype == jnp.float32


def test_at_the_optimum_scores_are_shifted_mutual_information():
    """Levy and Goldberg 2014: skip-gram with K negatives factorises log(P(w, c) / (P(w) P(c))) - log K."""
    joint = RNG.random((4, 4)) + 0.2
    joint /= joint.sum()
    noise, negatives = joint.sum(1), 5  # over what is scored

    def loss(scores):  # of outputs in rows and inputs in columns, in expectation
        positive = negative_sampling(scores[..., None][..., 0], jnp.zeros((4, 4, 0)))
        drawn = negatives * noise[:, None] * joint.sum(0) * jax.nn.softplus(scores)
        return (joint * positive + drawn).sum()

    optimizer = optax.adam(0.1)

    def step(carry, _):
        scores, state = carry
        updates, state = optimizer.update(jax.grad(loss)(scores), state)
        return (scores + updates, state), None

    start = jnp.zeros((4, 4))
    (scores, _), _ = quick(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), None, 600))(start)
    mutual = np.log(joint / np.outer(joint.sum(1), joint.sum(0)))
    np.testing.assert_allclose(scores, mutual - np.log(negatives), atol=0.01)
