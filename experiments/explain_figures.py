"""The pictures of experiments.explain."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dlfx.training import figures


def maps(
    path: Path, images: np.ndarray, labels: np.ndarray, probability: np.ndarray, found: Mapping[str, np.ndarray]
) -> None:
    """A row an image: the image, then each attribution on top of it. Red speaks for the class, blue against it.

    Args:
      path: of the PNG.
      images: `[n, H, W, C]`, as the source gives them.
      labels: `[n]`, the true classes.
      probability: `[n, K]`, what the network gives them.
      found: the name of an attribution to `[n, h, w]`, for the class of the highest probability.
    """
    rows, columns = len(images), 1 + len(found)
    figure = figures.new_figure(1.7 * columns, 1.75 * rows + 0.6)
    figure.suptitle("what the answer rests on: red for it, blue against it")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for row, image in enumerate(images):
        said = probability[row].argmax()
        grid[row, 0].set_title(f"a {labels[row]}: {said}, {probability[row, said]:.0%}", fontsize=8)
        colour = image if image.shape[-1] == 3 else image.mean(-1)
        size = (-0.5, found[next(iter(found))].shape[2] - 0.5, found[next(iter(found))].shape[1] - 0.5, -0.5)
        grid[row, 0].imshow(colour, cmap="gray", extent=size)
        for axes, (name, values) in zip(grid[row, 1:], found.items(), strict=True):
            most = np.abs(values[row]).max() or 1.0
            axes.imshow(image.mean(-1), cmap="gray", extent=size, alpha=0.35)
            axes.imshow(values[row], cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.75, extent=size)
            axes.set_title(name if row == 0 else "", fontsize=8)
    figures.save(figure, path)


def deletion(path: Path, curves: Mapping[str, np.ndarray]) -> None:
    """Mean probability of the class against the share of pixels gone, a line an attribution."""
    figure = figures.new_figure(5.6, 4.0)
    axes = figure.subplots()
    for name, curve in curves.items():
        style = {"color": "black", "linestyle": ":"} if name == "random" else {}
        axes.plot(np.linspace(0, 1, len(curve)), curve, label=f"{name}, mean {curve.mean():.3f}", **style)
    axes.set(
        xlabel="share of the pixels replaced by grey, the most important first",
        ylabel="probability of the class",
        title="deletion",
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def spaces(path: Path, found: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
    """Spaces of features `[N, D]` in the plane: by principal components above, by t-SNE below, coloured by class."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    figure = figures.new_figure(5.0 * len(found), 9.4)
    grid = figure.subplots(2, len(found), squeeze=False)
    for column, (name, features) in zip(grid.T, found.items(), strict=True):
        pca = PCA(min(50, *features.shape), random_state=0)
        principal = pca.fit_transform(features)
        share = pca.explained_variance_ratio_[:2].sum()
        perplexity = min(30.0, (len(features) - 1) / 3)
        plane = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(principal)
        titles = f"{name}: 2 principal components, {share:.0%} of the variance", f"{name}: t-SNE"
        for axes, points, title in zip(column, (principal[:, :2], plane), titles, strict=True):
            for label in np.unique(labels):
                some = points[labels == label]
                axes.scatter(*some.T, s=6, color=f"C{label % 10}")
                if label < 20:
                    axes.text(*np.median(some, 0), str(label), fontsize=12, weight="bold", ha="center", va="center")
            axes.set(title=title, xticks=[], yticks=[])
    figures.save(figure, path)


def separation(path: Path, ratios: Mapping[str, float]) -> None:
    """The distance within a class over that between classes, stage by stage."""
    figure = figures.new_figure(max(4.0, 0.75 * len(ratios) + 1.5), 3.8)
    axes = figure.subplots()
    bars = axes.bar(range(len(ratios)), list(ratios.values()), color="#4477aa")
    axes.bar_label(bars, fmt="%.2f", fontsize=8)
    axes.set_xticks(range(len(ratios)), list(ratios), rotation=30, ha="right")
    axes.set(ylabel="mean distance within a class\n/ between classes", title="classes come apart stage by stage")
    figures.save(figure, path)
