"""Padded batches: each sequence as it is, buckets that waste little, documents packed whole."""

import numpy as np
import pytest

from dlfx.data import sequences, vocabulary
from dlfx.types import UserError

RNG = np.random.default_rng(0)
ROWS = [RNG.integers(1, 50, length) for length in RNG.integers(0, 12, 57)]
FIELDS = {"tokens": sequences.ragged(ROWS), "label": np.arange(57)}


def assert_rows(batch, width=None):
    """Every row is the sequence that its label numbers, zeros behind it."""
    for tokens, length, label in zip(batch["tokens"], batch["lengths"], batch["label"], strict=True):
        assert length == len(ROWS[label]) and width in (None, len(tokens))
        np.testing.assert_array_equal(tokens, np.pad(ROWS[label], (0, len(tokens) - length)))


def equal(left, right):
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


def test_training_visits_every_example_once_an_epoch():
    stream = sequences.training_stream(FIELDS, 8)
    epoch = [stream.host(1, i) for i in range(7)]
    for batch in epoch:
        assert_rows(batch, max(map(len, ROWS)))
        assert batch["tokens"].dtype == batch["lengths"].dtype == np.int32
    assert len({int(label) for batch in epoch for label in batch["label"]}) == 56
    assert equal(sequences.training_stream(FIELDS, 8).host(1, 5), epoch[5])
    assert not equal(stream.host(2, 5), epoch[5]) and not equal(stream.host(1, 12), epoch[5])
    with pytest.raises(UserError, match="58 is not possible: there are 57"):
        sequences.training_stream(FIELDS, 58)


def test_processes_share_the_batch_of_one():
    whole = sequences.training_stream(FIELDS, 8).host(0, 3)
    parts = [sequences.training_stream(FIELDS, 8, process=p, processes=2).host(0, 3) for p in range(2)]
    assert equal(whole, {name: np.concatenate([part[name] for part in parts]) for name in whole})


def test_evaluation_has_every_example_once():
    stream, batches = sequences.evaluation_stream(FIELDS, 8)
    seen = []
    for i in range(batches):
        batch = stream.host(0, i)
        assert_rows(batch)
        seen += batch["label"][batch["mask"] == 1].tolist()
    assert seen == list(range(57))


def test_longer_sequences_are_cut_and_pairs_have_lengths_of_their_own():
    pairs = {"source": FIELDS["tokens"], "target": sequences.ragged(row[:3] for row in ROWS)}
    batch = sequences.training_stream(pairs, 57, {"source": 5, "target": 4}).host(0, 0)
    assert set(batch) == {"source", "source_lengths", "target", "target_lengths"}
    assert batch["source"].shape == (57, 5) and batch["target"].shape == (57, 4)
    assert batch["source_lengths"].max() == 5 and batch["target_lengths"].max() == 3
    with pytest.raises(UserError, match="different sizes"):
        sequences.training_stream({"tokens": FIELDS["tokens"], "label": np.arange(3)}, 2)


def test_a_subset_keeps_its_order():
    chosen = sequences.subset(FIELDS, np.array([7, 3, 30]))
    assert_rows(sequences.batch_of(chosen, np.arange(3), {"tokens": 12}))
    np.testing.assert_array_equal(chosen["label"], [7, 3, 30])


@pytest.mark.parametrize("kind", ["characters", "words"])
def test_texts_are_encoded_each_by_itself(kind):
    texts = ["one two", "", "two"]
    v = {"characters": vocabulary.characters, "words": vocabulary.words}[kind](texts, special=("<pad>", "<eos>"))
    for end in (False, True):
        encoded = sequences.encoded(v, texts, end)
        assert encoded.values.dtype == np.int32
        for k, text in enumerate(texts):
            row = encoded.values[encoded.offsets[k] : encoded.offsets[k + 1]]
            np.testing.assert_array_equal(row, [*v.encode(text), v.special["<eos>"]] if end else v.encode(text))
    assert len(sequences.encoded(v, [], end=True).lengths) == 0


@pytest.mark.parametrize("run", [1, 2])
def test_buckets_hold_like_lengths_and_every_example_once_an_epoch(run):
    bounds = [4, 8, 11]
    stream, batches = sequences.bucket_stream(FIELDS, "tokens", bounds, 4, run)
    epoch = [stream.host(3, i) for i in range(batches)]
    widths = [batch["tokens"].shape[1] for batch in epoch]
    for batch, width in zip(epoch, widths, strict=True):
        assert_rows(batch)
        below = max([bound for bound in bounds if bound < width], default=-1)
        assert width in bounds and (batch["lengths"] > below).all()
    labels = [int(label) for batch in epoch for label in batch["label"]]
    assert len(set(labels)) == len(labels) == 4 * batches
    members = np.bincount(np.searchsorted(bounds, [len(row) for row in ROWS]))
    assert batches == sum(count // (4 * run) * run for count in members)
    assert widths[::run] == widths[run - 1 :: run]
    other = [stream.host(4, i) for i in range(batches)]
    assert [batch["tokens"].shape[1] for batch in other] == widths  # several seeds can be stacked
    assert not all(equal(a, b) for a, b in zip(epoch, other, strict=True))
    fresh, _ = sequences.bucket_stream(FIELDS, "tokens", bounds, 4, run)
    assert equal(fresh.host(3, batches + 2), stream.host(3, batches + 2))
    assert not all(equal(stream.host(3, batches + i), epoch[i]) for i in range(batches))


def test_bad_buckets_are_refused():
    for bounds in ([8, 4, 11], [4, 8], []):
        with pytest.raises(UserError, match="must rise, to 11"):
            sequences.bucket_stream(FIELDS, "tokens", bounds, 4)
    with pytest.raises(UserError, match="no bucket"):
        sequences.bucket_stream(FIELDS, "tokens", [4, 8, 11], 50)


def test_documents_are_packed_whole():
    documents = [RNG.integers(1, 50, length) for length in (3, 7, 2, 10, 4, 23, 1, 5)]
    packed = sequences.pack(sequences.ragged(documents), 10)
    expected = sorted(tuple(d[k : k + 10]) for d in documents for k in range(0, len(d), 10))
    found = []
    for tokens, segments, positions in zip(*(packed[n] for n in ("tokens", "segments", "positions")), strict=True):
        for segment in range(1, segments.max() + 1):
            at = np.flatnonzero(segments == segment)
            np.testing.assert_array_equal(np.diff(at), 1)
            np.testing.assert_array_equal(positions[at], np.arange(len(at)))
            found.append(tuple(tokens[at]))
        assert not tokens[segments == 0].any() and not positions[segments == 0].any()
    assert sorted(found) == expected
    assert len(packed["tokens"]) == 6  # 55 tokens: no row more than need be
