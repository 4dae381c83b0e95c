"""Functions of two variables to try descent on, with all their minima."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from dlfx.types import Array

Point = tuple[float, float]


class Surface(NamedTuple):
    """A function to minimise.

    Attributes:
      value: `[..., 2]` to `[...]`.
      minima: the points where it is least.
      least: its value there.
      start: where descent usually begins.
      box: (left, right, bottom, top) of what is worth looking at.
    """

    value: Callable[[Array], Array]
    minima: tuple[Point, ...]
    least: float
    start: Point
    box: tuple[float, float, float, float]


def rosenbrock(x: Array) -> Array:
    """`(1 - x)^2 + 100 (y - x^2)^2`: a bent valley whose floor is a thousand times flatter than its walls.

    Args:
      x: `[..., 2]`.

    Returns:
      `[...]`.

    Source: Rosenbrock 1960, An Automatic Method for Finding the Greatest or Least Value of a Function.
    """
    return (1 - x[..., 0]) ** 2 + 100 * (x[..., 1] - x[..., 0] ** 2) ** 2


def beale(x: Array) -> Array:
    """`sum_i (c_i - x (1 - y^i))^2` with c = 1.5, 2.25, 2.625: flat in the middle, steep at the corners.

    Args:
      x: `[..., 2]`.

    Returns:
      `[...]`.

    Source: More, Garbow and Hillstrom 1981, Testing Unconstrained Optimization Software, problem 5.
    """
    powers = x[..., 1, None] ** jnp.arange(1, 4)
    return ((jnp.array([1.5, 2.25, 2.625], x.dtype) - x[..., 0, None] * (1 - powers)) ** 2).sum(-1)


def saddle(x: Array) -> Array:
    """`x^2 / 2 + y^4 / 4 - y^2 / 2`: a saddle at the origin between two minima.

    On the line y = 0 the gradient points along that line: what begins there without noise ends in the saddle.

    Args:
      x: `[..., 2]`.

    Returns:
      `[...]`.

    Source: Nesterov 2004, Introductory Lectures on Convex Optimization, example 1.2.2.
    """
    return x[..., 0] ** 2 / 2 + x[..., 1] ** 4 / 4 - x[..., 1] ** 2 / 2


SURFACES: dict[str, Surface] = {
    "rosenbrock": Surface(rosenbrock, ((1.0, 1.0),), 0.0, (-1.2, 1.0), (-2.0, 2.0, -1.0, 3.0)),
    "beale": Surface(beale, ((3.0, 0.5),), 0.0, (1.0, 1.5), (-1.0, 4.5, -2.0, 2.5)),
    "saddle": Surface(saddle, ((0.0, 1.0), (0.0, -1.0)), -0.25, (1.5, 1e-3), (-1.8, 1.8, -1.6, 1.6)),
}
