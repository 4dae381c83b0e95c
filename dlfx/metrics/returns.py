"""Statistics over seeds: the mean, the interquartile mean and bootstrap intervals."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dlfx.types import UserError

Values = np.ndarray | Sequence[Any]
Statistic = Callable[..., Any]  # (values, axis) to the values without that axis, as np.mean and np.median


def mean(x: Values, axis: int = 0) -> np.ndarray:
    """The mean over seeds, `(1 / n) sum_i x_i`.

    Args:
      x: `[n, ...]`, at least one seed.
      axis: the seeds' axis.

    Returns:
      x without that axis, float64.

    Raises:
      UserError: x holds no seed.
    """
    return np.mean(_scores(x, axis), axis)


def interquartile_mean(x: Values, axis: int = 0) -> np.ndarray:
    """The mean of the middle half: less swayed by one lucky seed than the mean, less wasteful than the median.

    `(1 / (n - 2 k)) sum_{k < i <= n - k} x_(i)`, x_(i) the i-th smallest, k = floor(n / 4)

    Up to three seeds it is the mean.

    Args:
      x: `[n, ...]`, at least one seed.
      axis: the seeds' axis.

    Returns:
      x without that axis, float64. A NaN among the values gives NaN, whatever its rank.

    Raises:
      UserError: x holds no seed.

    Source: Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, section 4.3.
    """
    ranked = np.sort(np.moveaxis(_scores(x, axis), axis, 0), 0)
    cut = len(ranked) // 4
    # Sorting puts NaN last, where trimming would drop it unseen.
    return np.where(np.isnan(ranked[-1]), np.nan, ranked[cut : len(ranked) - cut].mean(0))[()]


def bootstrap_interval(
    x: Values,
    statistic: Statistic = interquartile_mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    stratified: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile bootstrap interval of a statistic over seeds.

    With x*_1 ... x*_R drawn from x with replacement and c the confidence: the quantiles (1 - c) / 2 and (1 + c) / 2 of
    `statistic(x*_r)`. Whole seeds are drawn, so the points of a curve stay together. Few seeds make it too narrow.

    Args:
      x: `[seeds, ...]`, such as `[seeds]` of final returns or `[seeds, points]` of learning curves. Stratified:
        `[seeds, tasks, ...]`.
      statistic: (values, axis) to the values without that axis.
      confidence: in (0, 1).
      resamples: R.
      seed: of the draws; the same seed gives the same interval.
      stratified: draw each task's seeds on their own, and take the statistic over all seeds and tasks together.

    Returns:
      (low, high), each of the shape of `statistic(x, axis=0)`; stratified, without the axis of tasks too.

    Raises:
      UserError: no seed, no task though stratified, a confidence outside (0, 1), or no resample.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, section 13.3; over tasks as Agarwal et al.
    2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, section 4.1.
    """
    x = _scores(x, 0)
    if not 0 < confidence < 1:
        raise UserError(f"the confidence is {confidence:g}; it must be between 0 and 1")
    if resamples < 1:
        raise UserError(f"there are {resamples} resamples; at least 1 is needed")
    if stratified and (x.ndim < 2 or not x.shape[1]):
        raise UserError(f"stratified scores are [seeds, tasks, ...], not of shape {list(x.shape)}")
    rng = np.random.default_rng(seed)
    seeds, replicates = len(x), []
    for _ in range(resamples):
        if stratified:
            rows = rng.integers(seeds, size=x.shape[:2])
            drawn = x[rows, np.arange(x.shape[1])].reshape(-1, *x.shape[2:])
        else:
            drawn = x[rng.integers(seeds, size=seeds)]
        replicates.append(statistic(drawn, axis=0))
    low, high = np.quantile(replicates, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def _scores(x: Values, axis: int) -> np.ndarray:
    scores = np.asarray(x, np.float64)
    if not scores.ndim or not scores.shape[axis]:
        raise UserError(f"scores of shape {list(scores.shape)} hold no seed; at least one is needed")
    return scores
