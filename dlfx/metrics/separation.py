"""How far apart the classes lie in a space of features."""

import numpy as np

from dlfx.types import UserError


def class_separation(features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean distances between examples of one class and of two, and their ratio.

    intra = mean |x_i - x_j| over pairs of one class, i != j; inter over pairs of two classes; ratio = intra / inter.
    0 is perfect, 1 means that the classes are nowhere to be seen.

    Args:
      features: `[N, ...]`, flattened to `[N, D]`.
      labels: `[N]`.

    Returns:
      `intra`, `inter` and `ratio`.

    Raises:
      UserError: unless there are two classes and one of them has two examples.
    """
    rows = np.asarray(features, np.float64).reshape(len(features), -1)
    labels = np.asarray(labels)
    same = labels[:, None] == labels[None, :]
    pairs = ~np.eye(len(rows), dtype=bool)
    if not (same & pairs).any() or same.all():
        raise UserError(
            f"distances within and between classes need two classes and a pair in one; got {len(rows)} rows"
        )
    squares = (rows**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * rows @ rows.T, 0))
    intra, inter = distances[same & pairs].mean(), distances[~same].mean()
    return {"intra": float(intra), "inter": float(inter), "ratio": float(intra / inter)}
