"""The pictures of experiments.tagging: what may follow what, sentences with their tags, and mistakes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlfx.data.labelled_text import Tagged
from dlfx.metrics.spans import span_scores, spans_to_tags, tags_to_spans
from dlfx.training import figures
from dlfx.types import Batch
from experiments.text_classification_figures import in_parts
from experiments.text_figures import Text, texts

SHOWN = 12  # sentences in the picture
RIGHT, WRONG, PLAIN = "#c7e9c0", "#fcae91", "#ffffff"


def draw(
    directory: Path,
    decode: Any,
    params: Any,
    batch: Batch,
    sentences: Sequence[Tagged],
    names: Sequence[str],
    known: set[str],
    scheme: str,
    split: str,
) -> None:
    """All pictures of one split, a batch of all its sentences."""
    given = [name for name in batch if name != "mask"]
    said = in_parts(lambda *rows: decode(dict(zip(given, rows, strict=True))), *(batch[name] for name in given))
    said = said.astype(int)
    predicted = [[names[k] for k in row[: len(true)]] for row, (_, true) in zip(said, sentences, strict=True)]
    true = [tags for _, tags in sentences]
    scores = span_scores(predicted, true, scheme)
    improper = sum(spans_to_tags(tags_to_spans(tags, scheme), len(tags), scheme) != tags for tags in predicted)
    title = (
        f"{split}: F1 {scores.f1:.2%} of {scores.true} {'words' if scheme == 'BMES' else 'entities'}; tags that cannot "
        f"follow each other in {improper} of {len(true)} sentences"
    )
    counts = np.zeros((len(names), len(names)), np.int64)
    for ours, theirs in zip(predicted, true, strict=True):
        np.add.at(counts, ([names.index(tag) for tag in theirs], [names.index(tag) for tag in ours]), 1)
    figures.confusion(directory / "confusion.png", counts, names, f"{split}: tags")
    examples(directory, sentences, predicted, known, scheme, title)
    if "between" in params:
        scored = {name: np.asarray(params[name], np.float32) for name in ("between", "start", "end")}
        transitions(directory / "transitions.png", names, **scored)
    if "mix" in params:
        layer_mix(directory / "mix.png", np.asarray(params["mix"]["weights"]), float(params["mix"]["gamma"]))


def transitions(path: Path, names: Sequence[str], between: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
    """The learned scores of what follows what, with those of the first and the last tag."""
    K = len(names)
    table = np.full((K + 1, K + 1), np.nan)
    table[1:, :K], table[0, :K], table[1:, K] = between, start, end
    most = float(np.nanmax(np.abs(table)))
    figure = figures.new_figure(0.62 * K + 3.0, 0.5 * K + 2.0)
    axes = figure.subplots()
    figure.colorbar(axes.imshow(table, cmap="RdBu", vmin=-most, vmax=most), shrink=0.8)
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            ink = "white" if abs(value) > 0.6 * most else "black"
            axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(K + 1), [*names, "end"], rotation=45 if K > 4 else 0, parse_math=False)
    axes.set_yticks(range(K + 1), ["start", *names], parse_math=False)
    axes.set(xlabel="this tag", ylabel="after this one", title="scores of transitions in the CRF")
    figures.save(figure, path)


def layer_mix(path: Path, weights: np.ndarray, gamma: float) -> None:
    """How much of every layer of a language model the task takes."""
    shares = np.exp(weights - weights.max()).astype(np.float64)
    shares /= shares.sum()
    figure = figures.new_figure(1.1 * len(shares) + 1.5, 3.2)
    axes = figure.subplots()
    axes.bar(range(len(shares)), shares, color="#4477aa")
    axes.axhline(1 / len(shares), color="black", linewidth=0.8, linestyle=":")
    for k, share in enumerate(shares):
        axes.text(k, share, f"{share:.3f}", ha="center", va="bottom", fontsize=9)
    axes.set_xticks(range(len(shares)), ["letters", *(f"LSTM {k}" for k in range(1, len(shares)))])
    axes.set(ylabel="softmax(s)", title=f"mix of layers, gamma {gamma:.2f}", ylim=(0, 1.15 * shares.max()))
    figures.save(figure, path)


def examples(
    directory: Path,
    sentences: Sequence[Tagged],
    predicted: Sequence[Sequence[str]],
    known: set[str],
    scheme: str,
    title: str,
) -> None:
    """Sentences with right tags in green and wrong ones in red, as a picture; and all that have mistakes, as text."""
    wrong = [k for k, (_, true) in enumerate(sentences) if list(predicted[k]) != list(true)]
    right = [k for k in range(len(sentences)) if k not in set(wrong)]
    chosen = (wrong[: SHOWN // 2] + right)[:SHOWN]
    shown, lines = [], [title, ""]
    for k in chosen:
        tokens, true = sentences[k]
        ours = predicted[k]
        below = [a if a == b else f"{a} not {b}" for a, b in zip(ours, true, strict=True)]
        below = below if scheme == "BMES" else ["" if tag == "O" else tag for tag in below]
        words = [token if token in known else f"{token}*" for token in tokens]
        colors = [WRONG if a != b else PLAIN if a == "O" else RIGHT for a, b in zip(ours, true, strict=True)]
        shown.append(Text("", words, colors, below))
    texts(directory / "examples.png", shown, f"{title}\n(* marks what is not in the vocabulary)")
    for k in wrong:
        tokens, true = sentences[k]
        lines += [f"true  {_marked(tokens, true, scheme)}", f"said  {_marked(tokens, predicted[k], scheme)}", ""]
    (directory / "mistakes.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _marked(tokens: Sequence[str], tags: Sequence[str], scheme: str) -> str:
    """A sentence in one line: words apart, or entities in brackets."""
    parts, last = [], 0
    for span in tags_to_spans(tags, scheme):
        inside = tokens[span.start : span.end]
        parts += [*tokens[last : span.start]]
        parts.append("".join(inside) if scheme == "BMES" else f"[{' '.join(inside)}]{span.label}")
        last = span.end
    return " ".join([*parts, *tokens[last:]])
