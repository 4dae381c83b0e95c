"""Texts as pictures: as they are, or words with a colour behind each and something written below."""

import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dlfx.training import figures

COLUMNS = 100  # cells of a line; a Chinese character has two
CELL = 0.088  # width in inches
LINE = 0.2  # height in inches


class Text(NamedTuple):
    """A text to draw.

    Attributes:
      caption: above it.
      words: in their order.
      colors: behind each, as matplotlib takes them.
      below: what is written below each; nothing if empty.
    """

    caption: str
    words: Sequence[str]
    colors: Sequence[Any]
    below: Sequence[str] = ()


def width(text: str) -> int:
    """How many cells a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def drawable(characters: set[str]) -> tuple[str, set[str]]:
    """The file of the font that has most of these characters, and those that it has not; of a fixed width if it may."""
    from matplotlib import font_manager

    entries = [font for font in font_manager.fontManager.ttflist if not font.name.startswith("Last Resort")]  # boxes
    entries.sort(
        key=lambda font: (font.name != "DejaVu Sans Mono", font.style != "normal", font.weight != 400, font.name)
    )
    best, left = "", characters
    for entry in entries:
        font = font_manager.get_font(entry.fname)
        missing = {character for character in characters if not font.get_char_index(ord(character))}
        if not best or len(missing) < len(left):
            best, left = entry.fname, missing
        if not left:
            break
    return best, left


def texts(path: Path, shown: Sequence[Text], title: str) -> None:
    """Draws texts below one another. Characters that no font here has are drawn as their numbers in Unicode."""
    from matplotlib.font_manager import FontProperties

    path_of_font, missing = drawable({character for text in shown for word in text.words for character in word})
    if missing:
        title += f"\n(no font here has {len(missing)} of the characters: these are shown by their numbers in Unicode)"
    drawn: list[tuple[float, int, str, Any, bool]] = []  # column, line, what, colour, whether it is a word
    line = title.count("\n") + 2
    for text in shown:
        for caption in textwrap.wrap(text.caption, COLUMNS):
            drawn.append((0, line, caption, None, False))
            line += 1
        column = 0
        for k, word in enumerate(text.words):
            word = "".join(f"{ord(c):04X} " if c in missing else c for c in word).strip()
            below = text.below[k] if text.below else ""
            cells = max(width(word), width(below)) + 1
            if column and column + cells > COLUMNS:
                column, line = 0, line + 1 + bool(text.below)
            drawn.append((column, line, word, text.colors[k], True))
            if below:
                drawn.append((column, line + 1, below, None, False))
            column += cells
        line += 2 + bool(text.below)
    figure = figures.new_figure(CELL * (COLUMNS + 2), LINE * line)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, COLUMNS + 1), ylim=(line, 0))
    axes.axis("off")
    axes.text(0, 0.3, title, va="top", fontsize=10, weight="bold", parse_math=False)
    size: float = 72 * CELL / 0.602  # a character of DejaVu Sans Mono is 0.602 of its size wide
    fonts = {True: FontProperties(fname=path_of_font), False: FontProperties(family="DejaVu Sans Mono")}
    for left, row, what, color, is_word in drawn:
        box = {"facecolor": color, "edgecolor": "none", "pad": 1.2} if is_word else None
        ink = {} if is_word else {"color": "#555555"}
        font = fonts[is_word].copy()
        font.set_size(size if is_word else 0.85 * size)
        axes.text(left, row, what, fontproperties=font, bbox=box, parse_math=False, va="top", **ink)
    figures.save(figure, path)


def lines(path: Path, written: Sequence[str], title: str) -> None:
    """Draws texts below one another in a fixed width, their first lines if they are long."""
    wrapped = []
    for text in written:
        for line in text.splitlines():
            wrapped += textwrap.wrap(line, COLUMNS, drop_whitespace=False) or [""]
        wrapped.append("-" * COLUMNS)
    shown = [line[:COLUMNS] for line in wrapped[:90]]
    figure = figures.new_figure(7.0, 0.128 * len(shown) + 0.5)
    figure.suptitle(title, fontsize=10, parse_math=False)
    axes = figure.subplots()
    axes.axis("off")
    text = "\n".join(shown)
    axes.text(0, 1, text, family="monospace", fontsize=7.5, va="top", transform=axes.transAxes, parse_math=False)
    figures.save(figure, path)
