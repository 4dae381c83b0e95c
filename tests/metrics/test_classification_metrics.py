"""Metrics of a split are exact sums, whatever the batches and their filling, and equal scikit-learn's."""

import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from dlfx.metrics import classification


def test_sums_over_masked_batches_equal_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(10, 4)).astype(np.float32), rng.integers(0, 4, 10)
    total: dict[str, np.ndarray] = {}
    for start in (0, 4, 8):
        index = np.arange(start, start + 4)
        mask = (index < 10).astype(np.float32)
        batch = logits[index % 10].copy()
        batch[mask == 0] = np.inf  # filling must not leak, not even as NaN
        part = classification.sums(batch, labels[index % 10], mask)
        total = {name: value + total.get(name, 0) for name, value in part.items()}
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert total["count"] == 10
    assert total["accuracy"] / 10 == np.float32(accuracy_score(labels, logits.argmax(-1)))
    np.testing.assert_allclose(total["loss"] / 10, log_loss(labels, probability, labels=range(4)), rtol=1e-5)
    np.testing.assert_array_equal(total["confusion"], confusion_matrix(labels, logits.argmax(-1), labels=range(4)))
