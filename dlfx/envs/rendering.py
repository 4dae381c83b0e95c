"""Pictures of classic control and of MinAtar."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT, FINER = 300, 200, 3  # drawn FINER times as large, then averaged: smooth edges
PAPER, INK, FAINT = "#ffffff", "#333333", "#b8b8b8"
BLUE, RED, YELLOW = "#4477aa", "#ee6677", "#ccbb44"
CELL = 24
NIGHT, GRID = "#16161c", "#26262e"
# Far apart from each other and from the night: no two channels of a game look alike.
PALETTE = ("#ffffff", "#ee4455", "#8888aa", "#ffcc33", "#44bb66", "#44aaff", "#cc77ee", "#22dddd", "#ff8833", "#aa6633")

Point = tuple[float, float]


def cartpole(state: Sequence[Any]) -> np.ndarray:
    """The cart on its track of 4.8, and the pole.

    Args:
      state: position, velocity, angle of the pole from upright in radians, clockwise, and its velocity.

    Returns:
      `[200, 300, 3]` uint8.
    """
    draw, at, picture = _canvas((0.0, 0.75), 5.6)
    x, angle = float(state[0]), float(state[2])
    draw.line([at((-2.4, 0)), at((2.4, 0))], FAINT, 2 * FINER)
    for end in (-2.4, 2.4):
        draw.line([at((end, -0.08)), at((end, 0.08))], FAINT, 2 * FINER)
    draw.rectangle([at((x - 0.35, 0.32)), at((x + 0.35, 0))], INK)
    pivot = (x, 0.32)
    _rod(draw, at, pivot, (x + 1.0 * math.sin(angle), 0.32 + 1.0 * math.cos(angle)), RED, 9)
    _disc(draw, at, pivot, BLUE, 4)
    return picture()


def mountain_car(state: Sequence[Any]) -> np.ndarray:
    """The car in its valley `height = sin(3 x)`, with a flag at the goal x = 0.5.

    Args:
      state: position and velocity.

    Returns:
      `[200, 300, 3]` uint8.
    """
    draw, at, picture = _canvas((-0.3, 0.12), 1.9)
    x = float(state[0])
    hill = [(p, 0.45 * math.sin(3 * p)) for p in np.linspace(-1.2, 0.6, 121)]
    draw.line([at(p) for p in hill], INK, 2 * FINER, joint="curve")
    goal = (0.5, 0.45 * math.sin(1.5))
    draw.line([at(goal), at((goal[0], goal[1] + 0.22))], INK, FINER)
    draw.polygon([at((0.5, goal[1] + dy)) for dy in (0.22, 0.12)] + [at((0.6, goal[1] + 0.17))], YELLOW)
    slope = math.atan(1.35 * math.cos(3 * x))
    along, up = np.array([math.cos(slope), math.sin(slope)]), np.array([-math.sin(slope), math.cos(slope)])
    ground = np.array([x, 0.45 * math.sin(3 * x)])
    corners = [(-0.075, 0.03), (0.075, 0.03), (0.075, 0.075), (0.04, 0.11), (-0.04, 0.11), (-0.075, 0.075)]
    draw.polygon([at(tuple(ground + a * along + b * up)) for a, b in corners], BLUE)
    for wheel in (-0.045, 0.045):
        _disc(draw, at, tuple(ground + wheel * along + 0.028 * up), INK, 4)
    return picture()


def acrobot(state: Sequence[Any]) -> np.ndarray:
    """The two links of length 1, and the height that the tip has to reach.

    Args:
      state: the angle of the first link from hanging down, that of the second from the first, in radians,
        counterclockwise, and their velocities.

    Returns:
      `[200, 300, 3]` uint8.
    """
    draw, at, picture = _canvas((0.0, 0.0), 6.6)
    first, second = float(state[0]), float(state[0]) + float(state[1])
    draw.line([at((-3.1, 1)), at((3.1, 1))], FAINT, 2 * FINER)
    elbow = (math.sin(first), -math.cos(first))
    tip = (elbow[0] + math.sin(second), elbow[1] - math.cos(second))
    _rod(draw, at, (0, 0), elbow, BLUE, 8)
    _rod(draw, at, elbow, tip, RED, 8)
    for joint in ((0.0, 0.0), elbow):
        _disc(draw, at, joint, INK, 4)
    return picture()


def minatar(observation: Any, names: Sequence[str] = ()) -> np.ndarray:
    """The grid of a MinAtar game, one colour a channel; where several are set, the first three within each other.

    Args:
      observation: `[10, 10, C]`, nonzero where a channel is set.
      names: of the channels, for a legend below.

    Returns:
      `[240, 240, 3]` uint8, and 16 rows more for every two names.
    """
    from PIL import Image, ImageDraw, ImageFont

    grid = np.asarray(observation) != 0
    rows, columns, channels = grid.shape
    below = (len(names) + 1) // 2 * 16
    picture = Image.new("RGB", (columns * CELL, rows * CELL + below), NIGHT)
    draw = ImageDraw.Draw(picture)
    for row, column in np.ndindex(rows, columns):
        colors = [PALETTE[channel % len(PALETTE)] for channel in np.flatnonzero(grid[row, column])]
        for edge, color in zip((1, 6, 10), colors or [GRID], strict=False):
            corners = [
                column * CELL + edge,
                row * CELL + edge,
                (column + 1) * CELL - 1 - edge,
                (row + 1) * CELL - 1 - edge,
            ]
            draw.rectangle(corners, color)
    font = ImageFont.load_default(11)
    for i, name in enumerate(names):
        left, top = i % 2 * columns * CELL // 2, rows * CELL + i // 2 * 16
        draw.rectangle([left + 4, top + 3, left + 13, top + 12], PALETTE[i % len(PALETTE)])
        draw.text((left + 19, top + 1), name, "#dddddd", font)
    return np.asarray(picture)


def _canvas(centre: Point, width: float) -> tuple[Any, Callable[[Point], Point], Callable[[], np.ndarray]]:
    """What to draw on, where a point of the task lies on it, and the finished picture."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), PAPER)
    scale = WIDTH * FINER / width

    def at(point: Point) -> Point:
        x = WIDTH * FINER / 2 + scale * (point[0] - centre[0])
        return x, HEIGHT * FINER / 2 - scale * (point[1] - centre[1])

    return ImageDraw.Draw(image), at, lambda: np.asarray(image.reduce(FINER))


def _rod(draw: Any, at: Callable[[Point], Point], start: Point, end: Point, color: str, width: int) -> None:
    draw.line([at(start), at(end)], color, width * FINER)
    for tip in (start, end):
        _disc(draw, at, tip, color, width / 2)


def _disc(draw: Any, at: Callable[[Point], Point], centre: Point, color: str, radius: float) -> None:
    draw.circle(at(centre), radius * FINER, color)
