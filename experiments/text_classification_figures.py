"""The pictures of experiments.text_classification: what is mistaken for what, and which words speak for a class."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.metrics.attribution import input_gradient
from dlfx.training import figures
from dlfx.types import Array, Batch
from experiments.text_figures import Text, texts

CHUNK = 128  # texts in one call
SHOWN = 8  # texts in the picture of words
WORDS = 15  # of each class in the picture of all texts
LEAST = 5  # times that such a word occurs


def draw(
    directory: Path,
    model: Any,
    variables: Any,
    batch: Batch,
    labels: tuple[str, ...],
    words: tuple[str, ...],
    split: str,
) -> None:
    """All pictures of one split, `{"tokens": [n, T], "lengths": [n], "label": [n]}`."""
    true, lengths = batch["label"], batch["lengths"]
    logits = in_parts(partial(jax.jit(model.apply), variables), batch["tokens"], lengths)
    said = logits.argmax(-1)
    right = said == true
    counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(counts, (true, said), 1)
    title = f"{split}: {right.mean():.2%} of {len(true)} texts right"
    figures.confusion(directory / "confusion.png", counts, labels, title)
    by_length(directory / "lengths.png", lengths, right, title)

    shares = in_parts(jax.jit(partial(gradient_shares, model, variables)), batch["tokens"], lengths)
    speaking(directory / "speaking.png", shares, batch["tokens"], lengths, labels, words)
    wrong, good = np.flatnonzero(~right), np.flatnonzero(right)
    chosen = np.concatenate([wrong[: SHOWN // 2], good])[:SHOWN]
    erased = jax.jit(partial(erasure, model, variables))
    shown = []
    for k in chosen:
        n, c = int(lengths[k]), int(said[k])
        tokens = [words[token] for token in batch["tokens"][k, :n]]
        caption = f"true: {labels[true[k]]}, said: {labels[c]} with {_softmax(logits[k])[c]:.2f}. "
        fall = np.asarray(erased(batch["tokens"][k], lengths[k], c))[:n]
        for how, share in (("Gradient x word vector", shares[k, :n, c]), ("Fall if left out", fall)):
            shown.append(Text(f"{caption}{how}, {_range(share)}:", tokens, _colors(share)))
            caption = ""
    about = f"{split}: what speaks for what was said (blue) and against it (red), on a scale of its own for each text"
    texts(directory / "words.png", shown, about)


def in_parts(function: Any, *arrays: np.ndarray) -> np.ndarray:
    """What a function of arrays `[n, ...]` gives, computed `CHUNK` rows at a time."""
    n = len(arrays[0])
    index = [np.arange(i, i + CHUNK) % n for i in range(0, n, CHUNK)]
    return np.concatenate([np.asarray(function(*(x[rows] for x in arrays)), np.float32) for rows in index])[:n]


def gradient_shares(model: Any, variables: Any, tokens: Array, lengths: Array) -> Array:
    """Gradient x word vector of every class at every word, `[B, T, K]`.

    `x_t . d(logit_c - mean_k logit_k) / d x_t`, the first order of how much the word adds for the class
    """
    x = model.apply(variables, tokens, method="embed")

    def relative(x: Array) -> Array:
        logits = model.apply(variables, x, lengths, method="classify")
        return logits - logits.mean(-1, keepdims=True)

    classes = [jnp.full(len(tokens), c) for c in range(model.classes)]
    return jnp.stack([(input_gradient(relative, x, c) * x).sum(-1) for c in classes], -1)


def erasure(model: Any, variables: Any, tokens: Array, length: Array, c: Array) -> Array:
    """How much the probability of class c falls if one word is left out, for each word of one text `[T]`.

    Source: Li, Monroe and Jurafsky 2016, Understanding Neural Networks through Representation Erasure
      (arXiv:1612.08220), section 3.
    """
    size = len(tokens)
    position, left_out = jnp.arange(size), jnp.arange(size)[:, None]
    without = tokens[jnp.minimum(position + (position >= left_out), size - 1)]  # [T, T]

    def probability(tokens: Array, length: Array) -> Array:
        return jax.nn.softmax(model.apply(variables, tokens, jnp.full(len(tokens), length)))[:, c]

    return probability(tokens[None], length) - probability(without, length - 1)


def by_length(path: Path, lengths: np.ndarray, right: np.ndarray, title: str) -> None:
    """Accuracy by how many words a text has, in up to eight groups of about as many texts, with 95 % intervals."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, 9)).round().astype(int))
    if len(edges) == 1:
        edges = np.append(edges, edges + 1)
    group = np.clip(np.searchsorted(edges, lengths, side="right") - 1, 0, len(edges) - 2)
    figure = figures.new_figure(6.4, 3.8)
    axes = figure.subplots()
    names = []
    for k in range(len(edges) - 1):
        of = right[group == k]
        if not len(of):
            names.append("")
            continue
        members = lengths[group == k]
        low, high = wilson(int(of.sum()), len(of))
        axes.bar(k, of.mean(), color="#4477aa")
        axes.vlines(k, low, high, color="black", linewidth=1)
        span = dict.fromkeys((str(members.min()), str(members.max())))
        names.append(f"{'-'.join(span)}\n{len(of)} texts")
    axes.set(ylabel="accuracy", xlabel="words", title=title, ylim=(0, 1.02))
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    figures.save(figure, path)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a probability of which successes of n trials are known. Wilson 1927, equation 3."""
    z, p = 1.959964, successes / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def speaking(
    path: Path, shares: np.ndarray, tokens: np.ndarray, lengths: np.ndarray, labels: tuple[str, ...], words: Any
) -> None:
    """The words that add most to a class, by the mean of gradient x word vector over all places where they stand."""
    there = np.arange(tokens.shape[1]) < lengths[:, None]
    count = np.bincount(tokens[there], minlength=len(words))
    classes = range(min(len(labels), 6))
    figure = figures.new_figure(3.4 * len(classes), 0.24 * WORDS + 1.0)
    figure.suptitle(f"words that speak for a class, the mean over {count[count >= LEAST].sum()} places")
    for axes, c in zip(figure.subplots(1, len(classes), squeeze=False)[0], classes, strict=True):
        total = np.bincount(tokens[there], shares[..., c][there], minlength=len(words))
        mean = np.where(count >= LEAST, total / np.maximum(count, 1), -np.inf)
        best = [k for k in np.argsort(-mean, kind="stable")[:WORDS] if mean[k] > 0][::-1]
        axes.barh(range(len(best)), mean[best], color="#4477aa")
        axes.set_yticks(range(len(best)), [words[k] for k in best], fontsize=8, parse_math=False)
        axes.set(title=labels[c])
        axes.grid(axis="x", alpha=0.3)
    figures.save(figure, path)


def _softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max())
    return e / e.sum()


def _range(share: np.ndarray) -> str:
    return f"from {share.min():+.2f} to {share.max():+.2f}"


def _colors(share: np.ndarray) -> list[tuple[float, ...]]:
    """White for 0, blue above, red below."""
    scaled = share / max(np.abs(share).max(), 1e-12)
    return [(1 - 0.6 * v, 1 - 0.4 * v, 1) if v > 0 else (1, 1 + 0.5 * v, 1 + 0.55 * v) for v in scaled.tolist()]
