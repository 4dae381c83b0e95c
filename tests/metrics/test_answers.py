"""Scores of answers by hand, and those by place against those by words where all words differ."""

import numpy as np
import pytest

from dlfx.metrics.answers import answer_match, span_match


def test_by_words():
    assert answer_match("The Eiffel Tower!", "eiffel tower") == (1, 1)
    exact, f1 = answer_match("in Paris, France", "Paris")
    assert exact == 0 and f1 == pytest.approx(2 * 1 / (3 + 1))
    assert answer_match("a dog", "cat") == (0, 0)
    assert answer_match("the", "") == (1, 1) and answer_match("", "cat") == (0, 0)
    assert answer_match("no no", "no")[1] == pytest.approx(2 / 3)  # bags, not sets


def test_by_place_is_by_words_where_no_word_is_there_twice():
    words = [f"w{k}" for k in range(6)]
    spans = np.array([(i, j) for i in range(6) for j in range(i, 6)])
    ours, theirs = (np.repeat(spans, len(spans), 0).T, np.tile(spans, (len(spans), 1)).T)
    exact, f1 = span_match(*ours, *theirs)
    for k in range(ours.shape[1]):
        a, b = (" ".join(words[i : j + 1]) for i, j in (ours[:, k], theirs[:, k]))
        np.testing.assert_allclose((exact[k], f1[k]), answer_match(a, b), rtol=1e-6)
