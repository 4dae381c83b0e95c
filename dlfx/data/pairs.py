"""Pairs of images made of single ones, to learn translations from: with the pairs, or with two sets apart."""

from collections.abc import Callable
from typing import Any

import numpy as np

from dlfx.data.batches import order, process_slice
from dlfx.types import Array, Batch, Stream, UserError

OTHER_SET = 1 << 32  # added to the seed, which is below 2**31: the order of the second set, when there are no pairs


def edges(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(outlines: the brightest of the 3x3 pixels around less the pixel itself; the images)."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    around = [padded[:, u : u + height, v : v + width] for u in range(3) for v in range(3)]
    return np.max(around, axis=0) - images, images


def noise(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(the images under Gaussian noise of standard deviation 0.5, clipped to [0, 1]; the images)."""
    drawn = np.random.Generator(np.random.Philox(key=seed)).normal(0, 0.5, images.shape)
    return (images + drawn).clip(0, 1).astype(np.float32), images


def slant(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(each image sheared upright; the same sheared by half a pixel a row to the right towards its top).

    Upright: without correlation between rows and columns, its pixels taken as masses.
    """
    height, width = images.shape[1:3]
    rows, columns = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    mass = images.sum(-1) + 1e-9
    total = mass.sum((1, 2))
    down = (mass * rows[:, None]).sum((1, 2)) / total
    right = (mass * columns).sum((1, 2)) / total
    y, x = rows[:, None] - down[:, None, None], columns - right[:, None, None]
    lean = (mass * y * x).sum((1, 2)) / (mass * y**2).sum((1, 2)).clip(1e-9)  # columns to the right for a row down
    grid = np.arange(width) + np.zeros((len(images), height, 1))
    upright = from_columns(images, grid + lean[:, None, None] * y)
    return upright, from_columns(upright, grid + 0.5 * rows[:, None])


def turn(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(the images as if painted on an upright cylinder that is turned by 40 degrees; the images).

    What the turn brings into view from behind is filled with the edge.
    """
    width = images.shape[2]
    across = np.linspace(-1, 1, width) * 0.98
    angle = np.arcsin(across) + np.deg2rad(40)
    columns = np.where(angle < np.pi / 2, (np.sin(angle) / 0.98 + 1) / 2 * (width - 1), width - 1)
    return from_columns(images, np.broadcast_to(columns, images.shape[:3])), images


def from_columns(images: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Every pixel taken from its row at another column, between two columns linearly, beyond the edges from the edge.

    Args:
      images: `[n, H, W, C]`.
      columns: `[n, H, W]`, where to take each pixel from.
    """
    width = images.shape[2]
    columns = columns.clip(0, width - 1)
    left = np.floor(columns).astype(int).clip(0, max(width - 2, 0))
    part = (columns - left)[..., None].astype(np.float32)
    take = [np.take_along_axis(images, (left + i).clip(0, width - 1)[..., None], 2) for i in range(2)]
    return (1 - part) * take[0] + part * take[1]


TASKS: dict[str, Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]] = {
    "edges": edges,
    "noise": noise,
    "slant": slant,
    "turn": turn,
}


def stored(images: np.ndarray) -> np.ndarray:
    """Images `[n, H, W, C]` in [0, 1] as rows of bytes `[n, H W C]`."""
    return np.round(255 * images.clip(0, 1)).astype(np.uint8).reshape(len(images), -1)


def _fetch(shapes: dict[str, tuple[int, ...]], dtype: Any) -> Callable[[Any, Batch], Batch]:
    def fetch(arrays: Any, batch: Batch) -> Batch:
        def images(side: str) -> Array:
            rows = batch.get("index", batch.get(side))
            return arrays[side][rows].reshape(*rows.shape, *shapes[side]).astype(dtype) / 127.5 - 1

        rest = {name: value for name, value in batch.items() if name == "mask"}
        return {"a": images("a"), "b": images("b"), **rest}

    return fetch


def training_stream(
    a: np.ndarray,
    b: np.ndarray,
    batch_size: int,
    paired: bool,
    dtype: Any,
    process: int = 0,
    processes: int = 1,
) -> Stream:
    """Shuffled batches `{"a": [B, H, W, C], "b": [B, H, W, C']}` in [-1, 1] without end.

    Args:
      a: images `[n, H, W, C]` in [0, 1].
      b: images `[m, H, W, C']` in [0, 1]; with pairs m = n, and row i belongs to row i of a.
      batch_size: rows in a batch, over all processes.
      paired: whether row i of a batch is a pair; otherwise each side has an order of its own.
      dtype: of the images.
      process: this process.
      processes: how many there are.

    Raises:
      UserError: if a batch is larger than a set, or the processes do not divide it.
    """
    smallest = min(len(a), len(b))
    if not 1 <= batch_size <= smallest:
        raise UserError(f"batch size {batch_size} is not possible: there are {smallest} training images on a side")
    mine = process_slice(batch_size, process, processes)

    def host(seed: int, i: int) -> Batch:
        first = order(seed, i, batch_size, len(a))[mine].astype(np.int32)
        if paired:
            return {"index": first}
        return {"a": first, "b": order(seed + OTHER_SET, i, batch_size, len(b))[mine].astype(np.int32)}

    arrays = {"a": stored(a), "b": stored(b)}
    return Stream(host, arrays, _fetch({"a": a.shape[1:], "b": b.shape[1:]}, dtype))


def evaluation_stream(
    a: np.ndarray, b: np.ndarray, batch_size: int, dtype: Any, process: int = 0, processes: int = 1
) -> tuple[Stream, int]:
    """Row i of a with row i of b, once, in order, as (stream, number of batches), the last one filled up and masked."""
    mine = process_slice(batch_size, process, processes)
    size = min(len(a), len(b))

    def host(seed: int, i: int) -> Batch:
        index = np.arange(i * batch_size, (i + 1) * batch_size)[mine]
        real = index < size
        return {"index": np.where(real, index, 0).astype(np.int32), "mask": real.astype(np.float32)}

    arrays = {"a": stored(a), "b": stored(b)}
    return Stream(host, arrays, _fetch({"a": a.shape[1:], "b": b.shape[1:]}, dtype)), -(-size // batch_size)
