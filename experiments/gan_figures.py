"""Pictures of a GAN: its samples as they grow, the players' losses, neighbours in the data, ways between latents."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlfx.data import densities
from dlfx.training import figures, rundir
from experiments import common, players, snapshots

SHEET = 64  # images of a picture of samples
FRAME = 160  # side of a panel of points, in pixels
DATA, SAMPLES, GROUND = (170, 170, 170), (20, 90, 180), (255, 255, 255)


def draw(
    directory: Path,
    session: common.Session,
    make: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
    latents: np.ndarray,
    labels: np.ndarray | None,
    mixture: densities.Mixture | None,
    train: tuple[np.ndarray, np.ndarray] | None,
    num_classes: int,
    last: int,
    probabilities: bool,
) -> None:
    """Draws all of them into a directory.

    Args:
      directory: of the figures; the snapshots of the evaluations lie in its `samples`.
      session: of the run.
      make: (latents, labels) to the examples of each member `[N, n, ...]`.
      latents: `[n, latent]`, those of the evaluation.
      labels: `[n]` of these, where the generator is told them.
      mixture: the density, if it is one.
      train: the training images `[n, H, W, C]` in [0, 1] and their labels, if it is not.
      num_classes: of the images.
      last: the last step.
      probabilities: whether D is one.
    """
    rows = rundir.read_metrics(session.path)
    players.curves(directory / "players.png", rows, session.seeds, probabilities)
    snapshots.gather(directory / "samples", directory / "samples.gif", last)
    if mixture:
        scatter(directory / "samples.png", make(latents[:2000], None), mixture, session.seeds)
    elif train:
        conditional = num_classes if labels is not None else 0
        pictures(directory, lambda z, y: make(z, y)[0], latents, train[0], conditional)


def last_training_row(session: common.Session) -> dict[str, Any]:
    """The last line of training metrics, empty if there is none."""
    rows = [row for row in rundir.read_metrics(session.path) if row["split"] == "train"]
    return rows[-1] if rows else {}


def scatter(path: Path, points: np.ndarray, mixture: densities.Mixture, run_seeds: tuple[int, ...]) -> None:
    """Samples `[N, n, 2]` over the data, one panel a seed."""
    data = densities.draw(mixture, points.shape[1], np.random.default_rng(0))
    columns = min(5, len(points))
    lines = -(-len(points) // columns)
    figure = figures.new_figure(2.6 * columns if columns > 1 else 5.0, 2.75 * lines if columns > 1 else 5.2)
    figure.suptitle(f"{mixture.name}: data grey, {points.shape[1]} samples blue")
    limit = 1.25 * np.abs(mixture.centers).max()
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(points) :]:
        axes.axis("off")
    for axes, samples, seed in zip(grid.flat, points, run_seeds, strict=False):
        axes.plot(*data.T, ".", color="#999999", markersize=4, alpha=0.5, markeredgewidth=0)
        axes.plot(*samples.T, ".", color="#1f5ab4", markersize=2.5, alpha=0.5, markeredgewidth=0)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", title=f"seed {seed}")
        axes.tick_params(labelsize=7)
    figures.save(figure, path)


def points_frame(points: np.ndarray, mixture: densities.Mixture) -> np.ndarray:
    """One frame of the animation: a panel of dots for each member of `[N, n, 2]`, data below samples, as pixels."""
    data = densities.draw(mixture, 2000, np.random.default_rng(0))
    limit = 1.25 * np.abs(mixture.centers).max()
    panels = []
    for samples in points[:10]:
        panel = np.full((FRAME, FRAME, 3), GROUND, np.uint8)
        for dots, color, reach in ((data, DATA, 2), (samples[:2000], SAMPLES, 0)):
            dots = dots[np.isfinite(dots).all(-1) & (np.abs(dots) < limit).all(-1)]
            columns, rows = ((dots / limit * [1, -1] + 1) / 2 * FRAME).astype(int).T
            for down, right in np.ndindex(2 * reach + 1, 2 * reach + 1):
                y, x = rows + down - reach, columns + right - reach
                panel[y.clip(0, FRAME - 1), x.clip(0, FRAME - 1)] = color
        panels.append(panel / np.float32(255))
    return figures.mosaic(np.stack(panels), min(5, len(panels)), 1 if len(panels) > 2 else 2)


def sheet_labels(num_classes: int) -> np.ndarray:
    """The labels of a picture of samples: one class a column, as far as there is room for eight rows or so."""
    return np.arange(SHEET, dtype=np.int32) % num_classes


def sheet(images: np.ndarray, num_classes: int = 0) -> np.ndarray:
    """Images `[SHEET, H, W, C]` in [0, 1] as one picture, with classes one class a column."""
    columns = num_classes if 0 < num_classes <= 16 else 8
    whole = len(images) // columns * columns
    return figures.mosaic(images[:whole], columns, _scale(images))


def _scale(images: np.ndarray) -> int:
    return max(1, 56 // images.shape[1])


def pictures(
    directory: Path,
    make: Callable[[np.ndarray, np.ndarray | None], np.ndarray],
    latents: np.ndarray,
    train: np.ndarray,
    num_classes: int,
) -> None:
    """Samples, with classes one a column; nearest training images; ways from one latent to another."""
    labels = sheet_labels(num_classes) if num_classes else None
    samples = make(latents[:SHEET], labels)
    figures.picture(directory / "samples.png", sheet(samples, num_classes))

    few = samples[:6]
    away = np.square(few[:, None] - train[None]).reshape(len(few), len(train), -1).sum(-1)
    nearest = np.argsort(away, 1)[:, :7]
    panels = [image for i, sample in enumerate(few) for image in (sample, *train[nearest[i]])]
    said = [text for i in range(len(few)) for text in ("sample", *(f"{np.sqrt(away[i, j]):.2f}" for j in nearest[i]))]
    figures.image_grid(directory / "nearest.png", panels, said, "samples and the training images nearest to them", 8)

    count, across = 8, np.linspace(0, 1, 10)
    starts, ends = latents[:count], latents[count : 2 * count]
    way = np.stack([slerp(starts, ends, t) for t in across], 1).reshape(count * len(across), -1)
    same = np.repeat(np.arange(count, dtype=np.int32) % num_classes, len(across)) if num_classes else None
    made = make(way.astype(latents.dtype), same)
    figures.picture(directory / "interpolation.png", figures.mosaic(made, len(across), _scale(made)))


def slerp(start: np.ndarray, end: np.ndarray, t: float) -> np.ndarray:
    """The way from one latent `[..., D]` to another on a great circle, on which normal latents keep their usual length.

    Source: White 2016, Sampling Generative Networks (arXiv:1609.04468), section 2.1.
    """
    unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (start, end)]
    angle = np.arccos(np.clip((unit[0] * unit[1]).sum(-1, keepdims=True), -1, 1))
    sine = np.maximum(np.sin(angle), 1e-6)
    return np.sin((1 - t) * angle) / sine * start + np.sin(t * angle) / sine * end
