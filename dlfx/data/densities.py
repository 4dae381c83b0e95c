"""Densities in the plane to draw from without end: mixtures of narrow Gaussians whose modes can be counted."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlfx.types import Stream, UserError, unknown

BATCHES = 0xD1B54A33  # keeps these draws apart from every other use of the seed


class Mixture(NamedTuple):
    """Equal isotropic Gaussians.

    Attributes:
      name: what to call it.
      centers: `[M, 2]` float32.
      std: standard deviation in each coordinate.
    """

    name: str
    centers: np.ndarray
    std: float


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.02) -> Mixture:
    """Gaussians evenly on a circle, the first on the positive x-axis.

    Source: Metz et al. 2017, Unrolled Generative Adversarial Networks (arXiv:1611.02163), appendix A.
    """
    angles = 2 * np.pi * np.arange(modes) / modes
    return Mixture("ring", (radius * np.stack([np.cos(angles), np.sin(angles)], 1)).astype(np.float32), std)


def grid25(spacing: float = 2.0, std: float = 0.05) -> Mixture:
    """25 Gaussians on a square grid around the origin, row by row.

    Source: Srivastava et al. 2017, VEEGAN (arXiv:1705.07761), section 4; its 2D grid.
    """
    line = spacing * np.arange(-2, 3)
    return Mixture("grid25", np.stack(np.meshgrid(line, line), -1).reshape(-1, 2).astype(np.float32), std)


DENSITIES: dict[str, Callable[[], Mixture]] = {"ring": ring, "grid25": grid25}


def make(name: str) -> Mixture:
    """The mixture of that name.

    Raises:
      UserError: if there is none.
    """
    if name not in DENSITIES:
        raise unknown("density", name, DENSITIES)
    return DENSITIES[name]()


def draw(mixture: Mixture, size: int, generator: np.random.Generator) -> np.ndarray:
    """Independent points of a mixture, `[size, 2]` float32."""
    centers = mixture.centers[generator.integers(len(mixture.centers), size=size)]
    return centers + np.float32(mixture.std) * generator.standard_normal((size, 2), np.float32)


def stream(mixture: Mixture, batch_size: int, process: int = 0, processes: int = 1) -> Stream:
    """Fresh points without end: batch i of seed s is `[b, 2]` float32, this process's rows of it.

    Args:
      mixture: that they come from.
      batch_size: points in a batch, over all processes.
      process: this process.
      processes: how many there are.

    Raises:
      UserError: if the processes do not divide the batch.
    """
    if batch_size % processes:
        raise UserError(f"a batch of {batch_size} cannot be shared evenly by {processes} processes")
    share = batch_size // processes

    def host(seed: int, i: int) -> np.ndarray:
        philox = np.random.Philox(key=[seed, BATCHES], counter=[0, 0, 0, i])
        points = draw(mixture, batch_size, np.random.Generator(philox))
        return points[process * share : (process + 1) * share]

    return Stream(host)
