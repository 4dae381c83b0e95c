"""Decoding against enumeration of all sequences, plain loops, and the probabilities that samples must follow."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlfx.ops import decoding
from dlfx.ops.decoding import beam_search, greedy, length_penalty, sample, top_k_filter, top_p_filter
from dlfx.types import UserError
from tests.compiling import quick

V, END, STATES = 3, 2, 997


def table(seed: int, vocabulary: int = V) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(STATES, vocabulary)).astype(np.float32) * 1.5


def model(logits):
    """A model whose logits depend on all tokens so far and on what the state began with."""

    def step(state, tokens):
        code = (state["code"][:, 0] * 31 + tokens + 7) % STATES
        return {"code": code[:, None]}, jnp.asarray(logits)[code]

    return step


def start(*codes: int):
    return {"code": jnp.array(codes, jnp.int32)[:, None]}


def log_prob(logits: np.ndarray, code: int, first: int, tokens) -> float:
    total, last = 0.0, first
    for token in tokens:
        code = (code * 31 + last + 7) % STATES
        row = logits[code].astype(np.float64)
        total += row[token] - np.log(np.exp(row).sum())
        last = token
    return total


def every_sequence(length: int, end: int | None):
    """All that end, and all that are cut at the length."""
    for tokens in itertools.product(range(V), repeat=length):
        stop = next((t for t, token in enumerate(tokens) if token == end), length - 1)
        if all(token == 0 for token in tokens[stop + 1 :]):
            yield tokens[: stop + 1]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("end", [END, None])
def test_the_widest_beam_is_exhaustive_search(alpha, end):
    length, codes, first = 4, (3, 500), (1, 0)
    logits = table(int(10 * alpha))
    sequences = list(every_sequence(length, end))
    assert len(sequences) == (31 if end else 81)
    beam = len(sequences) + 2
    found = quick(partial(beam_search, model(logits), max_length=length, beam=beam, end=end, pad=-1, alpha=alpha))(
        start(*codes), jnp.array(first)
    )
    for b in range(2):
        known = {tokens: log_prob(logits, codes[b], first[b], tokens) for tokens in sequences}
        ranked = sorted(known, key=lambda tokens: -known[tokens] / ((5 + len(tokens)) / 6) ** alpha)
        got = [tuple(row[:n]) for row, n in zip(found.tokens[b].tolist(), found.lengths[b].tolist(), strict=True)]
        assert got[:-2] == ranked
        np.testing.assert_allclose(found.log_probs[b, :-2], [known[tokens] for tokens in ranked], rtol=1e-5)
        assert np.all(np.asarray(found.log_probs[b, -2:]) == -np.inf)
        after = np.arange(length) >= np.asarray(found.lengths[b])[:, None]
        assert np.all(np.asarray(found.tokens[b])[after] == -1)


def test_length_penalty_changes_the_winner():
    """Wu et al.'s formula by hand, and a model where the short answer is likelier than the long one."""
    np.testing.assert_allclose(length_penalty(jnp.array([1, 7]), 0.5), [1.0, 2**0.5], rtol=1e-6)
    logits = np.log(np.array([[0.6, 0.0, 0.4], [0.9, 0.0, 0.1]], np.float32) + 1e-30)  # [state, token]

    def step(state, tokens):
        return jnp.ones_like(state), jnp.asarray(logits)[state]

    state, first = jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32)
    search = partial(beam_search, step, max_length=6, beam=4, end=END)
    short, long = quick(search)(state, first), quick(partial(search, alpha=1.0))(state, first)
    # 0.4 against 0.6 * 0.9^5 = 0.354: log 0.4 = -0.916 and log 0.354 / (11 / 6) = -0.566.
    assert int(short.lengths[0, 0]) == 1 and int(long.lengths[0, 0]) == 6
    np.testing.assert_allclose(long.log_probs[0, 0], np.log(0.6 * 0.9**5), rtol=1e-5)


def test_a_narrow_beam_is_the_textbook_s():
    """Against lists and sorting in Python, with sequences that end at different times."""
    logits, length, beam, alpha = table(11, 5), 7, 3, 0.8
    search = partial(beam_search, model(logits), max_length=length, beam=beam, end=END, alpha=alpha)
    found = quick(search)(start(1, 2, 3), jnp.array([0, 1, 4]))
    for b, (code, first) in enumerate([(1, 0), (2, 1), (3, 4)]):

        def score(tokens, code=code, first=first):
            return log_prob(logits, code, first, tokens) / ((5 + len(tokens)) / 6) ** alpha

        kept = [()]
        for _ in range(length):
            more = [y for y in kept if y and y[-1] == END]
            more += [(*y, token) for y in kept if not (y and y[-1] == END) for token in range(5)]
            kept = sorted(more, key=score, reverse=True)[:beam]
        got = [tuple(row[:n]) for row, n in zip(found.tokens[b].tolist(), found.lengths[b].tolist(), strict=True)]
        assert got == kept
    assert len(set(np.asarray(found.lengths).ravel().tolist())) > 1


def test_one_beam_is_greedy_and_greedy_is_a_loop():
    logits, length, codes = table(5, 6), 9, list(range(20, 32))
    first = jnp.arange(12) % 6
    found = quick(partial(greedy, model(logits), max_length=length, end=END, pad=5))(start(*codes), first)
    single_beam = partial(beam_search, model(logits), max_length=length, beam=1, end=END, pad=5, alpha=0.7)
    one = quick(single_beam)(start(*codes), first)
    for many, single in zip(one, found, strict=True):
        np.testing.assert_array_equal(many[:, 0].round(4), single.round(4))
    for b, code in enumerate(codes):
        tokens, state, last = [], code, int(first[b])
        while len(tokens) < length and END not in tokens:
            state = (state * 31 + last + 7) % STATES
            tokens.append(last := int(logits[state].argmax()))
        assert found.tokens[b].tolist() == tokens + [5] * (length - len(tokens))
        assert int(found.lengths[b]) == len(tokens)
        np.testing.assert_allclose(found.log_probs[b], log_prob(logits, code, int(first[b]), tokens), rtol=1e-5)
    assert {int(n) for n in found.lengths} > {1, length}  # some end at once, some are cut


def test_the_loop_stops_when_all_have_ended():
    calls = []

    def step(state, tokens):
        jax.debug.callback(lambda: calls.append(1))
        return state, jnp.array([[0.0, 5.0, 0.0], [0.0, 0.0, 0.0]])[jnp.where(tokens == 1, 1, 0)].at[:, 2].add(
            tokens * 9
        )

    for decode in (greedy, partial(beam_search, beam=1)):
        found = quick(partial(decode, step, (), max_length=50, end=END))(jnp.zeros(2, jnp.int32))
        jax.effects_barrier()
        assert np.asarray(found.lengths).ravel().tolist() == [2, 2] and len(calls) == 2
        calls.clear()


def test_filters_against_numpy():
    rows = np.random.default_rng(0).normal(size=(40, 11)).astype(np.float32) * 2
    rows[0] = 1.0  # all equal
    rows[1, 3:6] = rows[1].max() + 1  # three equal ones on top
    for k in (1, 4, 11):
        kept = np.asarray(quick(partial(top_k_filter, k=k))(rows.reshape(4, 10, 11))).reshape(40, 11)
        for row, got in zip(rows, kept, strict=True):
            chosen = sorted(range(11), key=lambda i: (-row[i], i))[:k]
            np.testing.assert_array_equal(got, [row[i] if i in chosen else -np.inf for i in range(11)])
    for p in (1e-6, 0.3, 0.9, 1.0):
        for row, got in zip(rows, np.asarray(quick(partial(top_p_filter, p=p))(rows)), strict=True):
            probs = np.exp(row.astype(np.float64))
            probs /= probs.sum()
            order = sorted(range(11), key=lambda i: (-row[i], i))
            size = next((n for n in range(1, 11) if probs[order[:n]].sum() >= p), 11)
            np.testing.assert_array_equal(got, [row[i] if i in order[:size] else -np.inf for i in range(11)])


def test_top_p_is_the_smallest_set_of_all_subsets():
    probs = np.array([0.1, 0.35, 0.05, 0.3, 0.2])
    for p in (0.36, 0.7, 0.97):
        kept = np.isfinite(np.asarray(quick(partial(top_p_filter, p=p))(np.log(probs))))
        smaller = [s for n in range(kept.sum()) for s in itertools.combinations(probs, n)]
        assert probs[kept].sum() >= p and all(sum(s) < p for s in smaller)
    masked = top_p_filter(jnp.array([0.0, -jnp.inf, 0.0]), 1.0)
    np.testing.assert_array_equal(masked, [0.0, -np.inf, 0.0])


@pytest.mark.parametrize("told", [{}, {"temperature": 3.0, "top_k": 3}, {"temperature": 0.5, "top_k": 4, "top_p": 0.8}])
def test_sampling_frequencies(told):
    """Two tokens from a Markov chain, in 20,000 rows: counts within 4.5 deviations of the binomial distribution."""
    rows = 20_000
    logits = np.random.default_rng(1).normal(size=(5, 5)).astype(np.float32) * 1.2
    found = quick(
        lambda key: sample(lambda s, t: (s, jnp.asarray(logits)[t]), (), jnp.zeros(rows, jnp.int32), key, 2, **told)
    )(jax.random.key(7))
    scaled = logits.astype(np.float64) / told.get("temperature", 1.0)
    order = np.argsort(-scaled, axis=-1)
    probs = np.take_along_axis(np.exp(scaled), order, -1)
    probs[:, told.get("top_k", 5) :] = 0
    probs /= probs.sum(-1, keepdims=True)
    probs *= probs.cumsum(-1) - probs < told.get("top_p", 2.0)
    probs /= probs.sum(-1, keepdims=True)
    chain = np.zeros((5, 5))
    np.put_along_axis(chain, order, probs, -1)
    expected = chain[0][:, None] * chain
    counts = np.zeros((5, 5))
    np.add.at(counts, tuple(np.asarray(found.tokens).T), 1)
    assert np.all(counts[expected == 0] == 0)
    assert np.all(np.abs(counts - rows * expected) <= 4.5 * np.sqrt(rows * expected * (1 - expected)))
    # The probabilities told are the model's, whatever the filters.
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    first, second = np.asarray(found.tokens[:50]).T
    np.testing.assert_allclose(found.log_probs[:50], logs[0, first] + logs[first, second], rtol=1e-5)


def test_samples_end_and_zero_temperature_is_greedy():
    logits, first = table(5, 6), jnp.arange(12) % 6
    state = start(*range(20, 32))
    told = {"max_length": 9, "end": END, "pad": 5}
    draw = partial(sample, model(logits), key=jax.random.key(0), **told)
    cold = quick(partial(draw, temperature=0.0, top_k=3, top_p=0.5))(state, first)
    for got, expected in zip(cold, quick(partial(greedy, model(logits), **told))(state, first), strict=True):
        np.testing.assert_array_equal(got, expected)
    found = quick(draw)(state, first)
    for b, (row, n) in enumerate(zip(found.tokens.tolist(), found.lengths.tolist(), strict=True)):
        assert END not in row[: n - 1] and row[n:] == [5] * (9 - n) and (n == 9 or row[n - 1] == END)
        np.testing.assert_allclose(
            found.log_probs[b], log_prob(logits, 20 + b, int(first[b]), row[:n]), rtol=1e-5, atol=1e-6
        )
    assert min(found.lengths.tolist()) < 9


def test_vmap_over_models():
    """A population: each member's parameters with its own search, as one program."""
    tables = np.stack([table(seed, 4) for seed in range(3)])
    state, first = start(5, 6), jnp.array([0, 1])

    def search(logits):
        return beam_search(model(logits), state, first, 5, beam=2, end=END, alpha=0.6)

    def draw(logits):
        return sample(model(logits), state, first, jax.random.key(3), 5, end=END, top_p=0.9)

    for decode in (search, draw):
        many, alone = quick(jax.vmap(decode))(tables), quick(decode)
        for i, logits in enumerate(tables):
            for got, expected in zip(many, alone(logits), strict=True):
                np.testing.assert_allclose(got[i], expected, rtol=1e-5)


def test_half_precision_logits_are_summed_in_single():
    logits = table(5, 6).astype(jnp.bfloat16)
    for decode in (greedy, partial(beam_search, beam=2)):
        found = jax.eval_shape(partial(decode, model(logits), max_length=4), start(1), jnp.zeros(1, jnp.int32))
        assert found.log_probs.dtype == jnp.float32


@pytest.mark.parametrize(
    "told, says",
    [
        ({"beam": 0}, "beam 0; it is at least 1"),
        ({"beam": 2, "alpha": -1.0}, "alpha -1"),
        ({"beam": 2, "max_length": 0}, "max_length 0"),
        ({"beam": 2, "end": 3}, "end 3; the model's tokens are 0 to 2"),
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"top_k": 4}, "top-k of 4 tokens; there are 3"),
        ({"top_k": 0}, "top-k of 0"),
        ({"top_p": 0.0}, "top-p of 0"),
        ({"top_p": 1.1}, "top-p of 1.1"),
        ({"max_length": 0}, "max_length 0"),
        ({"first": jnp.zeros(3, jnp.int32)}, "first axis must be that of first"),
    ],
)
def test_bad_arguments(told, says):
    decode = decoding.beam_search if "beam" in told else partial(decoding.sample, key=jax.random.key(0))
    told = {"first": jnp.zeros(2, jnp.int32), "max_length": 4} | told
    with pytest.raises(UserError, match=says):
        decode(model(table(0)), start(0, 1), **told)
