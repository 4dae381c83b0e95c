"""Edits counted on the device against those of the host, which are tested against published and brute-force ones."""

import numpy as np

from dlfx.metrics.edit_counts import edit_counts
from dlfx.metrics.edit_distance import edits
from tests.compiling import quick


def test_counts_are_those_of_the_host():
    rng = np.random.default_rng(0)
    for most, longest in ((7, 4), (3, 6)):
        hypotheses, references = rng.integers(1, 4, (200, most)), rng.integers(1, 4, (200, longest))
        sizes, lengths = rng.integers(0, most + 1, 200), rng.integers(0, longest + 1, 200)
        counts = quick(edit_counts)(hypotheses, sizes, references, lengths)
        for row in range(200):
            true = edits(hypotheses[row, : sizes[row]].tolist(), references[row, : lengths[row]].tolist())
            found = tuple(int(counts[name][row]) for name in ("substitutions", "deletions", "insertions"))
            assert found == true[:3]


def test_one_of_each_kind():
    # 1 2 3 4 said, 1 5 3 4 4 heard and 2 3 4 heard
    hypotheses = np.array([[1, 5, 3, 4, 4], [2, 3, 4, 9, 9]])
    counts = edit_counts(hypotheses, np.array([5, 3]), np.array([[1, 2, 3, 4]] * 2), np.array([4, 4]))
    assert {name: count.tolist() for name, count in counts.items()} == {
        "substitutions": [1, 0],
        "deletions": [0, 1],
        "insertions": [1, 0],
    }
