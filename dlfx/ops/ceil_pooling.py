"""Max-pooling that leaves no pixel out: PyTorch's ceil mode, Caffe's only one."""

from dlfx.ops.pooling import max_pool
from dlfx.types import Array, UserError


def max_pool_ceil(x: Array, window: int, stride: int, padding: int = 0) -> Array:
    """The maximum of every window, the last ones reaching over the edge below and on the right.

    `H' = ceil((H + 2 padding - window) / stride) + 1`, one less if the last window began outside of x and the padding
    above it.

    Args:
      x: `[..., H, W, C]`.
      window: the side of the window.
      stride: the step between windows.
      padding: rows and columns of the smallest value to put around x, at most half of the window.

    Returns:
      `[..., H', W', C]`.

    Raises:
      UserError: if not even one window begins in x.

    Source: PyTorch's `MaxPool2d` with `ceil_mode=True`.
    """
    sides = []
    for side in x.shape[-3:-1]:
        steps = -(-(side + 2 * padding - window) // stride)
        if steps * stride >= side + padding:
            steps -= 1
        if steps < 0:
            raise UserError(f"max-pooling by {window} of stride {stride} leaves nothing of {list(x.shape[-3:-1])}")
        sides.append((padding, padding + max(0, steps * stride + window - side - 2 * padding)))
    return max_pool(x, window, stride, (sides[0], sides[1]))
