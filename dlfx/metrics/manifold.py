"""Fidelity and diversity of a generative model by nearest neighbours in a feature space."""

import jax
import jax.numpy as jnp

from dlfx.types import Array, UserError


def precision_recall(real: Array, generated: Array, k: int = 3, chunk: int = 256) -> dict[str, Array]:
    """Improved precision and recall, density and coverage: how two sets lie in the balls of each other.

    With `B_i` the ball around a point that reaches its k-th nearest neighbour in its own set:
    - precision `(1 / m) #{j: some real ball holds y_j}` and recall `(1 / n) #{i: some generated ball holds x_i}`;
    - density `(1 / (k m)) sum_j #{i: B(x_i) holds y_j}`, 1 in expectation where both sets are of one distribution;
    - coverage `(1 / n) #{i: B(x_i) holds some y_j}`.

    A point on the edge of a ball is in it. Precision and recall are often taken with k = 3, density and coverage, which
    one outlier among the real images sways less, with k = 5.

    Args:
      real: features `[n, D]` of real images.
      generated: features `[m, D]`.
      k: 1 to less than n and m.
      chunk: points handled at once, to bound the memory by `chunk max(n, m)` numbers.

    Returns:
      `precision`, `recall`, `density` and `coverage`, each [].

    Raises:
      UserError: k is too large for the sets, or not positive.

    Source: Kynkaanniemi et al. 2019, Improved Precision and Recall Metric for Assessing Generative Models
      (arXiv:1904.06991), equations 1 and 2; Naeem et al. 2020, Reliable Fidelity and Diversity Metrics for Generative
      Models (arXiv:2002.09797), section 3.
    """
    if not 1 <= k < min(len(real), len(generated)):
        raise UserError(
            f"{k} nearest neighbours need at least 1 and sets of more points than that; there are {len(real)} real and "
            f"{len(generated)} generated"
        )
    # Distances do not change, and lose fewer digits below: the squares of the points are smaller.
    center = real.mean(0)
    real, generated = real - center, generated - center
    real_radii, generated_radii = (_radii(x, k, chunk) for x in (real, generated))

    def of_generated(point: Array) -> Array:
        return (_squared_distances(point, real) <= real_radii).sum()

    def of_real(point_and_radius: tuple[Array, Array]) -> tuple[Array, Array]:
        point, radius = point_and_radius
        distances = _squared_distances(point, generated)
        return (distances <= generated_radii).any(), (distances <= radius).any()

    holding = jax.lax.map(of_generated, generated, batch_size=chunk)
    recalled, covered = jax.lax.map(of_real, (real, real_radii), batch_size=chunk)
    return {
        "precision": (holding > 0).mean(),
        "recall": recalled.mean(),
        "density": (holding / k).mean(),
        "coverage": covered.mean(),
    }


def _radii(points: Array, k: int, chunk: int) -> Array:
    """The squared distance `[n]` of each point to its k-th nearest neighbour, itself left out."""

    def radius(row: Array) -> Array:
        distances = _squared_distances(points[row], points)
        others = jnp.where(jnp.arange(len(points)) == row, jnp.inf, distances)
        return -jax.lax.top_k(-others, k)[0][-1]

    return jax.lax.map(radius, jnp.arange(len(points)), batch_size=chunk)


def _squared_distances(point: Array, points: Array) -> Array:
    """`||x - y||^2` `[n]`. By its expansion, so that a chunk of points is one product of matrices."""
    product = jnp.matmul(points, point, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum((points**2).sum(-1) + (point**2).sum() - 2 * product, 0)
