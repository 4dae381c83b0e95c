"""Masks of spectrograms: whole stretches, as wide and as many as asked, each utterance's its own."""

import jax
import numpy as np

from dlfx.data.spectrogram_masks import mask_spectrogram
from tests.compiling import quick


def stretches(hidden):
    """Widths of the runs of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
    return edges[1::2] - edges[::2]


def test_whole_stretches_of_time_and_frequency_are_hidden():
    features = np.random.default_rng(0).normal(1, 0.1, (400, 30, 12)).astype(np.float32)
    lengths = np.where(np.arange(400) % 2, 30, 10)
    masked = quick(lambda key: mask_spectrogram(key, features, lengths, 1, frames=4, bands=3))(jax.random.key(0))
    masked = np.asarray(masked)
    times, bands = (masked == 0).all(2), (masked == 0).all(1)
    np.testing.assert_array_equal(masked, np.where(times[:, :, None] | bands[:, None], 0, features))
    widths = np.array([[sum(stretches(row)) for row in rows] for rows in (times, bands)])
    assert all(len(stretches(row)) <= 1 for row in [*times, *bands])
    long, short = widths[0][1::2], widths[0][::2]
    assert set(long) == {0, 1, 2, 3, 4} and set(short) == {0, 1, 2}  # 0.2 of 10 frames
    assert set(widths[1]) == {0, 1, 2, 3}
    assert not times[::2, 10:].any() and times[1::2, 20:].any()  # only frames that there are
    # U{0 ... W}: every width as often, within 4.5 standard deviations
    assert (abs(np.bincount(long) / 200 - 0.2) < 4.5 * np.sqrt(0.2 * 0.8 / 200)).all()
    assert times[1::2].sum(0).min() > 0 and bands.sum(0).min() > 0  # anywhere, the edges too


def test_no_width_hides_nothing():
    features = np.ones((3, 5, 4), np.float32)
    np.testing.assert_array_equal(mask_spectrogram(jax.random.key(1), features, np.full(3, 5), 2, 0, 0), features)
