"""What vectors of words have learned: the nearest words of some, and a map of the commonest."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlfx.metrics import word_vectors
from dlfx.training import figures


def draw(directory: Path, words: Sequence[str], vectors: np.ndarray, asked: np.ndarray) -> None:
    """Both figures.

    Args:
      directory: of the PNGs.
      words: the commonest first.
      vectors: `[V, D]`.
      asked: numbers of the words whose neighbours are shown `[n]`.
    """
    found, cosines = word_vectors.nearest(vectors, asked, min(8, len(words) - 1))
    neighbours(directory / "neighbours.png", words, asked, found, cosines)
    if len(words) > 3:
        some = min(250, len(words))
        word_map(directory / "map.png", words[:some], word_vectors.normalized(vectors)[:some])


def neighbours(path: Path, words: Sequence[str], asked: np.ndarray, found: np.ndarray, cosines: np.ndarray) -> None:
    """A table: a word a column, the words nearest to it below, the nearer the darker."""
    figure = figures.new_figure(1.35 * len(asked) + 0.5, 0.32 * found.shape[1] + 1.0)
    axes = figure.subplots()
    axes.imshow(cosines.T, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for (column, row), number in np.ndenumerate(found):
        axes.text(column, row, f"{words[number]} {cosines[column, row]:.2f}", ha="center", va="center", fontsize=8)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(asked)), [words[number] for number in asked], weight="bold")
    axes.set(yticks=[], xlabel="nearest words, with their cosines")
    figures.save(figure, path)


def word_map(path: Path, words: Sequence[str], units: np.ndarray) -> None:
    """The words in the plane: by t-SNE where scikit-learn is installed, else by their two principal components."""
    centred = units - units.mean(0)
    left, scales, _ = np.linalg.svd(centred, full_matrices=False)
    plane, title = (left * scales)[:, :2], "two principal components"
    if importlib.util.find_spec("sklearn"):
        from sklearn.manifold import TSNE

        perplexity = min(15.0, (len(words) - 1) / 3)
        plane, title = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(centred), "t-SNE"
    figure = figures.new_figure(12, 10)
    axes = figure.subplots()
    axes.scatter(*plane.T, s=3, color="#4477aa", alpha=0.6)
    for word, (x, y) in zip(words, plane, strict=True):
        axes.text(x, y, word, fontsize=7)
    axes.set(title=f"the {len(words)} commonest words, by {title}", xticks=[], yticks=[])
    figures.save(figure, path)
