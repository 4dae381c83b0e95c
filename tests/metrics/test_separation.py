"""Distances within and between classes, against a loop."""

import itertools

import numpy as np
import pytest

from dlfx.metrics.separation import class_separation
from dlfx.types import UserError


def test_against_a_loop():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(14, 2, 3)).astype(np.float32), rng.integers(0, 3, 14)
    pairs = {True: [], False: []}
    for i, j in itertools.combinations(range(14), 2):
        pairs[bool(labels[i] == labels[j])].append(np.linalg.norm(features[i] - features[j]))
    found = class_separation(features, labels)
    np.testing.assert_allclose(found["intra"], np.mean(pairs[True]), rtol=1e-6)
    np.testing.assert_allclose(found["inter"], np.mean(pairs[False]), rtol=1e-6)
    np.testing.assert_allclose(found["ratio"], np.mean(pairs[True]) / np.mean(pairs[False]), rtol=1e-6)


def test_its_ends():
    labels = np.repeat(np.arange(4), 50)
    noise = np.random.default_rng(1).normal(size=(200, 20))
    assert abs(class_separation(noise, labels)["ratio"] - 1) < 0.02
    assert class_separation(np.eye(4)[labels], labels)["ratio"] == 0


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 1, 2]])
def test_classes_that_have_no_pairs(labels):
    with pytest.raises(UserError, match="need two classes and a pair in one; got 3 rows"):
        class_separation(np.zeros((3, 2)), np.array(labels))
