"""What latents hold: reconstructions, the latent plane, ways through it, classes against noise, codes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from dlfx.training import figures

Pixels = np.ndarray


class Coder(NamedTuple):
    """A trained VAE.

    Attributes:
      encode: (images, labels) to (mu, log s^2), both `[B, latent]`.
      decode: (latents, labels) to the means of pixels `[B, H, W, C]`.
      latent: dimensions.
      classes: that it is told of; 0 for none.
    """

    encode: Callable[[Any, Any], Any]
    decode: Callable[[Any, Any], Any]
    latent: int
    classes: int


def draw_vae(directory: Path, coder: Coder, images: Pixels, labels: np.ndarray) -> None:
    """Every figure of a VAE, of test images `[n, H, W, C]`."""
    mean, log_variance = map(np.asarray, coder.encode(images, labels))
    pairs = side_by_side(images[:32], np.asarray(coder.decode(mean[:32], labels[:32])))
    sheet(directory / "reconstructions.png", pairs, 8, "test images, and below each the decoded mean of its latents")
    scatter(directory / "latent.png", mean, labels)
    if coder.latent == 2 and not coder.classes:
        plane(directory / "plane.png", coder)
    interpolations(directory / "interpolations.png", coder, mean, labels)
    traversals(directory / "traversals.png", coder, mean, log_variance, labels)
    if coder.classes:
        noise = np.random.default_rng(0).normal(size=(10, 1, coder.latent)).astype(mean.dtype)
        latents = np.broadcast_to(noise, (10, coder.classes, coder.latent)).reshape(-1, coder.latent)
        grid = np.asarray(coder.decode(latents, np.tile(np.arange(coder.classes), 10)))
        sheet(
            directory / "classes.png", grid, coder.classes, "classes from left to right, each row with the same noise"
        )


def draw_vqvae(directory: Path, there_and_back: Callable[[Any], tuple[Any, Any]], images: Pixels, codes: int) -> None:
    """Every figure of a VQ-VAE, of test images `[n, H, W, C]`: there and back, their codes, the codes' use."""
    found, decoded = map(np.asarray, there_and_back(images))
    pairs = side_by_side(images[:32], decoded[:32])
    sheet(directory / "reconstructions.png", pairs, 8, "test images, and below each what its codes decode to")

    figure = figures.new_figure(8.0, 3.6)
    figure.suptitle("test images, and below each its grid of codes, a colour for every code")
    columns = min(8, len(images))
    axes = figure.subplots(2, columns, squeeze=False)
    for i in range(columns):
        axes[0, i].imshow(images[i].clip(0, 1).squeeze(), cmap="gray", vmin=0, vmax=1)
        axes[1, i].imshow(found[i], cmap="nipy_spectral", vmin=0, vmax=codes - 1, interpolation="nearest")
    for each in axes.flat:
        each.axis("off")
    figures.save(figure, directory / "codes.png")

    share = np.bincount(found.reshape(-1), minlength=codes) / found.size
    figure = figures.new_figure(6.4, 3.2)
    axes = figure.subplots()
    axes.bar(np.arange(codes), np.sort(share)[::-1], width=1.0, edgecolor="white", linewidth=0.3)
    axes.axhline(1 / codes, color="black", linestyle=":", linewidth=1.2, label="if all were alike")
    axes.set(xlabel="codes, the commonest first", ylabel="share of positions")
    axes.set_title(f"{(share > 0).sum()} of {codes} codes occur in {len(images)} test images")
    axes.legend()
    figures.save(figure, directory / "usage.png")


def side_by_side(first: Pixels, second: Pixels, columns: int = 8) -> Pixels:
    """Rows of the first images, each with the row of the second ones below; black where a row is short."""
    rows = -(-len(first) // columns)
    both = np.zeros((rows, 2, columns, *first.shape[1:]), np.float32)
    for k, images in enumerate((first, second)):
        for i, image in enumerate(images):
            both[i // columns, k, i % columns] = image
    return both.reshape(-1, *first.shape[1:])


def sheet(path: Path, images: Pixels, columns: int, title: str, rows: tuple[list[str], str] | None = None) -> None:
    """Images `[n, H, W, C]` on the scale [0, 1] under a title, perhaps with labels of the rows and what they are."""
    pixels = figures.mosaic(images, columns, max(1, 64 // images.shape[1]))
    height, width = pixels.shape[:2]
    inches = max(0.62 * columns, 5.5)
    figure = figures.new_figure(inches + (0.6 if rows else 0), inches * height / width + 0.5)
    axes = figure.subplots()
    axes.imshow(pixels, interpolation="nearest" if width < 100 * inches else "antialiased")
    axes.set_title(title, fontsize=9)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if rows:
        centres = (np.arange(len(rows[0])) + 0.5) * height / len(rows[0])
        axes.set_yticks(centres, rows[0], fontsize=7)
        axes.set_ylabel(rows[1], fontsize=8)
        axes.tick_params(length=0)
    figures.save(figure, path)


def scatter(path: Path, mean: np.ndarray, labels: np.ndarray) -> None:
    """Means of the latents by class: as they are in two dimensions, otherwise on their two principal axes."""
    dimensions = mean.shape[1]
    names = ["first latent", "second latent"]
    if dimensions == 1:
        places = np.stack([mean[:, 0], np.random.default_rng(0).uniform(-1, 1, len(mean))], 1)
        names[1] = "spread out at random"
    elif dimensions == 2:
        places = mean
    else:
        centred = mean - mean.mean(0)
        _, size, axes = np.linalg.svd(centred, full_matrices=False)
        places = centred @ axes[:2].T
        share = size**2 / (size**2).sum()
        names = [f"{name} principal axis, {share[i]:.0%} of the variance" for i, name in enumerate(("first", "second"))]
    figure = figures.new_figure(5.8, 5.0)
    axes = figure.subplots()
    classes = np.unique(labels)
    for label in classes:
        axes.scatter(*places[labels == label].T, s=8, alpha=0.7, label=str(label), color=f"C{label % 10}")
    if 1 < len(classes) <= 20:
        axes.legend(title="class", fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set(xlabel=names[0], ylabel=names[1], title=f"means of the latents of {len(mean)} test images")
    axes.set_aspect("equal", "datalim")
    axes.grid(alpha=0.3)
    figures.save(figure, path)


def plane(path: Path, coder: Coder, side: int = 16) -> None:
    """What two latents decode to, over equal shares of the prior."""
    quantiles = np.asarray(ndtri(jnp.linspace(0.02, 0.98, side)))
    right, up = np.meshgrid(quantiles, quantiles[::-1])
    grid = np.asarray(coder.decode(np.stack([right, up], -1).reshape(-1, 2), np.zeros(side**2, np.int32)))
    sheet(
        path, grid, side, "decoded latents: quantiles 2 % to 98 % of the prior, the first to the right, the second up"
    )


def interpolations(path: Path, coder: Coder, mean: np.ndarray, labels: np.ndarray, columns: int = 10) -> None:
    """From one test image to another, along the line between their latents."""
    pairs = min(6, len(mean) // 2)
    chosen = np.random.default_rng(0).permutation(len(mean))[: 2 * pairs].reshape(pairs, 2)
    t = np.linspace(0, 1, columns, dtype=mean.dtype)[None, :, None]
    latents = (1 - t) * mean[chosen[:, :1]] + t * mean[chosen[:, 1:]]
    told = labels[chosen[:, 0]].repeat(columns)
    grid = np.asarray(coder.decode(latents.reshape(-1, coder.latent), told))
    title = "between pairs of test images, along the line of latents" + (", label of the left" if coder.classes else "")
    sheet(path, grid, columns, title)


def traversals(
    path: Path, coder: Coder, mean: np.ndarray, log_variance: np.ndarray, labels: np.ndarray, columns: int = 9
) -> None:
    """One latent changed at a time, those first that tell most."""
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).mean(0)
    order = np.argsort(-kl, kind="stable")[:10]
    latents = np.broadcast_to(mean[0], (len(order), columns, coder.latent)).copy()
    for row, i in enumerate(order):
        latents[row, :, i] = np.linspace(-3, 3, columns)
    told = np.full(len(order) * columns, labels[0])
    grid = np.asarray(coder.decode(latents.reshape(-1, coder.latent), told))
    names = [f"{i}: {kl[i]:.1f}" for i in order]
    sheet(path, grid, columns, "one latent of a test image from -3 to 3", (names, "latent: nats that it tells"))
