"""Pictures show a state where it is: measured in the pixels, against the geometry of the task."""

import numpy as np
import pytest

from dlfx.envs.rendering import CELL, PALETTE, acrobot, cartpole, minatar, mountain_car


def rgb(color):
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def where(picture, color, within=30):
    """(row, column) of all pixels of about that colour."""
    return np.argwhere((np.abs(picture.astype(int) - rgb(color)) <= within).all(-1))


INK, BLUE, RED, YELLOW, FAINT = "#333333", "#4477aa", "#ee6677", "#ccbb44", "#b8b8b8"


@pytest.mark.parametrize("picture", [cartpole(np.zeros(4)), mountain_car(np.zeros(2)), acrobot(np.zeros(4))])
def test_a_picture_is_rgb_and_smooth_at_its_edges(picture):
    assert picture.shape == (200, 300, 3) and picture.dtype == np.uint8
    colors, pixels = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert tuple(colors[pixels.argmax()]) == (255, 255, 255) and len(colors) > 15


@pytest.mark.parametrize("x", [-2.4, -1.0, 0.0, 2.0])
def test_the_cart_is_at_its_place_on_the_track(x):
    track, cart = where(cartpole([9, 0, 0, 0]), FAINT)[:, 1], where(cartpole([x, 0, 0.1, 0]), INK)[:, 1]
    middle, scale = (track.min() + track.max()) / 2, (track.max() - track.min()) / 4.8
    assert abs((cart.min() + cart.max()) / 2 - (middle + x * scale)) < 1.5


@pytest.mark.parametrize(("angle", "down", "right"), [(0, -1, 0), (np.pi / 2, 0, 1), (-np.pi / 2, 0, -1)])
def test_the_pole_points_where_its_angle_says(angle, down, right):
    picture = cartpole([0, 0, angle, 0])
    pole, pivot = where(picture, RED), where(picture, BLUE, 20).mean(0)
    spread = pole.max(0) - pole.min(0)
    assert spread[0 if down else 1] > 45 and spread[1 if down else 0] < 12
    np.testing.assert_allclose(np.sign((pole.mean(0) - pivot).round(-1)), [down, right])


def test_the_angle_of_the_pole_is_the_slope_of_its_pixels():
    pole = where(cartpole([0, 0, 0.3, 0]), RED)
    row, column = (pole - pole.mean(0)).T
    axis = np.linalg.eigh(np.cov(np.stack([column, -row])))[1][:, -1]
    assert np.arctan(axis[0] / axis[1]) == pytest.approx(0.3, abs=0.02)


def test_the_car_follows_the_hill_up_to_the_flag():
    cars = {x: where(mountain_car([x, 0]), BLUE, 20).mean(0) for x in (-1.1, -np.pi / 6, 0.0, 0.5)}
    rows = [cars[x][0] for x in (-np.pi / 6, 0.0, 0.5)]
    assert rows == sorted(rows, reverse=True) and cars[-1.1][0] < cars[-np.pi / 6][0]
    flag = where(mountain_car([-1, 0]), YELLOW)
    assert abs(cars[0.5][1] - flag[:, 1].min()) < 2 and flag[:, 0].max() < cars[0.5][0]
    scale = 300 / 1.9  # the middle of the car is lifted by what its wheels and roof are high
    assert cars[0.0][0] - cars[0.5][0] == pytest.approx(0.45 * np.sin(1.5) * scale, abs=6)


def test_the_links_of_the_acrobot_hang_stretch_and_fold():
    hanging, level = acrobot(np.zeros(4)), acrobot([np.pi / 2, 0, 0, 0])
    first, second = (where(hanging, color) for color in (BLUE, RED))
    assert np.ptp(first[:, 1]) < 10 and second[:, 0].mean() > first[:, 0].mean() + 30
    first, second = (where(level, color) for color in (BLUE, RED))
    assert np.ptp(first[:, 0]) < 10 and second[:, 1].mean() > first[:, 1].mean() + 30
    folded = acrobot([np.pi / 2, np.pi, 0, 0])  # the second link lies on the first
    np.testing.assert_allclose(where(folded, RED).mean(0), first.mean(0), atol=5)


def test_the_acrobot_ends_its_task_where_its_tip_passes_the_line():
    """The tip is at -cos(a) - cos(a + b), and the task ends above 1."""
    for first, second in ((2.0, 0.2), (2.2, 0.6), (3.0, -1.4), (1.6, 1.2)):
        picture = acrobot([first, second, 0, 0])
        line, tip = where(picture, FAINT)[:, 0].mean(), where(picture, RED)[:, 0].min() + 4
        assert (line - tip) / (300 / 6.6) == pytest.approx(-np.cos(first) - np.cos(first + second) - 1, abs=0.06)


@pytest.mark.parametrize("dtype", [bool, np.float32, np.uint8])
def test_a_cell_has_the_colour_of_its_channel(dtype):
    grid = np.random.default_rng(0).permuted(np.arange(100) % 5).reshape(10, 10)  # 4: nothing
    picture = minatar(np.eye(5)[grid][..., :4].astype(dtype))
    assert picture.shape == (10 * CELL, 10 * CELL, 3) and picture.dtype == np.uint8
    middles = picture[CELL // 2 :: CELL, CELL // 2 :: CELL]
    for channel in range(4):
        assert (middles[grid == channel] == rgb(PALETTE[channel])).all()
    assert (middles[grid == 4] < 60).all()


def test_channels_in_one_cell_are_all_seen():
    observation = np.zeros((10, 10, 6))
    observation[3, 7, [1, 4, 5]] = 1
    cell = minatar(observation)[3 * CELL : 4 * CELL, 7 * CELL : 8 * CELL].reshape(-1, 3)
    assert {1, 4, 5} == {k for k, color in enumerate(PALETTE) if (cell == rgb(color)).all(-1).any()}


def test_colours_are_told_apart():
    colors = np.array([rgb(color) for color in (*PALETTE, "#26262e")]).astype(float)
    distances = np.linalg.norm(colors[:, None] - colors, axis=-1) + 1e9 * np.eye(len(colors))
    assert distances.min() > 60


def test_a_legend_names_the_channels_below_the_grid():
    observation = np.zeros((10, 10, 3), bool)
    picture = minatar(observation, ("ball", "paddle", "brick"))
    assert picture.shape == (10 * CELL + 32, 10 * CELL, 3)
    below = picture[10 * CELL :]
    for color in PALETTE[:3]:
        assert (below == rgb(color)).all(-1).sum() == 100
    other = minatar(observation, ("ball", "paddle", "stone"))
    assert (other[: 10 * CELL + 16] == picture[: 10 * CELL + 16]).all() and (other != picture).any()
