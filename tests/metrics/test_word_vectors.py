"""Nearest words and analogies, against loops."""

import numpy as np

from dlfx.metrics import word_vectors

VECTORS = np.random.default_rng(0).normal(size=(12, 5))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_nearest_words():
    words, cosines = word_vectors.nearest(VECTORS, np.array([3, 7]), 4)
    for row, word in enumerate([3, 7]):
        rest = sorted((k for k in range(12) if k != word), key=lambda k: -cosine(VECTORS[word], VECTORS[k]))
        assert words[row].tolist() == rest[:4]
        np.testing.assert_allclose(cosines[row], [cosine(VECTORS[word], VECTORS[k]) for k in rest[:4]])
    still, _ = word_vectors.nearest(np.zeros((3, 2)), np.array([0]), 2)  # not NaN
    assert still.tolist() == [[1, 2]]


def test_analogies():
    questions = np.random.default_rng(1).permuted(np.tile(np.arange(12), (6, 1)), axis=1)[:, :3]
    units = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)
    for (a, b, c), found in zip(questions, word_vectors.analogies(VECTORS, questions), strict=True):
        rest = [k for k in range(12) if k not in (a, b, c)]
        assert found == max(rest, key=lambda k: cosine(units[b] - units[a] + units[c], units[k]))
    grid = np.array([[1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [0, 1, 1, 0], [1, 1, 1, 1.0]])
    assert word_vectors.analogies(grid, np.array([[0, 1, 2]])).tolist() == [3]
