"""Contexts of words: against loops, with the distributions of the paper."""

import numpy as np
import pytest

from dlfx.data import sequences, word_contexts
from dlfx.types import UserError

RNG = np.random.default_rng(0)
COUNTS = np.array([400, 90, 60, 30, 10, 5, 3, 2])
TEXT = sequences.ragged(RNG.choice(8, n, p=COUNTS / COUNTS.sum()) for n in RNG.integers(1, 12, 60))
ALL = word_contexts.Settings(3, np.ones(8), word_contexts.noise_distribution(COUNTS), 4)


def equal(left, right):
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


def test_the_distribution_of_the_noise_is_that_of_counts_to_the_three_quarters():
    noise = word_contexts.noise_distribution(np.array([16, 81, 1, 0]))
    np.testing.assert_allclose(noise, np.array([8, 27, 1, 0]) / 36, rtol=1e-15)
    np.testing.assert_allclose(word_contexts.noise_distribution(COUNTS, 1.0), COUNTS / COUNTS.sum())


def test_frequent_words_are_kept_less_often():
    keep = word_contexts.keep_probabilities(np.array([9000, 900, 90, 10]), 1e-3)
    np.testing.assert_allclose(keep, [np.sqrt(1e-3 / 0.9), np.sqrt(1e-3 / 0.09), np.sqrt(1e-3 / 0.009), 1], rtol=1e-12)
    assert (word_contexts.keep_probabilities(COUNTS, 0) == 1).all()
    assert (word_contexts.keep_probabilities(np.array([5, 0]), 1e-3)[1]) == 1


@pytest.mark.parametrize("evaluation", [False, True])
def test_contexts_are_those_of_a_loop(evaluation):
    """Every centre of an epoch is one word of the text, and its contexts those within some reach, in its sentence."""
    make = word_contexts.evaluation_stream if evaluation else word_contexts.training_stream
    stream, batches = make(TEXT, ALL, 16)
    assert batches == (-(-len(TEXT.values) // 16) if evaluation else len(TEXT.values) // 16)
    possible = {}  # (centre, its contexts with filling) to the reach that gives them
    for start, end in zip(TEXT.offsets, TEXT.offsets[1:], strict=False):
        for at in range(start, end):
            for reach in range(1, 4):
                places = [at + d for d in (-3, -2, -1, 1, 2, 3)]
                row = tuple(TEXT.values[p] if start <= p < end and abs(p - at) <= reach else -1 for p in places)
                possible.setdefault((TEXT.values[at], row), set()).add(reach)
    centres = []
    for i in range(batches):
        batch = stream.host(2, i)
        assert batch["contexts"].shape == batch["real"].shape == (16, 6) and batch["noise"].shape == (16, 4)
        assert batch["centre"].dtype == batch["contexts"].dtype == batch["noise"].dtype == np.int32
        for row in range(min(16, len(TEXT.values) - i * 16)):
            known = np.where(batch["real"][row] > 0, batch["contexts"][row], -1)
            assert (batch["centre"][row], tuple(known)) in possible
            centres.append(batch["centre"][row])
        assert not batch["real"][len(TEXT.values) - i * 16 if i == batches - 1 and evaluation else 16 :].any()
    if evaluation:
        assert (centres == TEXT.values).all()
    else:
        missing = np.bincount(TEXT.values, minlength=8) - np.bincount(centres, minlength=8)
        assert (missing >= 0).all() and missing.sum() == len(TEXT.values) % 16


def test_windows_are_uniform_and_noise_is_as_told():
    stream, _ = word_contexts.training_stream(sequences.ragged([np.arange(5000) % 8]), ALL, 4000)
    batch = stream.host(0, 0)
    inner = batch["real"][(batch["real"].sum(1) % 2 == 0)]
    reach = np.bincount(inner.sum(1).astype(int) // 2, minlength=4)[1:] / len(inner)
    np.testing.assert_allclose(reach, 1 / 3, atol=4 * np.sqrt(2 / 9 / len(inner)))
    drawn = np.bincount(batch["noise"].ravel(), minlength=8) / batch["noise"].size
    deviation = np.sqrt(ALL.noise * (1 - ALL.noise) / batch["noise"].size)
    assert (np.abs(drawn - ALL.noise) < 4 * deviation).all()
    off = np.abs(drawn - COUNTS / COUNTS.sum()) / deviation
    assert off.max() > 20  # plain frequencies would be told apart


def test_what_is_left_out_lets_windows_reach_further():
    """0 1 0 1 ... without the zeros: the ones become neighbours, in an epoch as long as half of the text."""
    text = sequences.ragged([np.arange(4000) % 2])
    settings = word_contexts.Settings(1, np.array([0.0, 0.5]), np.ones(2) / 2, 0)
    stream, batches = word_contexts.training_stream(text, settings, 100)
    assert batches == 10
    for i in (0, 9, 10):
        batch = stream.host(0, i)
        assert (batch["centre"] == 1).all() and (batch["contexts"][batch["real"] > 0] == 1).all()
        assert batch["real"].sum() >= 198 and batch["noise"].shape == (100, 0)
    words, sentence = word_contexts._subsampled(text, settings.keep, 0, 0)
    assert abs(len(words) - 1000) < 4 * np.sqrt(2000 / 4) and len(sentence) == len(words)


def test_a_batch_depends_on_seed_and_number_alone():
    settings = ALL._replace(keep=word_contexts.keep_probabilities(COUNTS, 0.05))
    first, second = (word_contexts.training_stream(TEXT, settings, 16)[0] for _ in range(2))
    batches = [first.host(1, i) for i in range(30)]
    assert equal(second.host(1, 29), batches[29]) and equal(second.host(1, 3), batches[3])
    assert equal(first.host(1, 3), batches[3]) and not equal(first.host(2, 3), batches[3])
    whole = word_contexts.training_stream(TEXT, settings, 16)[0].host(1, 3)
    parts = [word_contexts.training_stream(TEXT, settings, 16, p, 2)[0].host(1, 3) for p in range(2)]
    assert equal({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)
    evaluation, _ = word_contexts.evaluation_stream(TEXT, settings, 16)
    assert equal(evaluation.host(0, 1), evaluation.host(5, 1))


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="window of 0 words"):
        word_contexts.training_stream(TEXT, ALL._replace(window=0), 16)
    with pytest.raises(UserError, match="no two words"):
        word_contexts.evaluation_stream(sequences.ragged([[1], [2], []]), ALL, 16)
    with pytest.raises(UserError, match=f"batch size 9999 is not possible: {len(TEXT.values)} words"):
        word_contexts.training_stream(TEXT, ALL, 9999)
