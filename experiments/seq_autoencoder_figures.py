"""The pictures of experiments.seq_autoencoder."""

from pathlib import Path
from typing import Any

import numpy as np

from dlfx.training import figures
from experiments.codes import Neighbours, Vectors
from experiments.sentences import Sentences
from experiments.text_figures import Text, texts

SHOWN = 14  # sentences that were written again
ASKED = 6  # sentences whose neighbours are shown
NEAR = 3  # of each
MAPPED = 1000  # codes in the map
COLUMNS = 120  # of the table of neighbours


def draw(
    directory: Path,
    data: Sentences,
    split: str,
    found: np.ndarray,
    vectors: dict[str, Vectors],
    neighbours: dict[str, Neighbours],
    about: dict[str, Any],
) -> None:
    """All pictures of one split; `found` is what was written again, `[n, T]`."""
    rewritten(directory, data, split, found)
    lengths(directory / "by_length.png", about["by_length"], f"{split}, {len(found):,} sentences")
    nearest(directory / "neighbours.png", data, split, neighbours, about["nearest_edits"])
    if len(found) > 3:
        code_map(directory / "codes.png", vectors["code"].held, data, split)
    if data.labels:
        labelled(directory / "labels.png", about)


def by_length(data: Sentences, split: str, found: np.ndarray) -> dict[str, list[int]]:
    """For every length in tokens the sentences, those that came out exactly, and the right tokens, `<eos>` counted."""
    unk, end = data.vocabulary.special.get("<unk>", -1), data.vocabulary.special["<eos>"]
    wanted = [np.append(row, end) for row in data.rows[split]]
    right = [int(((mine[: len(row)] == row) & (row != unk)).sum()) for mine, row in zip(found, wanted, strict=True)]
    size = np.array([len(row) for row in data.rows[split]])
    every, right_of = np.unique(size), np.array(right)
    exact = right_of == size + 1
    return {
        "length": every.tolist(),
        "sentences": [int((size == n).sum()) for n in every],
        "exact": [int(exact[size == n].sum()) for n in every],
        "right_tokens": [int(right_of[size == n].sum()) for n in every],
    }


def rewritten(directory: Path, data: Sentences, split: str, found: np.ndarray) -> None:
    """Sentences and what came out of their codes; red where another token stood."""
    end = {data.vocabulary.special[token] for token in ("<eos>", "<pad>")}
    mine = [[data.vocabulary.symbols[i] for i in row if i not in end] for row in found]
    true = [[data.vocabulary.symbols[i] for i in row] for row in data.rows[split]]
    directory.mkdir(parents=True, exist_ok=True)
    joiner = "" if data.vocabulary.kind == "characters" else " "
    lines = [f"{text}\t{joiner.join(out)}\n" for text, out in zip(data.texts[split], mine, strict=True)]
    (directory / "reconstructions.txt").write_text("sentence\trewritten\n" + "".join(lines), encoding="utf-8")
    shown = []
    for k in np.linspace(0, len(mine) - 1, min(SHOWN, len(mine))).astype(int):
        right = [i < len(true[k]) and symbol == true[k][i] != "<unk>" for i, symbol in enumerate(mine[k])]
        colors = ["white" if same else "#ffbbaa" for same in right]
        shown.append(Text(data.texts[split][k], mine[k] or ["(nothing)"], colors or ["#ffbbaa"]))
    texts(directory / "reconstructions.png", shown, f"{split}: a sentence, and what was written from its code alone")


def lengths(path: Path, counts: dict[str, list[int]], title: str) -> None:
    """How much came out right by how long a sentence is, and how many there are."""
    length, number, exact, right = (np.array(counts[name]) for name in ("length", "sentences", "exact", "right_tokens"))
    figure = figures.new_figure(6.4, 4.0)
    axes = figure.subplots()
    behind = axes.twinx()
    behind.bar(length, number, color="#dddddd")
    behind.set_ylabel("sentences (bars)")
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(
        length,
        right / (number * (length + 1)),
        marker=".",
        label=f"tokens: {right.sum() / (number * (length + 1)).sum():.1%}",
    )
    axes.plot(length, exact / number, marker=".", label=f"whole sentences: {exact.sum() / number.sum():.1%}")
    axes.set(xlabel="tokens of the sentence", ylabel="written again exactly", title=title, ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def nearest(
    path: Path, data: Sentences, split: str, neighbours: dict[str, Neighbours], edits: dict[str, float]
) -> None:
    """Held sentences with the training sentences nearest to them, by codes and by counts of words."""
    lines: list[tuple[str, str]] = []
    count = len(data.texts[split])
    for k in np.linspace(0, count - 1, min(ASKED, count)).astype(int):
        lines.append((_labelled(data, split, k), "black"))
        for name, color in (("code", "#2255aa"), ("bag of words", "#996600")):
            near = neighbours[name]
            for number, cosine in zip(near.numbers[k, :NEAR], near.cosines[k, :NEAR], strict=True):
                lines.append((f"  {name:13s} {cosine:5.2f}  {_labelled(data, 'train', number)}", color))
        lines.append(("", "black"))
    figure = figures.new_figure(0.079 * COLUMNS, 0.17 * len(lines) + 0.7)
    rates = ", ".join(f"{name} {rate:.3f}" for name, rate in edits.items())
    title = f"the nearest training sentences, by cosines; edits for each token to the nearest:\n{rates}"
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots()
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(len(lines), 0))
    for row, (line, color) in enumerate(lines):
        text = line if len(line) <= COLUMNS else f"{line[: COLUMNS - 3]}..."
        axes.text(0, row + 0.5, text, color=color, family="monospace", fontsize=8, va="center", parse_math=False)
    figures.save(figure, path)


def _labelled(data: Sentences, split: str, k: int) -> str:
    return f"[{data.labels[data.classes[split][k]]}] {data.texts[split][k]}" if data.labels else data.texts[split][k]


def code_map(path: Path, vectors: np.ndarray, data: Sentences, split: str) -> None:
    """Codes in the plane by principal components and by t-SNE, coloured by label, or else by length."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    some = np.linspace(0, len(vectors) - 1, min(MAPPED, len(vectors))).astype(int)
    points = vectors[some]
    pca = PCA(2, random_state=0)
    planes = {"two principal components": pca.fit_transform(points)}
    share = pca.explained_variance_ratio_.sum()
    perplexity = min(30.0, (len(points) - 1) / 3)
    planes["t-SNE"] = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points)
    figure = figures.new_figure(11.0, 5.0)
    figure.suptitle(f"codes of {len(points):,} sentences ({split}); two components have {share:.0%} of the variance")
    size = np.array([len(data.rows[split][k]) for k in some])
    panels = figure.subplots(1, 2)
    for axes, (name, plane) in zip(panels, planes.items(), strict=True):
        if data.labels:
            for k, of in enumerate(data.labels[:10]):
                axes.scatter(
                    *plane[data.classes[split][some] == k].T, s=8, color=f"C{k}", label=of, alpha=0.7, linewidths=0
                )
        else:
            drawn = axes.scatter(*plane.T, s=8, c=size, cmap="viridis", linewidths=0)
        axes.set(title=name, xticks=[], yticks=[])
    if data.labels:
        panels[1].legend(markerscale=2)
    else:
        figure.colorbar(drawn, ax=panels, label="tokens")
    figures.save(figure, path)


def labelled(path: Path, about: dict[str, Any]) -> None:
    """Accuracy by how many labels a linear classifier saw, and how many neighbours share the label."""
    figure = figures.new_figure(10.5, 4.2)
    left, right = figure.subplots(1, 2)
    for name, told in about["probe"].items():
        left.plot(told["examples"], told["accuracy"], marker=".", label=name)
    left.set(xscale="log", xlabel="training sentences with a label", ylabel="accuracy", title="linear classifier")
    left.set_xticks(told["examples"], [f"{n:,}" for n in told["examples"]])
    left.minorticks_off()
    left.grid(alpha=0.3)
    left.legend()
    names, shares = list(about["same_label"]), list(about["same_label"].values())
    bars = right.barh(range(len(names))[::-1], shares, color=[f"C{k}" for k in range(len(names))])
    right.bar_label(bars, [f"{share:.1%}" for share in shares], padding=3)
    right.set_yticks(range(len(names))[::-1], names)
    right.set(xlim=(0, 1.15), xlabel="share", title="nearest training sentences with the same label")
    figures.save(figure, path)
