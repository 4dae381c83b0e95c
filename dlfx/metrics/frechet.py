"""The Frechet distance between two sets of features, from sums that add up over batches."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import Array, UserError

Values = Array | np.ndarray


def moments(features: Array, mask: Array | None = None, center: Array | float = 0.0) -> dict[str, Array]:
    """What a batch adds to the mean and the covariance of its set: sums, exact over any split into batches.

    Args:
      features: `[B, D]`.
      mask: `[B]`, 1 for an example that counts, 0 for filling; None counts all.
      center: `[D]`, the same for every batch; taken off before anything is squared. In float32 the covariance keeps
        its digits where this is near the mean, such as the mean of the first batch or of the real images.

    Returns:
      `count` [], `total` `[D]` = `sum_i (x_i - c)`, `products` `[D, D]` = `sum_i (x_i - c)(x_i - c)^T`.
    """
    mask = jnp.ones(len(features), features.dtype) if mask is None else mask
    x = jnp.where(mask[:, None] > 0, features - center, 0)
    products = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)  # accelerators would round x to 10 bits
    return {"count": mask.sum(), "total": x.sum(0), "products": products}


def mean_and_covariance(sums: Mapping[str, Values], center: Values | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The mean `[..., D]` and the unbiased covariance `[..., D, D]`, in float64 on the host, of summed `moments`.

    Raises:
      UserError: of fewer than two examples.
    """
    count, total, products = (np.asarray(sums[name], np.float64) for name in ("count", "total", "products"))
    if (count < 2).any():
        raise UserError(f"a covariance needs at least 2 samples, not {int(count.min())}")
    mean = total / count[..., None]
    covariance = (products - total[..., :, None] * mean[..., None, :]) / (count[..., None, None] - 1)
    return mean + np.asarray(center, np.float64), covariance


def frechet_distance(mean1: Values, covariance1: Values, mean2: Values, covariance2: Values) -> np.ndarray:
    """The squared Frechet distance between two Gaussians; of Inception-v3 features it is the FID.

    `||m1 - m2||^2 + tr(C1 + C2 - 2 (C1 C2)^{1/2})`

    The trace of the root is that of `(C1^{1/2} C2 C1^{1/2})^{1/2}`, the sum of the singular values of
    `C1^{1/2} C2^{1/2}`. These come out to rounding of the largest, also where the covariances are singular; square
    roots of eigenvalues that should be zero would not. On the host in float64, as traces of thousands are subtracted
    whose difference may be near zero, and accelerators lack the type.

    Args:
      mean1: `[..., D]`; leading axes, such as those of a population, are independent problems.
      covariance1: `[..., D, D]`, symmetric, of any rank.
      mean2: `[..., D]`.
      covariance2: `[..., D, D]`.

    Returns:
      `[...]` float64, at least 0.

    Source: Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule (arXiv:1706.08500), equation 6; Dowson and
      Landau 1982, The Frechet distance between multivariate normal distributions.
    """
    m1, c1, m2, c2 = (np.asarray(x, np.float64) for x in (mean1, covariance1, mean2, covariance2))
    root1, root2 = _factor(c1), _factor(c2)
    overlap = np.linalg.svd(np.swapaxes(root1, -1, -2) @ root2, compute_uv=False).sum(-1)
    traces = np.trace(c1, axis1=-2, axis2=-1) + np.trace(c2, axis1=-2, axis2=-1)
    return np.maximum(((m1 - m2) ** 2).sum(-1) + traces - 2 * overlap, 0.0)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """A with A A^T the covariance. It differs from the symmetric root by a rotation, which singular values ignore."""
    values, vectors = np.linalg.eigh(covariance)
    # The covariance of fewer samples than features has zeros among these, each rounded either way: how far, the most
    # negative one tells, whether the sums were of float64 or of float32. Their roots would add up.
    rounding = values.shape[-1] * np.finfo(np.float64).eps * np.abs(values).max(-1)
    noise = np.maximum(rounding, -4 * values.min(-1))[..., None]
    return vectors * np.sqrt(np.where(values > noise, values, 0.0))[..., None, :]


def frechet_distance_of(features1: Values, features2: Values) -> float:
    """The Frechet distance between two sets of features `[n, D]` and `[m, D]`, all of it in float64 on the host."""

    def of(features: Values) -> tuple[np.ndarray, np.ndarray]:
        x = np.asarray(features, np.float64)
        center = x.mean(0)
        x = x - center
        return mean_and_covariance({"count": np.array(len(x)), "total": x.sum(0), "products": x.T @ x}, center)

    return float(frechet_distance(*of(features1), *of(features2)))
