"""The pictures of experiments.lm."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlfx.data.vocabulary import Vocabulary
from dlfx.models.sequence import ngram
from dlfx.training import figures
from experiments import text_figures, writing
from experiments.common import FLAGS
from experiments.lm_models import LanguageModel
from experiments.texts import Texts

LARGEST = 5  # order of the n-grams next to the model
POINTS = 64  # of a curve
JUDGED = 1 << 16  # tokens by which pictures judge


def draw(directory: Path, model: LanguageModel, state: Any, corpus: Texts, split: str) -> None:
    """What it writes, the loss by place in the context, next to n-grams, and what it takes for similar."""
    tokens = corpus.tokens[split][:JUDGED]
    start = corpus.vocabulary.decode(corpus.tokens[split][: max(1, min(12, (model.context or 48) // 4))])
    written = writing.write(model, state.variables, corpus.vocabulary, start, jax.random.key(FLAGS.seed))
    (directory / "samples.txt").write_text(("\n" + "-" * 80 + "\n").join(written) + "\n")
    text_figures.lines(directory / "samples.png", written, f"begun with {start!r}, temperature {FLAGS.temperature:g}")
    positions(directory / "context.png", losses(model, state, tokens), corpus, tokens)
    embedding = state.params["embedding"]["embedding"]
    neighbours(
        directory / "embedding.png", np.asarray(embedding, np.float32), corpus.vocabulary, corpus.tokens["train"]
    )


def rows(context: int) -> int:
    """How many windows to judge at once: of long ones fewer, as every token has the logits of all the vocabulary."""
    return max(1, 4096 // context)


def losses(model: LanguageModel, state: Any, tokens: np.ndarray) -> np.ndarray:
    """The mean loss at each place of a window, `[T]` in nats, over windows side by side."""
    count = (len(tokens) - 1) // model.window
    length = model.window if count else len(tokens) - 1
    count = max(count, 1)

    @jax.jit
    def of(params: Any, windows: jax.Array) -> jax.Array:
        logits = model.logits({"params": params}, windows[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:]).sum(0)

    windows = np.stack([tokens[i * length : (i + 1) * length + 1] for i in range(count)])
    size = rows(model.window)
    parts = [np.asarray(of(state.params, jnp.asarray(windows[i : i + size]))) for i in range(0, count, size)]
    return np.sum(parts, 0) / count


def positions(path: Path, by_place: np.ndarray, corpus: Texts, tokens: np.ndarray) -> None:
    """The loss by how many tokens the model has seen, and that of n-grams of each order, by Kneser-Ney."""
    figure = figures.new_figure(6.4, 4.2)
    axes = figure.subplots()
    # Of long windows there are few, and the loss at one place is mostly noise: means of neighbours.
    groups = np.array_split(np.arange(len(by_place)), min(len(by_place), POINTS))
    axes.plot(
        [group.mean() + 1 for group in groups],
        [by_place[group].mean() for group in groups],
        color="#ee6677",
        label=f"model, mean {by_place.mean():.3f}",
    )
    for order in range(1, LARGEST + 1):
        counted = ngram.fit_kneser_ney(corpus.tokens["train"], order, corpus.vocabulary.size)
        loss = float(np.log(ngram.perplexity(counted, tokens)))
        style = {"color": "#4477aa", "alpha": 0.25 + 0.15 * order, "linewidth": 1, "linestyle": "--"}
        axes.axhline(loss, label=f"{order}-gram {loss:.3f}", **style)
    axes.set(xlabel="tokens seen", ylabel="loss of the next token, nats", title="what the context is worth")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    figures.save(figure, path)


def neighbours(path: Path, embedding: np.ndarray, vocabulary: Vocabulary, tokens: np.ndarray) -> None:
    """The embeddings of the commonest tokens by their two principal components."""
    common = np.argsort(-np.bincount(tokens, minlength=len(embedding)), kind="stable")[:100]
    rows = embedding[common] - embedding[common].mean(0)
    _, _, axes_of = np.linalg.svd(rows, full_matrices=False)
    plane = rows @ axes_of[:2].T
    figure = figures.new_figure(7.0, 6.4)
    axes = figure.subplots()
    axes.scatter(*plane.T, s=2, color="white")
    for point, token in zip(plane, common, strict=True):
        text = {" ": "space", "\n": "\\n"}.get(vocabulary.symbols[token], vocabulary.symbols[token]).replace("$", r"\$")
        axes.text(*point, text, fontsize=9, ha="center", va="center")
    axes.set(title="embeddings of the commonest tokens, 2 principal components", xticks=[], yticks=[])
    figures.save(figure, path)
