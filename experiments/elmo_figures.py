"""Pictures of ELMo: one word in two meanings, and what words are alike by their letters alone."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.metrics import word_vectors
from experiments import text_figures, word2vec_figures
from experiments.text_classification_figures import in_parts

AROUND = 6  # words shown on each side
NEAREST = 4  # places shown for each meaning
WINDOW = 64  # words that are read at once
MOST = 30_000  # words of the split that are looked at
SAME, OTHER, PLAIN = "#9ecae1", "#fdd0a2", "#ffffff"


def draw(
    directory: Path,
    model: Any,
    variables: Any,
    letters: np.ndarray,
    words: Sequence[str],
    numbers: np.ndarray,
    ask: Sequence[str],
    split: str,
) -> None:
    """Draws `contexts.png` and `spelling.png`.

    Args:
      directory: of the pictures.
      model, variables: the biLM.
      letters: of every word `[W, C]`.
      words: their names; number 0 is the boundary of sentences.
      numbers: the words of a split `[n]`.
      ask: words to look up; those that do not occur twice are passed over, and if none does the commonest are taken.
      split: its name.
    """
    size = max(min(len(numbers), MOST) // WINDOW, 1) * WINDOW
    rows = np.resize(numbers[:size], (size // WINDOW, WINDOW))
    numbers = rows.reshape(-1)[: len(numbers)]
    top = jax.jit(lambda rows: model.apply(variables, jnp.take(letters, rows, 0))[:, -1])
    vectors = in_parts(top, rows).reshape(size, -1)[: len(numbers)]
    counts = np.bincount(numbers, minlength=len(words))
    asked = [words.index(word) for word in ask if word in words and counts[words.index(word)] > 1]
    common = [k for k in np.argsort(-counts, kind="stable") if counts[k] > 1 and words[k].isalpha()]
    shown = []
    for number in asked or common[:3]:
        shown += meanings(vectors, numbers, int(number), words)
    title = f"{split}: the two places of a word whose contextual vectors are the farthest apart, and the places nearest"
    if shown:
        text_figures.texts(directory / "contexts.png", shown, f"{title} to each")
    commonest = np.argsort(-np.bincount(numbers, minlength=len(words))[1:], kind="stable") + 1
    embed = jax.jit(partial(model.apply, variables, method="embed"))
    alone = in_parts(embed, letters)
    some = [int(k) for k in commonest if len(words[k]) > 5 and words[k].isalpha()][:7]
    if some and len(words) > 9:
        found, cosines = word_vectors.nearest(alone[1:], np.array(some) - 1, 8)
        word2vec_figures.neighbours(directory / "spelling.png", words[1:], np.array(some) - 1, found, cosines)


def meanings(vectors: np.ndarray, numbers: np.ndarray, word: int, words: Sequence[str]) -> list[text_figures.Text]:
    """The two most different places of a word, each with the places nearest to it, of this word or any other."""
    units = word_vectors.normalized(vectors)
    places = np.flatnonzero(numbers == word)
    cosines = units[places] @ units[places].T
    pair = [int(places[k]) for k in np.unravel_index(cosines.argmin(), cosines.shape)]
    shown = []
    for place in pair:
        line = partial(_line, numbers=numbers, words=words)
        told = f"{words[word]!r}; the other place has the cosine {cosines.min():.2f}"
        shown.append(line(place, caption=told, color=SAME))
        alike = units @ units[place]
        seen = {_around(numbers, place)}
        for k in np.argsort(-alike, kind="stable"):
            if _around(numbers, int(k)) in seen:  # the same words over again say nothing
                continue
            seen.add(_around(numbers, int(k)))
            color = SAME if numbers[k] == word else OTHER
            shown.append(line(int(k), caption="", color=color, told=f"{alike[k]:.2f}"))
            if len(seen) > NEAREST:
                break
    return shown


def _around(numbers: np.ndarray, place: int) -> tuple[int, ...]:
    return tuple(numbers[max(place - 2, 0) : place + 3])


def _line(
    place: int, numbers: np.ndarray, words: Sequence[str], caption: str, color: str, told: str = ""
) -> text_figures.Text:
    """The words around a place, up to the ends of its sentence."""
    before, after = numbers[max(place - AROUND, 0) : place], numbers[place + 1 : place + 1 + AROUND]
    before = before[np.append(np.flatnonzero(before == 0), -1).max() + 1 :]
    after = after[: np.append(np.flatnonzero(after == 0), len(after)).min()]
    names = [words[k] if k else "(end)" for k in (*before, numbers[place], *after)]
    colors = [PLAIN] * len(before) + [color] + [PLAIN] * len(after)
    lead = [told] if told else []
    return text_figures.Text(caption, lead + names, [PLAIN] * len(lead) + colors)
