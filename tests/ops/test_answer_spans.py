"""The best span against all pairs, one after another."""

import jax
import numpy as np
import pytest

from dlfx.ops.answer_spans import best_span


@pytest.mark.parametrize("longest", [1, 3, 20])
def test_it_is_the_best_of_all_pairs(longest):
    random = np.random.default_rng(longest)
    start, end = random.normal(size=(2, 40, 9)).astype(np.float32)
    allowed = random.random((40, 9)) < 0.7
    allowed[:, 4] = True
    found = np.stack(jax.jit(best_span, static_argnums=3)(start, end, allowed, longest))
    for row in range(40):
        pairs = [
            (start[row, i] + end[row, j], i, j)
            for i in range(9)
            for j in range(i, min(9, i + longest))
            if allowed[row, i] and allowed[row, j]
        ]
        assert tuple(found[:, row]) == max(pairs)[1:]


def test_the_best_start_and_end_alone_are_no_span():
    first, last = best_span(np.array([0.0, 1, 5]), np.array([4.0, 0, 1]), np.ones(3, bool), 3)
    assert (first, last) == (2, 2)  # 5 + 1; the two largest, 5 + 4, would end before they start
