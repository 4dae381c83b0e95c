"""Statistics over seeds agree with scipy, with enumeration of tiny cases, and with what an interval promises."""

import itertools

import numpy as np
import pytest
from scipy import stats

from dlfx.metrics.returns import bootstrap_interval, interquartile_mean, mean
from dlfx.types import UserError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 8, 11, 40])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_the_interquartile_mean_is_the_trimmed_mean(seeds, axis):
    x = np.moveaxis(RNG.standard_cauchy((seeds, 3, 2)), 0, axis)
    np.testing.assert_allclose(interquartile_mean(x, axis), stats.trim_mean(x, 0.25, axis=axis), rtol=1e-12)
    np.testing.assert_allclose(mean(x, axis), x.mean(axis))


def test_the_interquartile_mean_is_not_moved_by_an_outlier_but_shows_a_nan():
    assert interquartile_mean([1, 2, 3, 1e9]) == 2.5
    got = interquartile_mean(np.array([[1, 1], [2, 2], [3, 3], [np.nan, 4]]))
    np.testing.assert_array_equal(got, [np.nan, 2.5])


@pytest.mark.parametrize("statistic", [mean, interquartile_mean, np.median])
def test_the_interval_is_that_of_scipy(statistic):
    x = RNG.gamma(2, 1, 30)
    low, high = bootstrap_interval(x, statistic, confidence=0.9, resamples=4000)
    theirs = stats.bootstrap(
        (x,), statistic, confidence_level=0.9, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(low - theirs.low) < 0.06 * width and abs(high - theirs.high) < 0.06 * width


def test_the_interval_is_that_of_all_resamples():
    x = np.array([0.0, 1.0, 3.0, 10.0])
    every = [np.mean(draw) for draw in itertools.product(x, repeat=4)]
    low, high = bootstrap_interval(x, mean, confidence=0.75, resamples=20_000)
    np.testing.assert_allclose([low, high], np.quantile(every, [0.125, 0.875]), atol=0.26)  # one atom is 0.25 wide


def test_the_stratified_interval_is_that_of_all_resamples_of_each_task():
    x = np.array([[0.0, 100.0], [1.0, 110.0], [5.0, 170.0]])
    draws = list(itertools.product(range(3), repeat=3))
    every = [(x[list(a), 0].sum() + x[list(b), 1].sum()) / 6 for a, b in itertools.product(draws, draws)]
    low, high = bootstrap_interval(x, mean, confidence=0.8, resamples=20_000, stratified=True)
    np.testing.assert_allclose([low, high], np.quantile(every, [0.1, 0.9]), atol=0.4)
    # Pooled instead of stratified, tasks so far apart would make the interval several times wider.
    pooled = np.subtract(*bootstrap_interval(x.ravel(), mean, confidence=0.8)[::-1])
    assert pooled > 2 * (high - low)


def test_a_curve_gets_the_interval_of_every_point_by_the_same_draws():
    x = RNG.normal(size=(9, 4))
    low, high = bootstrap_interval(x, resamples=300)
    assert low.shape == high.shape == (4,)
    for point in range(4):
        np.testing.assert_allclose([low[point], high[point]], bootstrap_interval(x[:, point], resamples=300))
    stacked = bootstrap_interval(np.stack([x, x + 1], 1), stratified=True, resamples=300)
    assert stacked[0].shape == (4,) and (stacked[0] < stacked[1]).all()


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    x = RNG.normal(size=12)
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x, seed=3) != bootstrap_interval(x, seed=4)


@pytest.mark.parametrize("confidence", [0.6, 0.95])
def test_the_interval_covers_the_truth_as_often_as_it_says(confidence):
    trials, inside = 250, 0
    for trial in range(trials):
        low, high = bootstrap_interval(RNG.normal(7, 2, 40), mean, confidence, resamples=250, seed=trial)
        inside += low <= 7 <= high
    deviation = np.sqrt(confidence * (1 - confidence) / trials)
    # Of 40 seeds the percentile interval is a little too narrow: by a factor of about sqrt(39 / 40).
    assert abs(inside / trials - confidence) < 4 * deviation


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: interquartile_mean([]), "no seed"),
        (lambda: bootstrap_interval([]), "no seed"),
        (lambda: bootstrap_interval([1.0], confidence=95), "confidence is 95"),
        (lambda: bootstrap_interval([1.0], resamples=0), "0 resamples"),
        (lambda: bootstrap_interval([1.0], stratified=True), r"\[seeds, tasks, ...\]"),
    ],
)
def test_what_is_wrong_is_named(call, named):
    with pytest.raises(UserError, match=named):
        call()
