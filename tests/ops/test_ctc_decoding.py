"""Decoding against searches through everything."""

import itertools
from collections import defaultdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops.ctc import ctc_loss
from dlfx.ops.ctc_decoding import bigram, collapse, greedy_decode, prefix_beam_search
from dlfx.types import UserError
from tests.compiling import quick

FRAMES, CLASSES = 5, 3
EVERYTHING = sum(2**n for n in range(FRAMES + 1))  # labels of two symbols


def reading(path: Any) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)


def all_labels(logits: np.ndarray) -> dict[tuple[int, ...], float]:
    """The log-probability of every label, by a sum over all paths."""
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    total: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(CLASSES), repeat=len(logits)):
        total[reading(path)] += np.prod(probs[np.arange(len(logits)), list(path)])
    return {label: float(np.log(p)) for label, p in total.items()}


def found(decoded: Any, row: int) -> list[tuple[tuple[int, ...], float]]:
    rows = zip(*(part[row] for part in decoded), strict=True)
    return [(tuple(symbols[:length].tolist()), float(score)) for symbols, length, score in rows if score > -np.inf]


def frames_of(seed: int, count: int) -> np.ndarray:
    return 1.5 * np.random.default_rng(seed).normal(size=(count, FRAMES, CLASSES))


def test_repeats_are_merged_before_blanks_are_removed() -> None:
    """The notes say only that an output may be null. The other order would make "a-a" an "a"."""
    paths = np.array([[1, 0, 1, 1, 0], [1, 1, 2, 2, 1], [0, 0, 0, 0, 0], [0, 2, 0, 0, 2]], np.int32)
    symbols, lengths = collapse(paths)
    assert [row[:n].tolist() for row, n in zip(symbols, lengths, strict=True)] == [[1, 1], [1, 2, 1], [], [2, 2]]
    assert symbols[1].tolist() == [1, 2, 1, 0, 0] and symbols.dtype == lengths.dtype == jnp.int32
    for path in itertools.product(range(3), repeat=4):
        symbols, lengths = collapse(np.array(path))
        assert tuple(symbols[:lengths].tolist()) == reading(path)
    symbols, lengths = collapse(np.array([2, 2, 0, 1]), blank=2)
    assert symbols.tolist() == [0, 1, 2, 2] and lengths == 2


def test_greedy_reads_the_likeliest_path() -> None:
    logits = frames_of(0, 6)
    lengths = np.array([5, 5, 4, 3, 1, 0], np.int32)
    logits[4, 1:] = np.nan
    with jax.enable_x64(True):
        decoded = quick(greedy_decode)(logits, lengths)
    for row, frames in enumerate(lengths):
        x = logits[row, :frames]
        label = reading(x.argmax(-1))
        assert decoded.symbols[row].tolist() == [*label] + [0] * (FRAMES - len(label))
        assert decoded.lengths[row] == len(label)
        best = (x.max(-1) - np.log(np.exp(x).sum(-1))).sum()
        np.testing.assert_allclose(decoded.scores[row], best, rtol=1e-12)


def test_the_likeliest_path_need_not_be_the_likeliest_label() -> None:
    logits = np.log(np.array([[[0.6, 0.4], [0.6, 0.4]]]))  # blank twice 0.36; the symbol in any way 0.64
    assert quick(greedy_decode)(logits).lengths[0] == 0
    beam = quick(partial(prefix_beam_search, width=2))(logits)
    assert beam.symbols[0, 0].tolist() == [1, 0]
    np.testing.assert_allclose(np.exp(beam.scores[0]), [0.64, 0.36], rtol=1e-6)


def test_of_full_width_the_beam_holds_all_labels_in_order() -> None:
    logits = frames_of(1, 4)
    lengths = np.array([5, 5, 3, 0], np.int32)
    with jax.enable_x64(True):
        decoded = jax.device_get(quick(partial(prefix_beam_search, width=EVERYTHING))(logits, lengths))
        same = np.broadcast_to(logits[0], (EVERYTHING, FRAMES, CLASSES))
        losses = np.asarray(quick(ctc_loss)(same, None, decoded.symbols[0], decoded.lengths[0]))
    for row, frames in enumerate(lengths):
        expected = all_labels(logits[row, :frames])
        result = found(decoded, row)
        assert len(result) == len(expected) and dict(result).keys() == expected.keys()
        assert [label for label, _ in result] == sorted(expected, key=lambda label: -expected[label])
        for label, score in result:
            np.testing.assert_allclose(score, expected[label], rtol=1e-10, atol=1e-14)
        assert (decoded.symbols[row, len(result) :] == 0).all() and (decoded.lengths[row, len(result) :] == 0).all()
    np.testing.assert_allclose(losses[decoded.scores[0] > -np.inf], [-s for _, s in found(decoded, 0)], rtol=1e-10)


def test_a_language_model_changes_the_order() -> None:
    """Against every label rescored: by a bigram, and by a model that sees the whole prefix."""
    logits = frames_of(2, 2)
    table = np.random.default_rng(3).normal(size=(CLASSES, CLASSES)) * 2
    table -= np.log(np.exp(table).sum(1, keepdims=True))

    def grammar(label: tuple[int, ...]) -> float:
        return float(sum(table[a, b] for a, b in zip((0, *label), (*label, 0), strict=True)))

    def parity(symbols: jax.Array, lengths: jax.Array) -> jax.Array:  # 2 costs one where the prefix holds an odd sum
        odd = (symbols.sum(1) % 2)[:, None]
        return jnp.where(jnp.arange(CLASSES) == 2, -1.0 * odd, 0.0)

    def odd_twos(label: tuple[int, ...]) -> float:
        return -float(sum(symbol == 2 and sum(label[:i]) % 2 for i, symbol in enumerate(label)))

    for model, rescore in ((bigram(jnp.asarray(table)), grammar), (parity, odd_twos)):
        with jax.enable_x64(True):
            search = partial(prefix_beam_search, width=EVERYTHING, language_model=model, weight=0.7, bonus=0.3)
            decoded = jax.device_get(quick(search)(logits))
        for row in range(2):
            plain = all_labels(logits[row])
            expected = {y: p + 0.7 * rescore(y) + 0.3 * len(y) for y, p in plain.items()}
            result = found(decoded, row)
            assert [y for y, _ in result] == sorted(expected, key=lambda y: -expected[y])
            assert [y for y, _ in result] != sorted(plain, key=lambda y: -plain[y])
            # The table is in float32.
            np.testing.assert_allclose([s for _, s in result], [expected[y] for y, _ in result], rtol=1e-6, atol=1e-6)


def reference(logits: np.ndarray, width: int) -> list[tuple[tuple[int, ...], float]]:
    """The textbook's search with a dictionary of prefixes, in probabilities."""
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    beam = {(): (1.0, 0.0)}
    for frame in probs:
        new: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for prefix, (silent, said) in beam.items():
            new[prefix][0] += (silent + said) * frame[0]
            for symbol in range(1, len(frame)):
                repeated = bool(prefix) and prefix[-1] == symbol
                if repeated:
                    new[prefix][1] += said * frame[symbol]
                new[(*prefix, symbol)][1] += (silent if repeated else silent + said) * frame[symbol]
        beam = {y: (a, b) for y, (a, b) in sorted(new.items(), key=lambda item: -sum(item[1]))[:width]}
    return [(y, float(np.log(a + b))) for y, (a, b) in beam.items()]


@pytest.mark.parametrize("width", [1, 4])
def test_a_narrow_beam_is_that_of_the_textbook(width: int) -> None:
    logits = 1.5 * np.random.default_rng(4).normal(size=(3, 20, 4))
    with jax.enable_x64(True):
        decoded = jax.device_get(quick(partial(prefix_beam_search, width=width))(logits))
    for row in range(3):
        expected = reference(logits[row], width)
        assert [y for y, _ in found(decoded, row)] == [y for y, _ in expected]
        np.testing.assert_allclose(decoded.scores[row], [s for _, s in expected], rtol=1e-10)


def test_another_blank_padding_and_a_longest_label() -> None:
    logits, full = frames_of(5, 3).astype(np.float32), np.full(3, FRAMES, np.int32)
    search = quick(partial(prefix_beam_search, width=6))
    plain = search(logits, full)
    moved = quick(partial(prefix_beam_search, width=6, blank=2))(logits[..., [1, 2, 0]])  # 0, 1, 2 become 2, 0, 1
    np.testing.assert_array_equal(np.where(moved.symbols == 2, 0, moved.symbols + 1), plain.symbols)
    np.testing.assert_allclose(moved.scores, plain.scores, rtol=1e-6)
    logits[:, 3:] = np.nan
    padded = search(logits, full - 2)
    for row in range(3):
        expected = reference(logits[row, :3], 6)
        assert [y for y, _ in found(padded, row)] == [y for y, _ in expected]
        np.testing.assert_allclose(padded.scores[row], [s for _, s in expected], rtol=1e-5)

    two = quick(partial(prefix_beam_search, width=EVERYTHING, max_length=2))(frames_of(1, 1))
    expected = {y: s for y, s in all_labels(frames_of(1, 1)[0]).items() if len(y) <= 2}
    assert two.symbols.shape == (1, EVERYTHING, 2) and {y for y, _ in found(two, 0)} == expected.keys()
    np.testing.assert_allclose([s for _, s in found(two, 0)], sorted(expected.values())[::-1], rtol=1e-5)


def test_no_width_no_search() -> None:
    with pytest.raises(UserError, match="width of at least 1, not 0"):
        prefix_beam_search(np.zeros((1, 2, 3), np.float32), width=0)


def test_scores_have_the_type_of_the_logits_whatever_the_table_has() -> None:
    logits = frames_of(6, 1).astype(np.float32)
    with jax.enable_x64(True):
        search = partial(prefix_beam_search, width=2, language_model=bigram(jnp.zeros((3, 3))))
        assert jax.eval_shape(search, logits).scores.dtype == jnp.float32
        assert jax.eval_shape(search, logits.astype(np.float64)).scores.dtype == jnp.float64
