"""N-gram models against the formulas written out with tuples and sets."""

import itertools
from collections import Counter

import numpy as np
import pytest

from dlfx.models.sequence.ngram import fit_add_k, fit_kneser_ney, log_probs, perplexity, probabilities, sample
from dlfx.types import UserError

BEFORE = "before"


def markov(length: int, vocabulary: int = 6, seed: int = 0) -> np.ndarray:
    """Text in which some tokens follow others often, and some never. The vocabulary's last does not occur."""
    random = np.random.default_rng(seed)
    chain = random.dirichlet(np.full(vocabulary - 1, 0.3), vocabulary - 1)
    tokens = [0]
    while len(tokens) < length:
        tokens.append(int(random.choice(vocabulary - 1, p=chain[tokens[-1]])))
    return np.array(tokens)


def occurrences(sequences: list[list[int]], order: int) -> Counter:
    """How often each n-gram of that order ends at a token."""
    counts: Counter = Counter()
    for tokens in sequences:
        padded = (BEFORE,) * (order - 1) + tuple(tokens)
        counts.update(padded[t : t + order] for t in range(len(tokens)))
    return counts


def slow_kneser_ney(
    sequences: list[list[int]], order: int, vocabulary: int, context: tuple, discount=None
) -> list[float]:
    """The distribution after a context of order - 1 tokens."""

    def counts_of(m: int) -> Counter:
        if m == order:
            return occurrences(sequences, m)
        return Counter(gram[1:] for gram in occurrences(sequences, m + 1))  # its keys are different grams

    def p(w: int, h: tuple) -> float:
        m = len(h) + 1
        lower = p(w, h[1:]) if h else 1 / vocabulary
        counts = counts_of(m)
        after = {gram[-1]: n for gram, n in counts.items() if gram[:-1] == h}
        if not after:
            return lower
        ones, twos = (sum(n == i for n in counts.values()) for i in (1, 2))
        d = discount if discount is not None else ones / (ones + 2 * twos) if ones else 0.75
        return (max(after.get(w, 0) - d, 0) + d * len(after) * lower) / sum(after.values())

    return [p(w, context) for w in range(vocabulary)]


def all_contexts(order: int, vocabulary: int) -> np.ndarray:
    every = list(itertools.product(range(vocabulary), repeat=order - 1))
    return np.array(every, np.int64).reshape(len(every), order - 1)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("discount", [None, 0.4])
def test_kneser_ney_against_its_formulas(order, discount):
    rows = [markov(30, seed=1).tolist(), markov(17, seed=2).tolist(), markov(2, seed=3).tolist()]
    padded = np.array([row + [-7] * (30 - len(row)) for row in rows])
    model = fit_kneser_ney(padded, order, 6, discount, lengths=np.array([30, 17, 2]))
    contexts = all_contexts(order, 6)
    expected = [slow_kneser_ney(rows, order, 6, tuple(context), discount) for context in contexts.tolist()]
    np.testing.assert_allclose(probabilities(model, contexts), expected, rtol=1e-12)
    beginning = slow_kneser_ney(rows, order, 6, (BEFORE,) * (order - 1), discount)
    np.testing.assert_allclose(probabilities(model, np.zeros((1, 0), int)), [beginning], rtol=1e-12)


def test_the_famous_word_of_one_context():
    """`Francisco` is frequent, but only after `San`: alone, Kneser-Ney holds it to be rarer than `glasses`."""
    san, francisco, glasses = 0, 1, 2
    text = np.array([san, francisco] * 20 + [3, glasses, 4, glasses, 5, glasses, 6, glasses])
    p = probabilities(fit_kneser_ney(text, 2, 8), np.array([[7]]))[0]  # 7 was never seen
    assert (text == francisco).sum() > 4 * (text == glasses).sum() and p[francisco] < p[glasses] / 2


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one_after_every_context(order):
    text = markov(300)
    contexts = all_contexts(min(order, 4), 6)
    contexts = np.concatenate([np.full((len(contexts), order - 1 - contexts.shape[1]), 1), contexts], 1)
    for fit in (fit_add_k, fit_kneser_ney, lambda *told: fit_kneser_ney(*told, discount=1.0)):
        for seen in (text, text[:1], np.repeat(text, 2)):
            p = probabilities(fit(seen, order, 6), contexts)
            assert p.min() > 0
            np.testing.assert_allclose(p.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_add_k_against_counting(order):
    text, k = markov(80), 0.3
    counts = occurrences([text.tolist()], order)
    p = probabilities(fit_add_k(text, order, 6, k), all_contexts(order, 6))
    for context, row in zip(all_contexts(order, 6).tolist(), p, strict=True):
        after = np.array([counts[(*context, w)] for w in range(6)])
        np.testing.assert_allclose(row, (after + k) / (after.sum() + 6 * k), rtol=1e-12)


@pytest.mark.parametrize("fit", [fit_add_k, fit_kneser_ney])
def test_log_probs_and_perplexity_are_those_of_the_distributions(fit):
    model, text = fit(markov(200), 3, 6), np.array([[5, 0, 1, 5, 5, 2, 3], markov(7, seed=9).tolist()])
    expected = np.array(
        [[np.log(probabilities(model, row[None, :t])[0, row[t]]) for t in range(len(row))] for row in text]
    )
    np.testing.assert_allclose(log_probs(model, text), expected, rtol=1e-10)
    np.testing.assert_allclose(log_probs(model, text[0]), expected[0], rtol=1e-10)
    some = np.exp(-np.concatenate([expected[0, :4], expected[1]]).mean())
    np.testing.assert_allclose(perplexity(model, text, np.array([4, 7])), some, rtol=1e-10)


def test_longer_contexts_and_better_smoothing_lower_the_perplexity():
    """Of unseen text from a chain of order 1, whose entropy rate no model can beat."""
    train, test = markov(3000), markov(13_000)[3000:]
    of = {n: perplexity(fit_kneser_ney(train, n, 6), test) for n in (1, 2, 4)}
    known = perplexity(fit_add_k(markov(100_000), 2, 6, 1e-3), test)
    assert known * 0.998 < of[2] < known * 1.02 < of[1] * 0.8
    assert of[4] < perplexity(fit_add_k(train, 4, 6), test)


def test_samples_follow_the_model():
    model = fit_kneser_ney(markov(400), 3, 6)
    drawn = sample(model, np.random.default_rng(0), 2, 40_000, prompt=np.array([1, 0, 3]))
    first = probabilities(model, np.array([[0, 3]]))[0]
    expected = first[:, None] * probabilities(model, np.stack([np.full(6, 3), np.arange(6)], 1))
    counts = np.zeros((6, 6))
    np.add.at(counts, tuple(drawn.T), 1)
    assert np.all(np.abs(counts - 40_000 * expected) <= 4.5 * np.sqrt(40_000 * expected * (1 - expected)) + 1e-9)
    assert sample(model, np.random.default_rng(0), 4).shape == (1, 4)


def test_large_vocabularies_do_not_overflow():
    """50,000^5 is beyond int64; a text that repeats is certain all the same."""
    text = np.tile(np.array([49_999, 0, 31_337, 49_998, 7, 49_999, 12]), 200)
    logs = log_probs(fit_kneser_ney(text, 5, 50_000), text)
    assert np.exp(logs[14:]).min() > 0.98


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: fit_add_k(np.arange(3), 0, 3), "order 0"),
        (lambda: fit_add_k(np.arange(3), 2, 3, k=0.0), "k = 0"),
        (lambda: fit_kneser_ney(np.arange(4), 2, 3), "token 3; a vocabulary of 3"),
        (lambda: fit_kneser_ney(np.array([0, -1]), 2, 3), "token -1"),
        (lambda: fit_kneser_ney(np.arange(3), 2, 3, discount=1.5), "discount 1.5"),
        (lambda: fit_kneser_ney(np.zeros(0, int), 2, 3), "no tokens"),
        (lambda: perplexity(fit_add_k(np.arange(3), 2, 3), np.zeros(0, int)), "no tokens"),
        (lambda: probabilities(fit_add_k(np.arange(3), 2, 3), np.array([[3]])), "token 3"),
    ],
)
def test_bad_arguments(call, says):
    with pytest.raises(UserError, match=says):
        call()
