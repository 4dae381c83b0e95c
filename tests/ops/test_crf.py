"""The linear chain against sums and maxima over all sequences."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.ops.crf import Transitions, log_partition, marginals, negative_log_likelihood, sequence_score, viterbi
from tests.compiling import quick

SIZE, CLASSES = 4, 3
LENGTHS = np.array([4, 4, 2, 1, 0], np.int32)


def problem(seed: int = 0) -> tuple[np.ndarray, Transitions]:
    """Padded with what must not matter."""
    rng = np.random.default_rng(seed)
    emissions = 2 * rng.normal(size=(len(LENGTHS), SIZE, CLASSES))
    for row, length in enumerate(LENGTHS):
        emissions[row, length:] = [np.nan, np.inf, -1e9]
    shapes = ((CLASSES, CLASSES), (CLASSES,), (CLASSES,))
    return emissions, Transitions(*(2 * rng.normal(size=shape) for shape in shapes))


def every_score(emissions: np.ndarray, transitions: Transitions) -> dict[tuple[int, ...], float]:
    """The scores of all sequences, as the sum is written."""
    scores = {}
    for tags in itertools.product(range(CLASSES), repeat=len(emissions)):
        score = sum(emissions[t, tag] for t, tag in enumerate(tags))
        score += sum(transitions.between[a, b] for a, b in itertools.pairwise(tags))
        scores[tags] = float(score + transitions.start[tags[0]] + transitions.end[tags[-1]]) if tags else 0.0
    return scores


def test_everything_equals_the_enumeration() -> None:
    emissions, transitions = problem()
    tags = np.random.default_rng(1).integers(0, CLASSES, (len(LENGTHS), SIZE)).astype(np.int32)
    padded = np.where(np.arange(SIZE) < LENGTHS[:, None], tags, -100)
    with jax.enable_x64(True):
        partition = quick(log_partition)(emissions, transitions, LENGTHS)
        score = quick(sequence_score)(emissions, padded, transitions, LENGTHS)
        loss = quick(negative_log_likelihood)(emissions, padded, transitions, LENGTHS)
        shares = quick(marginals)(emissions, transitions, LENGTHS)
        best, value = quick(viterbi)(emissions, transitions, LENGTHS)
    assert partition.dtype == shares.dtype == jnp.float64 and best.dtype == jnp.int32
    for row, length in enumerate(LENGTHS):
        scores = every_score(emissions[row, :length], transitions)
        z = sum(np.exp(s) for s in scores.values())
        expected = np.zeros((SIZE, CLASSES))
        for sequence, s in scores.items():
            expected[np.arange(length), list(sequence)] += np.exp(s) / z
        given = scores[tuple(tags[row, :length].tolist())]
        top = max(scores, key=lambda sequence: scores[sequence])
        np.testing.assert_allclose(partition[row], np.log(z), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(score[row], given, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(loss[row], np.log(z) - given, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(shares[row], expected, atol=1e-12)
        assert best[row].tolist() == [*top] + [0] * (SIZE - length)
        np.testing.assert_allclose(value[row], scores[top], rtol=1e-10)


def test_marginals_are_the_gradient_of_the_partition() -> None:
    emissions, transitions = problem(1)
    with jax.enable_x64(True):
        total = quick(jax.grad(lambda e, t: log_partition(e, t, LENGTHS).sum(), (0, 1)))
        by_emission, by_transition = jax.device_get(total(emissions, transitions))
        shares = np.asarray(quick(marginals)(emissions, transitions, LENGTHS))
    np.testing.assert_allclose(by_emission, shares, atol=1e-12)
    first, last = shares[LENGTHS > 0, 0], shares[np.arange(5), np.maximum(LENGTHS - 1, 0)][LENGTHS > 0]
    np.testing.assert_allclose(by_transition.start, first.sum(0), rtol=1e-10)
    np.testing.assert_allclose(by_transition.end, last.sum(0), rtol=1e-10)
    np.testing.assert_allclose(by_transition.between.sum(), np.maximum(LENGTHS - 1, 0).sum(), rtol=1e-10)


def test_without_transitions_it_is_a_softmax_at_every_position() -> None:
    emissions, _ = problem()
    flat = Transitions(np.zeros((CLASSES, CLASSES)), np.zeros(CLASSES), np.zeros(CLASSES))
    with jax.enable_x64(True):
        np.testing.assert_allclose(quick(marginals)(emissions, flat)[:2], jax.nn.softmax(emissions[:2]), atol=1e-12)
        best, _ = quick(viterbi)(emissions, flat)
    np.testing.assert_array_equal(best[:2], emissions[:2].argmax(-1))


def test_what_is_forbidden_has_no_share_and_no_gradient_of_nan() -> None:
    """Tags outside, begin, inside: no inside at the start or after an outside."""
    emissions = np.random.default_rng(2).normal(size=(2, SIZE, CLASSES)).astype(np.float32)
    emissions[:, 1, 2] += 20  # wants to be inside
    emissions[:, 0, 0] += 5
    transitions = Transitions(np.zeros((3, 3), np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32))
    transitions.between[0, 2] = transitions.start[2] = -np.inf
    tags = np.array([[0, 1, 2, 0], [1, 2, 2, 0]], np.int32)
    best, _ = quick(viterbi)(emissions, transitions)
    assert best[:, :2].tolist() == [[1, 2], [1, 2]]  # the begin that makes it possible
    scores = {s: v for s, v in every_score(emissions[0], transitions).items() if v > -np.inf}
    np.testing.assert_allclose(
        quick(log_partition)(emissions, transitions)[0], np.log(np.exp([*scores.values()]).sum()), rtol=1e-6
    )
    shares = quick(marginals)(emissions, transitions)
    assert (shares[:, 0, 2] == 0).all() and np.isfinite(shares).all()
    loss = quick(jax.value_and_grad(lambda e, t: negative_log_likelihood(e, tags, t).sum(), (0, 1)))
    value, slopes = loss(emissions, transitions)
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    assert slopes[1].between[0, 2] == slopes[1].start[2] == 0


def test_a_population_in_a_scan_gives_what_each_gives_alone() -> None:
    emissions, transitions = jax.tree.map(np.float32, problem())
    emissions = np.nan_to_num(emissions, posinf=0)
    many = jax.tree.map(lambda x: np.stack([x, -x]), transitions)
    value = jax.value_and_grad(
        lambda t: negative_log_likelihood(emissions, np.ones((5, 4), np.int32), t, LENGTHS).mean()
    )

    @quick
    def run(many: Transitions) -> Any:
        return jax.lax.scan(lambda carry, _: (carry, jax.vmap(value)(carry)), many, None, length=2)[1]

    losses, slopes = run(many)
    for i in (0, 1):
        alone, slope = quick(value)(jax.tree.map(lambda x, i=i: x[i], many))
        np.testing.assert_allclose(losses[:, i], alone, rtol=1e-6)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[1, i], b, atol=1e-5), slopes, slope)
    assert (
        sequence_score(jnp.asarray(emissions, jnp.bfloat16), np.ones((5, 4), np.int32), transitions).dtype
        == jnp.float32
    )
