"""A GIF read back holds the frames, and curves over seeds are drawn where they are."""

import re

import numpy as np
import pytest
from PIL import Image, ImageSequence

from dlfx.training import figures
from dlfx.types import UserError


@pytest.fixture
def frames():
    """A square that moves one pixel a frame over white, and changes its colour."""
    frames = np.full((12, 20, 30, 3), 255, np.uint8)
    for t, frame in enumerate(frames):
        frame[5:10, t : t + 5] = (200, 30, 10 * t)
    return frames


def read(path):
    with Image.open(path) as image:
        pictures = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        return pictures, durations, image.info.get("loop")


def test_a_gif_read_back_is_its_frames(tmp_path, frames):
    path = tmp_path / "deeper" / "square.gif"
    figures.animation(path, frames, 20)
    pictures, durations, loop = read(path)
    np.testing.assert_array_equal(pictures, frames)
    assert set(durations) == {50} and loop == 0


def test_one_palette_serves_all_frames(tmp_path, frames):
    figures.animation(tmp_path / "square.gif", frames)
    descriptors = re.findall(rb"\x00\x2c.{8}(.)", (tmp_path / "square.gif").read_bytes(), re.DOTALL)
    assert len(descriptors) == len(frames) and not any(flags[0] & 0x80 for flags in descriptors)


def test_frames_that_repeat_last_longer(tmp_path, frames):
    figures.animation(tmp_path / "still.gif", np.repeat(frames, 3, axis=0), 10)
    assert sum(read(tmp_path / "still.gif")[1]) == 36 * 100


def test_flat_areas_keep_their_colour_among_thousands_of_others(tmp_path):
    rng = np.random.default_rng(0)
    frames = np.full((3, 64, 64, 3), (250, 251, 253), np.uint8)
    frames[:, :16] = rng.integers(0, 256, (3, 16, 64, 3))
    figures.animation(tmp_path / "noise.gif", frames)
    got = np.array(read(tmp_path / "noise.gif")[0])
    np.testing.assert_array_equal(got[:, 16:], frames[:, 16:])
    # 256 colours spread over the cube are within about 40 of any, and noise far from all of them is still near one.
    assert np.abs(got[:, :16].astype(int) - frames[:, :16]).mean() < 30


@pytest.mark.parametrize(("count", "rate", "named"), [(0, 10, "at least one frame"), (2, 0, "0 frames"), (2, 60, "60")])
def test_what_no_gif_can_be_is_named(tmp_path, frames, count, rate, named):
    with pytest.raises(UserError, match=named):
        figures.animation(tmp_path / "none.gif", frames[:count], rate)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """The axes of what is saved."""
    saved = []
    monkeypatch.setattr(figures, "save", lambda figure, path: saved.append(figure.axes[0]))
    return saved


def test_seed_curves_draw_centre_band_mean_and_reference(drawn, tmp_path):
    xs, centre = np.arange(4.0), np.array([0.0, 1.0, np.nan, 3.0])
    bands = {"dqn": (centre, centre - 1, centre + 2), "sarsa": (centre + 5, centre + 4, centre + 6)}
    figures.seed_curves(tmp_path / "x.png", xs, bands, "t", "step", "return", {"dqn": centre + 0.5}, ("optimal", 9))
    (axes,) = drawn
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines[:2]], [centre, centre + 0.5])
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()
    edges = [np.concatenate([path.vertices for path in band.get_paths()]) for band in axes.collections]
    assert [(e[:, 1].min(), e[:, 1].max()) for e in edges] == [(-1, 5), (4, 9)]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["dqn", "sarsa", "optimal"]
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("t", "step", "return")


def test_seed_curves_are_a_picture_even_of_nan(tmp_path):
    nothing = np.full(3, np.nan)
    figures.seed_curves(tmp_path / "a" / "x.png", range(3), {"x": (nothing, nothing, nothing)}, "t", "x", "y")
    with Image.open(tmp_path / "a" / "x.png") as image:
        assert image.size == (704, 440)
