"""The padding that keeps the size of an image, where there is one."""

from dlfx.ops.pooling import Padding, Pair
from dlfx.types import UserError


def same_padding(kernel: Pair, dilation: Pair = 1) -> Padding:
    """As many rows and columns on each side as let a convolution of stride 1 keep its size: `d (k - 1) / 2`.

    Args:
      kernel: (height, width), or one number for both.
      dilation: the steps (down, right) between taps.

    Returns:
      Rows (above, below) and columns (left, right).

    Raises:
      UserError: for a side below 1, or where one side would need a row more than the other: libraries put it in
        different places, so that "same" would be another network in each.

    Source: Dumoulin and Visin 2016 (arXiv:1603.07285), relationship 3, with the dilated kernel of section 5.1.
    """
    sizes, rates = ((pair, pair) if isinstance(pair, int) else pair for pair in (kernel, dilation))
    if min(*sizes, *rates) < 1:
        raise UserError(f"a kernel of {sizes} with dilation {rates} is not possible: all must be at least 1")
    extra = [rate * (size - 1) for size, rate in zip(sizes, rates, strict=True)]
    if any(rows % 2 for rows in extra):
        raise UserError(
            f"'same' padding is ambiguous for an even kernel: {sizes[0]} x {sizes[1]} with dilation {rates} covers "
            f"{extra[0] + 1} x {extra[1] + 1} pixels and has no middle. Take an odd kernel or give the padding"
        )
    return (extra[0] // 2, extra[0] // 2), (extra[1] // 2, extra[1] // 2)
