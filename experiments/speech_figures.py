"""The pictures of experiments.speech."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlfx.ops.ctc import ctc_align
from dlfx.ops.ctc_decoding import greedy_decode
from dlfx.training import figures
from dlfx.types import Batch, Stream

COLOURS = ["#bbbbbb", *(f"C{k}" for k in range(10))]  # of the blank and the digits


def draw(directory: Path, predict: Callable[[Batch], Any], test: tuple[Stream, int], task: str) -> None:
    """What the network hears in some test utterances, and which digits it takes for which."""
    stream, batches = test
    counts = np.zeros((11, 11), int)
    kept: list[dict[str, Any]] = []
    for i in range(batches):
        batch = stream.fetch((), stream.host(0, i))
        (features, lengths), (scores, frames) = (jax.tree.map(np.asarray, each) for each in predict(batch))
        symbols, sizes = (
            (scores.argmax(-1)[:, None] + 1, np.ones(len(scores), int))
            if task == "keyword"
            else (np.asarray(part) for part in greedy_decode(scores, frames)[:2])
        )
        align = None if task == "keyword" else ctc_align(scores, frames, batch["label"], batch["label_lengths"])
        for row in np.flatnonzero(batch["mask"]):
            true = batch["label"][row, : batch["label_lengths"][row]]
            found = symbols[row, : sizes[row]]
            for pair in pairs(found, true):
                counts[pair] += 1
            score = scores[row] if task == "keyword" else scores[row, : frames[row]]
            kept.append(
                {
                    "features": features[row, : lengths[row]],
                    "posterior": np.asarray(jax.nn.softmax(score, -1)),
                    "true": true,
                    "found": found,
                    "align": None if align is None else np.asarray(align.positions[row, : frames[row]]),
                }
            )
    names = ["-", *map(str, range(10))]
    title = "digits of the test"
    if task == "keyword":
        counts, names = counts[1:, 1:], names[1:]
        hardest(directory / "hardest.png", kept)
    else:
        wrong = [each for each in kept if not np.array_equal(each["found"], each["true"])]
        right = [each for each in kept if np.array_equal(each["found"], each["true"])]
        longest = sorted(right, key=lambda each: -len(each["true"]))
        utterances(directory / "utterances.png", (longest[:2] + wrong[:2] + longest[2:])[:4])
        title += ", - is none"
    figures.confusion(directory / "confusion.png", counts, names, title)


def pairs(found: Sequence[int] | np.ndarray, true: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """(true, found) of every symbol in an alignment of fewest edits; 0 stands for none."""
    costs = np.add.outer(np.arange(len(true) + 1), np.arange(len(found) + 1))
    for i, j in np.ndindex(len(true), len(found)):
        same = costs[i, j] + (true[i] != found[j])
        costs[i + 1, j + 1] = min(same, costs[i, j + 1] + 1, costs[i + 1, j] + 1)
    i, j, path = len(true), len(found), []
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (true[i - 1] != found[j - 1]):
            i, j = i - 1, j - 1
            path.append((int(true[i]), int(found[j])))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            path.append((int(true[i]), 0))
        else:
            j -= 1
            path.append((0, int(found[j])))
    return path[::-1]


def text(symbols: np.ndarray) -> str:
    """Symbols as the digits that they stand for."""
    return "".join(str(symbol - 1) for symbol in symbols)


def utterances(path: Path, chosen: list[dict[str, Any]]) -> None:
    """Spectrograms with the forced alignment of the true digits, and what the network says at each frame."""
    figure = figures.new_figure(3.6 * len(chosen), 5.2)
    for column, each in enumerate(chosen):
        above, below = (
            figure.add_subplot(2, len(chosen), column + 1),
            figure.add_subplot(2, len(chosen), column + 1 + len(chosen)),
        )
        above.imshow(each["features"].T, origin="lower", aspect="auto", cmap="magma")
        step = len(each["features"]) / len(each["posterior"])
        for k, symbol in enumerate(each["true"]):
            at = (np.flatnonzero(each["align"] == k) + 0.5) * step
            above.axvspan(at[0] - step / 2, at[-1] + step / 2, color=COLOURS[symbol], alpha=0.6)
            above.text(at.mean(), 1.01, str(symbol - 1), transform=above.get_xaxis_transform(), ha="center", fontsize=9)
        for symbol, colour in enumerate(COLOURS):
            values = each["posterior"][:, symbol]
            if symbol == 0 or values.max() > 0.1:
                label = str(symbol - 1) if symbol else "blank"
                below.plot(values, color=colour, label=label, linewidth=0.8 if symbol == 0 else 1.6)
        above.set_title(f"said {text(each['true'])}, heard {text(each['found'])}\n", fontsize=9)
        above.set(xlabel="frame", ylabel="mel band" if column == 0 else "")
        below.set(xlabel="frame of the network", ylabel="probability" if column == 0 else "", ylim=(0, 1.35))
        below.set_xlim(-0.5, len(each["posterior"]) - 0.5)
        below.legend(fontsize=6, ncols=4, loc="upper center")
    figures.save(figure, path)


def hardest(path: Path, kept: list[dict[str, Any]]) -> None:
    """The recordings to whose digit the network gives the least probability."""
    order = sorted(kept, key=lambda each: each["posterior"][each["true"][0] - 1])[:12]
    titles = [
        f"{text(each['true'])} ({each['posterior'][each['true'][0] - 1]:.2f}), heard {text(each['found'])}"
        for each in order
    ]
    images = [each["features"].T[::-1] for each in order]
    figures.image_grid(path, images, titles, "the hardest of the test, with the probability of the truth", columns=4)
