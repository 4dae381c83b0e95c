"""Pictures of what classifiers have learned, for the runs themselves and for whoever explains them afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlfx.training import figures


def filters(path: Path, params: Any, channels: int) -> None:
    """The kernels of the first convolution; none are drawn where no kernel takes images of so many channels."""
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4 and leaf.shape[2] == channels]
    if kernels:
        shown = np.moveaxis(np.asarray(kernels[0], np.float32), -1, 0)
        shown = shown if shown.shape[-1] in (1, 3) else shown[..., :1]
        titles = [str(i) for i in range(64)]
        figures.image_grid(path, shown[:64], titles, "filters of the first layer")


def feature_maps(path: Path, image: np.ndarray, label: int, features: Mapping[str, np.ndarray]) -> None:
    """Eight maps of every stage for one image `[H, W, C]`; features `[h, w, K]` by name, in the network's order."""
    panels: list[Any] = []
    for name, value in features.items():
        if value.ndim != 3 or value.shape[0] == 1:
            continue
        row = [(value[..., i], f"{name} {i}") for i in range(min(8, value.shape[-1]))]
        gaps = [(None, "")] * (8 - len(row))
        panels += [(None, "") if panels else (image.mean(-1), f"a {label}"), *row, *gaps]
    shown, titles = zip(*panels, strict=True)
    figures.image_grid(path, shown, titles, "feature maps of one test image", columns=9)
