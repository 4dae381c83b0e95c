"""BERT's examples: shares of the masks, pairs that are what they say, and the same ones for the same (seed, i)."""

import numpy as np
import pytest

from dlfx.data import masking
from dlfx.data.sequences import ragged
from dlfx.types import UserError

SYMBOLS = masking.Symbols(cls=2, sep=3, mask=1000, ordinary=4, size=1000)
ROWS = [np.arange(4 + 20 * k, 4 + 20 * k + 5 + k % 13) for k in range(40)]  # no token is in two sentences
SENTENCES, DOCUMENTS = ragged(ROWS), np.arange(40) // 10


def spanned(k, most):
    """The tokens of the span from sentence k on, and the sentence after it; ten sentences are a document."""
    tokens, k = list(ROWS[k]), k + 1
    while k % 10 and len(tokens) + len(ROWS[k]) <= most:
        tokens, k = [*tokens, *ROWS[k]], k + 1
    return tokens, k


def restored(batch):
    tokens = batch["tokens"].copy()
    for row in range(len(tokens)):
        for k in np.nonzero(batch["weights"][row])[0]:
            tokens[row, batch["positions"][row, k]] = batch["targets"][row, k]
    return tokens


@pytest.mark.parametrize("length", [12, 40])
def test_pairs_are_packed_as_said_and_half_follow(length):
    stream = masking.training_stream(SENTENCES, DOCUMENTS, 400, length, SYMBOLS)
    batch = stream.host(3, 7)
    every = [spanned(k, (length - 3) // 2) for k in range(40)]
    for row, tokens in enumerate(restored(batch)):
        size = batch["lengths"][row]
        assert tokens[0] == 2 and tokens[size - 1] == 3 and not tokens[size:].any() and (tokens == 3).sum() == 2
        middle = int(np.argmax(tokens == 3))
        a, b = tokens[1:middle], tokens[middle + 1 : size - 1]
        np.testing.assert_array_equal(
            batch["token_types"][row], (np.arange(length) > middle) & (np.arange(length) < size)
        )
        first, second = (a[0] - 4) // 20, (b[0] - 4) // 20
        (first_tokens, after), (second_tokens, _) = every[first], every[second]
        np.testing.assert_array_equal(a, first_tokens[: len(a)])
        np.testing.assert_array_equal(b, second_tokens[: len(b)])
        if len(a) + len(b) < length - 3:  # nothing was cut
            assert len(a) == len(first_tokens) and len(b) == len(second_tokens)
        assert (second != after) == batch["not_next"][row] and after % 10
    assert 160 < batch["not_next"].sum() < 240
    again, other = stream.host(3, 7), stream.host(3, 8)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert not np.array_equal(batch["tokens"], other["tokens"])


def test_masks_have_the_shares_of_the_paper():
    batch = masking.training_stream(SENTENCES, DOCUMENTS, 4000, 40, SYMBOLS).host(0, 0)
    there = batch["weights"] > 0
    rows = np.arange(len(there))[:, None]
    shown, original = batch["tokens"][rows, batch["positions"]][there], batch["targets"][there]
    assert (original >= 4).all()
    assert all(len(set(p[w])) == w.sum() for p, w in zip(batch["positions"], there, strict=True))
    np.testing.assert_array_equal(there.sum(1), np.maximum(1, np.round(0.15 * (batch["lengths"] - 3))).clip(max=6))
    assert abs((shown == 1000).mean() - 0.8) < 0.02
    assert abs((shown == original).mean() - 0.1) < 0.015
    assert (batch["tokens"] == 1000).sum() == (shown == 1000).sum()


def test_evaluation_has_every_pair_once_whatever_the_seed():
    stream, count = masking.evaluation_stream(SENTENCES, DOCUMENTS, 16, 40, SYMBOLS)
    every = [stream.host(0, i) for i in range(count)]
    firsts = [row[1] for batch in every for row, real in zip(restored(batch), batch["mask"], strict=True) if real]
    assert sorted(firsts) == [ROWS[k][0] for k in range(40) if spanned(k, 18)[1] % 10]
    assert np.array_equal(every[1]["tokens"], stream.host(5, 1)["tokens"])


def test_processes_share_a_batch_and_few_sentences_are_refused():
    whole = masking.training_stream(SENTENCES, DOCUMENTS, 8, 20, SYMBOLS).host(1, 2)
    half = masking.training_stream(SENTENCES, DOCUMENTS, 8, 20, SYMBOLS, 1, 2).host(1, 2)
    np.testing.assert_array_equal(whole["tokens"][4:], half["tokens"])
    with pytest.raises(UserError, match="2 sentences are too few"):
        masking.training_stream(ragged(ROWS[:2]), DOCUMENTS[:2], 4, 20, SYMBOLS)
