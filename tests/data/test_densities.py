"""Mixtures in the plane: where their modes are, and batches that depend on (seed, i) alone."""

import numpy as np
import pytest
from scipy import stats

from dlfx.data import densities
from dlfx.types import UserError


def test_the_ring_is_eight_modes_on_a_circle():
    ring = densities.make("ring")
    assert ring.centers.shape == (8, 2) and ring.std == 0.02
    np.testing.assert_allclose(np.hypot(*ring.centers.T), 2, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(ring.centers[1] - ring.centers[0]), 4 * np.sin(np.pi / 8), rtol=1e-6)
    np.testing.assert_allclose(ring.centers[0], [2, 0], atol=1e-6)


def test_the_grid_is_five_by_five():
    grid = densities.make("grid25")
    assert grid.std == 0.05 and {tuple(c) for c in grid.centers.tolist()} == {
        (x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    }


@pytest.mark.parametrize("name", densities.DENSITIES)
def test_points_are_equal_gaussians_around_the_modes(name):
    mixture = densities.make(name)
    points = np.concatenate([densities.stream(mixture, 2000).host(3, i) for i in range(10)])
    assert points.dtype == np.float32
    away = np.linalg.norm(points[:, None] - mixture.centers, axis=-1)
    counts = np.bincount(away.argmin(1), minlength=len(mixture.centers))
    assert stats.chisquare(counts).pvalue > 1e-3
    noise = (points - mixture.centers[away.argmin(1)]) / mixture.std
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03


def test_a_batch_is_a_function_of_seed_and_number_and_processes_share_it():
    stream = densities.stream(densities.ring(), 12)
    first = stream.host(0, 5)
    np.testing.assert_array_equal(first, stream.host(0, 5))
    assert (first != stream.host(0, 6)).any() and (first != stream.host(1, 5)).any()
    parts = [densities.stream(densities.ring(), 12, process, 3).host(0, 5) for process in range(3)]
    np.testing.assert_array_equal(np.concatenate(parts), first)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="unknown density 'rign'; did you mean ring"):
        densities.make("rign")
    with pytest.raises(UserError, match="10 cannot be shared evenly by 3"):
        densities.stream(densities.ring(), 10, 0, 3)
