"""Streams of text: functions of (seed, i), on the device or the host, whole splits exactly once, files in pieces."""

import functools

import jax
import numpy as np
import pytest

from dlfx.data import text, vocabulary
from dlfx.types import UserError

TOKENS = np.random.default_rng(0).integers(0, 1000, 101).astype(np.int32)


@functools.cache
def _fetch(fetch):
    return jax.jit(fetch)


def realised(stream, seed, i):
    return jax.tree.map(np.asarray, _fetch(stream.fetch)(stream.arrays, stream.host(seed, i)))


@pytest.fixture(params=["device", "host"])
def placement(request):
    return request.param


def test_windows_are_pieces_of_the_text_at_places_that_seed_and_i_give(placement):
    stream = text.window_stream(TOKENS, 8, 10, placement)
    batch = realised(stream, 3, 5)["tokens"]
    assert batch.shape == (8, 11) and batch.dtype == np.int32
    pieces = {tuple(TOKENS[k : k + 11]) for k in range(91)}
    assert all(tuple(row) in pieces for row in batch)
    np.testing.assert_array_equal(realised(text.window_stream(TOKENS, 8, 10, "host"), 3, 5)["tokens"], batch)
    assert (realised(stream, 4, 5)["tokens"] != batch).any() and (realised(stream, 3, 6)["tokens"] != batch).any()


def test_only_places_travel_to_the_device():
    stream = text.window_stream(TOKENS, 8, 10)
    travels = stream.host(0, 0)
    assert set(travels) == {"start"} and travels["start"].shape == (8,) and travels["start"].dtype == np.int32
    assert stream.arrays["tokens"].dtype == np.uint16
    assert text.window_stream(TOKENS % 7, 8, 10).arrays["tokens"].dtype == np.uint8


def test_every_place_is_drawn_and_the_last_token_too():
    stream = text.window_stream(TOKENS[:14], 64, 10)
    starts = np.concatenate([stream.host(0, i)["start"] for i in range(4)])
    assert set(starts) == {0, 1, 2, 3}  # 3 + 10 is the last token, as a target


def test_processes_share_the_windows_of_one(placement):
    whole = realised(text.window_stream(TOKENS, 8, 10, placement), 0, 1)["tokens"]
    parts = [realised(text.window_stream(TOKENS, 8, 10, placement, p, 4), 0, 1)["tokens"] for p in range(4)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_rows_go_on_from_batch_to_batch(placement):
    stream, batches = text.contiguous_stream(TOKENS, 4, 6, placement)
    assert batches == 4  # rows of 25, of which 24 targets
    epoch = [realised(stream, 0, i) for i in range(batches)]
    rows = np.concatenate([batch["tokens"][:, :-1] for batch in epoch], 1)
    np.testing.assert_array_equal(rows, TOKENS[:100].reshape(4, 25)[:, :24])
    for before, after in zip(epoch, epoch[1:], strict=False):
        np.testing.assert_array_equal(before["tokens"][:, -1], after["tokens"][:, 0])
    assert [batch["first"].tolist() for batch in epoch] == [[1] * 4] + [[0] * 4] * 3
    jax.tree.map(np.testing.assert_array_equal, realised(stream, 9, batches), epoch[0])


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("size", [2, 30, 61, 62, 101])
@pytest.mark.parametrize("processes", [1, 2])
def test_an_evaluation_has_every_target_exactly_once(contiguous, size, processes, placement):
    tokens = np.arange(size)  # every token tells its place
    targets, inputs = [], []
    for process in range(processes):
        stream, batches = text.evaluation_stream(tokens, 4, 5, contiguous, placement, process, processes)
        for i in range(batches):
            batch = jax.tree.map(np.asarray, stream.fetch(stream.arrays, stream.host(0, i)))
            assert batch["tokens"].shape == (4 // processes, 6) and batch["mask"].shape == (4 // processes, 5)
            real = batch["mask"] == 1
            targets += batch["tokens"][:, 1:][real].tolist()
            inputs += batch["tokens"][:, :-1][real].tolist()
            assert ("first" in batch) == contiguous
    assert sorted(targets) == list(range(1, size))
    assert [target - 1 for target in targets] == inputs


def test_a_contiguous_evaluation_carries_rows_on():
    stream, batches = text.evaluation_stream(np.arange(61), 4, 5, contiguous=True)
    epoch = [realised(stream, 0, i) for i in range(batches)]
    assert batches == 3
    for before, after in zip(epoch, epoch[1:], strict=False):
        np.testing.assert_array_equal(before["tokens"][:, -1], after["tokens"][:, 0])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="context of 101 tokens.*101 tokens"):
        text.window_stream(TOKENS, 8, 101)
    with pytest.raises(UserError, match="context of 0"):
        text.window_stream(TOKENS, 8, 0)
    with pytest.raises(UserError, match="20 rows of 5"):
        text.contiguous_stream(TOKENS, 20, 5)
    with pytest.raises(UserError, match="nothing to predict"):
        text.evaluation_stream(TOKENS[:1], 4, 5)
    with pytest.raises(UserError, match="shared evenly"):
        text.window_stream(TOKENS, 8, 10, "auto", 0, 3)


STORY = "Es war einmal\nein König.\n\n  Er hatte 世界 viel\r\nund mehr.\n\nEnde \n gut 😀\n" * 7


@pytest.mark.parametrize("kind", ["characters", "words", "byte_pairs"])
def test_a_file_in_pieces_gives_the_tokens_of_the_whole(tmp_path, kind):
    plain = STORY.replace("\r\n", "\n")
    if kind == "byte_pairs":
        pytest.importorskip("tokenizers")
        v = vocabulary.byte_pairs(plain, 300)
    else:
        v = {"characters": vocabulary.characters, "words": vocabulary.words}[kind](plain)
    source, target = tmp_path / "story.txt", tmp_path / "story.bin"
    source.write_bytes(b"\xef\xbb\xbf" + STORY.encode())
    for chunk in (1, 7, 50, 1 << 20):
        count = text.tokenise_file(source, v, target, chunk)
        tokens = text.read_tokens(target, v.size)
        assert isinstance(tokens, np.memmap) and len(tokens) == count
        np.testing.assert_array_equal(tokens, v.encode(plain))
    mapped = realised(text.window_stream(tokens, 4, 8, "host"), 0, 0)["tokens"]
    np.testing.assert_array_equal(mapped, realised(text.window_stream(v.encode(plain), 4, 8), 0, 0)["tokens"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["story.bin", "story.txt"]


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_bad_files_leave_no_tokens(tmp_path, chunk):
    source, target = tmp_path / "story.txt", tmp_path / "story.bin"
    v = vocabulary.characters("abcdefghi\n")
    source.write_bytes("abcé".encode() + b"\xe4\xb8" + b"abc")  # cut short in a character, from byte 5
    with pytest.raises(UserError, match="not UTF-8: byte 0xe4 at offset 5"):
        text.tokenise_file(source, vocabulary.characters("abcé"), target, chunk)
    source.write_bytes(b"abc\xe4")
    with pytest.raises(UserError, match="not UTF-8: byte 0xe4 at offset 3"):
        text.tokenise_file(source, v, target, chunk)
    source.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        text.tokenise_file(source, v, target, chunk)
    source.write_bytes(b"abcxyz")
    with pytest.raises(UserError, match="'x'"):
        text.tokenise_file(source, v, target, chunk)
    with pytest.raises(UserError, match="no text file"):
        text.tokenise_file(tmp_path / "other.txt", v, target, chunk)
    assert [path.name for path in tmp_path.iterdir()] == ["story.txt"]
    target.write_bytes(b"abc")
    with pytest.raises(UserError, match="3 bytes"):
        text.read_tokens(target, v.size)
