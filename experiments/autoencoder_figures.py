"""Figures of autoencoders: rows of images, codes as points, and what principal components would reach."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlfx.data import sources
from dlfx.training import figures

SHOWN = 10  # images in a row


def prepared(source: sources.Source, prepare: Any, most: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """(images `[n, H, W, C]` on the scale [0, 1], labels `[n]`) of a split, at most so many."""
    examples = sources.read_all(source._replace(size=min(source.size, most)))
    return np.asarray(jax.jit(prepare)(examples["image"])), examples["label"]


def one_of_each(labels: np.ndarray) -> np.ndarray:
    """The indices of the first examples of so many classes, filled up with others, `[SHOWN]` at most."""
    first = np.unique(labels, return_index=True)[1]
    return np.concatenate([first, np.setdiff1d(np.arange(len(labels)), first)])[:SHOWN]


def in_parts(function: Any, images: np.ndarray, rows: int = 256) -> Any:
    """The pytree of arrays that a function of images gives, part by part, as NumPy arrays."""
    parts = [function(images[np.arange(i, i + rows) % len(images)]) for i in range(0, len(images), rows)]
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(y) for y in x])[: len(images)], *parts)


def image_rows(path: Path, rows: Mapping[str, np.ndarray], title: str) -> None:
    """Rows of images `[n, H, W, 1 or 3]`, each with its name at the left, all on the scale [0, 1]."""
    columns = max(len(images) for images in rows.values())
    figure = figures.new_figure(0.8 * columns + 1.6, 0.84 * len(rows) + 0.25 * (title.count("\n") + 1) + 0.1)
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axes, image in zip(line, images, strict=False):
            image = np.asarray(image, np.float32).clip(0, 1)
            axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
    figures.save(figure, path)


def code_scatter(path: Path, codes: np.ndarray, labels: np.ndarray, title: str) -> None:
    """Codes `[n, d]` in the plane, coloured by class: the two of them, or their first two principal components."""
    names = ["code 0", "code 1"]
    if codes.shape[1] != 2:
        centred = codes - codes.mean(0)
        _, spread, directions = np.linalg.svd(centred, full_matrices=False)
        share = spread**2 / max((spread**2).sum(), 1e-12)
        codes = centred @ directions[:2].T
        names = [f"component {i} ({share[i]:.0%} of the variance)" for i in range(codes.shape[1])]
        if codes.shape[1] == 1:
            codes, names = np.pad(codes, ((0, 0), (0, 1))), [*names, ""]
    figure = figures.new_figure(6.4, 5.4)
    axes = figure.subplots()
    for label in np.unique(labels):
        points = codes[labels == label]
        axes.scatter(
            points[:, 0], points[:, 1], s=10, color=f"C{label % 10}", label=str(label), alpha=0.7, linewidths=0
        )
    axes.set(xlabel=names[0], ylabel=names[1], title=title)
    axes.grid(alpha=0.3)
    if len(np.unique(labels)) <= 20:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, frameon=False)
    figures.save(figure, path)


def filter_mosaic(path: Path, kernel: np.ndarray, shape: tuple[int, int, int], title: str) -> None:
    """The first 64 columns of a kernel `[H W C, n]`, or of a convolution's `[h, w, C, n]`, each on its own scale.

    Grey is 0, white the largest magnitude of the filter, black its negative.
    """
    filters = np.moveaxis(kernel, -1, 0)[:64].astype(np.float32)
    filters = filters.reshape(-1, *shape) if kernel.ndim == 2 else filters
    filters = filters if filters.shape[-1] in (1, 3) else filters[..., :1]
    filters = 0.5 + filters / (2 * np.abs(filters).max((1, 2, 3), keepdims=True) + 1e-12)
    filters = np.pad(filters.repeat(4, 1).repeat(4, 2), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)
    sheet = figures.mosaic(filters, columns=min(16, len(filters)))
    figure = figures.new_figure(8.0, 8.0 * sheet.shape[0] / sheet.shape[1] + 0.4)
    axes = figure.subplots()
    axes.imshow(sheet)
    axes.axis("off")
    axes.set_title(f"{title}: grey is 0, each on its own scale", fontsize=10)
    figures.save(figure, path)


def principal_error(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """The mean squared error of a pixel of test images projected onto `size` principal components of training images.

    Args:
      train: `[n, H, W, C]`.
      test: `[m, H, W, C]`.
      size: how many components.
    """
    train, test = (images.reshape(len(images), -1).astype(np.float64) for images in (train, test))
    average = train.mean(0)
    directions = np.linalg.eigh(np.cov(train.T))[1][:, ::-1][:, :size]
    away = test - average
    return float(np.square(away - away @ directions @ directions.T).mean())
