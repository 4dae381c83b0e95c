"""Pictures of tabular worlds: `[H, W, 3]` uint8, 200 to 400 pixels along the longer side."""

import numpy as np

from dlfx.envs.blackjack import ENDS, HANDS
from dlfx.envs.toy_text import FENCES, STANDS

Color = tuple[int, int, int]
WHITE, BLACK, LINE = (255, 255, 255), (40, 40, 40), (205, 205, 205)
AGENT, GOAL, BAD, WALL, START = (46, 98, 204), (96, 178, 104), (214, 96, 80), (110, 110, 116), (240, 224, 176)
KINDS = {"G": GOAL, "C": BAD, "H": (120, 172, 214), "#": WALL, "S": START, "A": GOAL, "B": GOAL, "a": START, "b": START}
STAND_COLORS = ((206, 60, 60), (60, 160, 80), (222, 190, 50), (60, 90, 200))  # red, green, yellow, blue
LONGEST = 384


def rectangle(picture: np.ndarray, top: float, left: float, height: float, width: float, color: Color) -> None:
    """Fills a rectangle of the picture, in place."""
    picture[round(top) : round(top + height), round(left) : round(left + width)] = color


def disc(picture: np.ndarray, down: float, right: float, radius: float, color: Color) -> None:
    """Fills a disc around (down, right), in place."""
    rows, columns = np.ogrid[: picture.shape[0], : picture.shape[1]]
    picture[(rows + 0.5 - down) ** 2 + (columns + 0.5 - right) ** 2 <= radius**2] = color


def text(picture: np.ndarray, lines: dict[tuple[int, int], str], size: int = 20) -> np.ndarray:
    """The picture with lines of text, each at its (top, left)."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    drawing, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    for (top, left), line in lines.items():
        drawing.text((left, top), line, fill=BLACK, font=font)
    return np.array(image)


def blank(height: int, width: int) -> np.ndarray:
    """A white picture."""
    return np.full((height, width, 3), WHITE, np.uint8)


def cells(colors: np.ndarray) -> tuple[np.ndarray, int]:
    """A picture of a grid `[rows, columns, 3]` of colors with lines between its cells, and the size of a cell."""
    size = max(8, LONGEST // max(colors.shape[:2]))
    picture = colors.repeat(size, 0).repeat(size, 1).astype(np.uint8)
    picture[::size], picture[:, ::size] = LINE, LINE
    picture[-1], picture[:, -1] = LINE, LINE
    return picture, size


def grid(layout: np.ndarray, state: int) -> np.ndarray:
    """A gridworld of characters `[rows, columns]` with the agent in a cell, counted along the rows."""
    picture, size = cells(np.array([[KINDS.get(kind, WHITE) for kind in row] for row in layout]))
    row, column = divmod(int(state), layout.shape[1])
    disc(picture, (row + 0.5) * size, (column + 0.5) * size, size * 0.32, AGENT)
    return picture


def strip(terminal: np.ndarray, state: int) -> np.ndarray:
    """Any process: its states as a block of cells along the rows, terminal ones marked, with the agent in one."""
    columns = len(terminal) if len(terminal) <= 24 else int(np.ceil(len(terminal) ** 0.5))
    kinds = np.full(-(-len(terminal) // columns) * columns, "#")
    kinds[: len(terminal)] = np.where(terminal, "G", ".")
    return grid(kinds.reshape(-1, columns), state)


def taxi(state: int) -> np.ndarray:
    """The taxi's town: stands in their colors, the destination ringed, the passenger a black disc."""
    state = int(state)
    row, column, passenger, destination = state // 100, state // 20 % 5, state // 4 % 5, state % 4
    colors = np.full((5, 5, 3), WHITE)
    for cell, color in zip(STANDS, STAND_COLORS, strict=True):
        colors[cell] = color
    picture, size = cells(colors)
    for fence_row, fence_column in FENCES:
        rectangle(picture, fence_row * size, (fence_column + 1) * size - 3, size, 6, BLACK)
    down, right = STANDS[destination]
    rectangle(picture, down * size + 6, right * size + 6, size - 12, size - 12, WHITE)
    rectangle(picture, down * size + 12, right * size + 12, size - 24, size - 24, STAND_COLORS[destination])
    rectangle(picture, (row + 0.25) * size, (column + 0.15) * size, size * 0.5, size * 0.7, (240, 170, 40))
    down, right = (row, column) if passenger == 4 else STANDS[passenger]
    disc(picture, (down + 0.5) * size, (right + 0.5) * size, size * 0.14, BLACK)
    return picture


def gambler(state: int) -> np.ndarray:
    """The capital as a bar on the way to 100."""
    picture = blank(120, LONGEST)
    rectangle(picture, 60, 20, 36, 344, LINE)
    rectangle(picture, 60, 20, 36, 3.44 * int(state), GOAL if state == 100 else AGENT)
    return text(picture, {(18, 20): f"capital {int(state)} of 100"})


def car_rental(state: int) -> np.ndarray:
    """The cars of the two places, one square each."""
    picture = blank(200, LONGEST)
    for place, count in enumerate(divmod(int(state), 21)):
        for car in range(20):
            rectangle(picture, 44 + 92 * place, 20 + 17 * car, 28, 13, AGENT if car < count else LINE)
    first, second = divmod(int(state), 21)
    return text(picture, {(12, 20): f"first place: {first}", (104, 20): f"second place: {second}"})


def blackjack(state: int) -> np.ndarray:
    """What the player knows, or how it ended."""
    picture = np.full((200, 300, 3), (206, 230, 212), np.uint8)
    if state >= len(HANDS):
        return text(picture, {(84, 30): list(ENDS)[int(state) - len(HANDS)]}, 28)
    hand = HANDS[int(state)]
    ace = "natural" if hand.natural else "with an ace as 11" if hand.soft else "no usable ace"
    shown = "an ace" if hand.dealer == 1 else str(hand.dealer)
    return text(picture, {(30, 30): f"dealer shows {shown}", (90, 30): f"player has {hand.total}", (126, 30): ace}, 24)
