import functools

import numpy as np
import pytest

from dlfx.metrics.edit_distance import Edits, character_error_rate, corpus_edits, edits, word_error_rate
from dlfx.types import UserError


def all_alignments(hyp, ref):
    """The (substitutions, deletions, insertions) of every alignment, by recursion."""

    @functools.cache
    def of(i, j):
        found = {(0, 0, 0)} if i == j == 0 else set()
        if i and j:
            found |= {(s + (hyp[i - 1] != ref[j - 1]), d, n) for s, d, n in of(i - 1, j - 1)}
        if j:
            found |= {(s, d + 1, n) for s, d, n in of(i, j - 1)}
        if i:
            found |= {(s, d, n + 1) for s, d, n in of(i - 1, j)}
        return found

    return of(len(hyp), len(ref))


@pytest.mark.parametrize("seed", range(40))
def test_edits_are_the_best_of_all_alignments(seed):
    rng = np.random.default_rng(seed)
    hyp, ref = (tuple(rng.integers(0, 3, rng.integers(0, 8)).tolist()) for _ in range(2))
    fewest = min(all_alignments(hyp, ref), key=lambda e: (sum(e), e[0]))
    assert edits(hyp, ref) == Edits(*fewest, len(ref))


def test_edits_by_hand():
    assert edits("sitting", "kitten") == Edits(2, 0, 1, 6)
    assert edits("kitten", "sitting") == Edits(2, 1, 0, 7)
    assert edits("ba", "ab") == Edits(0, 1, 1, 2)  # not two substitutions: one letter is right
    assert edits("", "abc") == Edits(0, 3, 0, 3)
    assert edits("abc", "") == Edits(0, 0, 3, 0)
    assert edits("", "") == Edits(0, 0, 0, 0)
    assert edits(["the", "cat"], ("the", "cat")).distance == 0
    assert edits(np.array([1, 2, 3]), np.array([1, 3])) == Edits(0, 0, 1, 2)


def test_edits_of_long_sequences():
    rng = np.random.default_rng(0)
    ref = rng.integers(0, 1_000_000, 3000)
    assert edits(np.delete(ref, [5, 700, 2999]), ref) == Edits(0, 3, 0, 3000)
    assert edits(ref[::-1][:100], ref[:0]).insertions == 100


def test_rates_sum_edits_before_they_divide():
    # 1 of 1 and 1 of 4 words: 2 of 5, not the mean (1 + 1 / 4) / 2
    assert word_error_rate(["b", "the cat sat  up"], ["a", "the cat sat down"]) == 2 / 5
    assert word_error_rate(["one two three"], ["one"]) == 2.0
    assert character_error_rate(["ab c", ""], ["abc", "d"]) == 2 / 4
    assert corpus_edits([[1, 2], [3]], [[1], [3, 4, 5]]) == Edits(0, 2, 1, 4)
    assert corpus_edits([[1, 2], [3]], [[1], [3, 4, 5]]).rate == 3 / 4


def test_what_has_no_rate():
    with pytest.raises(UserError, match="all references are empty"):
        word_error_rate(["a"], [" "])
    with pytest.raises(UserError, match="all references are empty"):
        word_error_rate([], [])
    with pytest.raises(UserError, match="2 hypotheses but 1 references"):
        word_error_rate(["a", "b"], ["a"])
