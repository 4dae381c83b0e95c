"""LeNet-5: the form of today's textbooks and the form of 1998."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlfx.models.classification.interface import at_least_float32
from dlfx.nn.conv_norm import scaled
from dlfx.nn.convolution import Conv
from dlfx.ops.convolution import conv_general_dilated
from dlfx.ops.pooling import avg_pool, max_pool
from dlfx.types import Array, Key, UserError

# Which maps of S2 each of the 16 maps of C3 reads (the paper's Table I): six contiguous threes, six contiguous fours,
# three broken fours, and all.
C3_INPUTS = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

# The targets of F6, 0 to 9 from left to right, 7 wide and 12 high. The paper prints its own only as a picture (Figure
# 3): these are drawn after its style, not copied from it.
DIGITS = """
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ...###. ##..... .##...# .....## ##...## ##...##
##...## .####.. .....## .....## ...###. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## ..#.##. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. .....## .....## ..#.##. ######. ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. .#..##. .....## ##.###. ...##.. .#####. ##..###
##...## ...##.. ...##.. ..####. .#..##. .....## ###..## ...##.. .#####. .###.##
##...## ...##.. ..##... .....## #...##. .....## ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. .....## ##...## .##.... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## .##.... ##...## #...##.
..###.. .###### ####### .#####. ....##. .#####. .#####. .##.... .#####. .####..
"""


def digit_codes() -> np.ndarray:
    """The codes of the ten digits, `[10, 84]`: their bitmaps row by row, ink +1, paper -1."""
    rows = [line.split() for line in DIGITS.split("\n") if line]  # [12][10] strings of 7
    ink = np.array([["".join(row[digit] for row in rows)] for digit in range(10)]).view("U1")
    return np.where(ink == "#", np.float32(1), np.float32(-1))


class LeNet5(nn.Module):
    """LeNet-5 as it is taught today: full C3, ReLU, max-pooling, a linear output.

    `conv 5x5x6 - pool 2 - conv 5x5x16 - pool 2 - dense 120 - dense 84 - dense num_classes`, 61,706 parameters for
    32x32x1 images and 10 classes.

    Args (of the call):
      images: `[B, H, W, C]`, H and W multiples of 4 of at least 16, such as 28 and 32.
      train: without effect, nothing here depends on it.

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features after their activations: `c1 [B, H-4, W-4, 6]`,
      `s2`, `c3`, `s4`, `c5 [B, 120]`, `f6 [B, 84]`.

    Raises:
      UserError: for images of another size.

    Source: LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition, section
      II-B, modernised.
    """

    num_classes: int = 10
    width: float = 1.0  # a factor on all channels and hidden units
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # every model takes it; of no use here, for want of batch norm

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        if images.ndim != 4 or any(side % 4 or side < 16 for side in images.shape[1:3]):
            raise UserError(
                "lenet5 takes images [B, H, W, C] whose sides are multiples of 4 and at least 16, such as 28x28 or "
                f"32x32; got {list(images.shape)}"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Any = partial(Conv, padding="VALID", **dtypes)
        wide = partial(scaled, width=self.width)
        c1 = nn.relu(conv(wide(6), (5, 5), name="c1")(images))
        s2 = max_pool(c1, 2)
        c3 = nn.relu(conv(wide(16), (5, 5), name="c3")(s2))
        s4 = max_pool(c3, 2)
        c5 = nn.relu(nn.Dense(wide(120), name="c5", **dtypes)(s4.reshape(len(s4), -1)))
        f6 = nn.relu(nn.Dense(wide(84), name="f6", **dtypes)(c5))
        logits = nn.Dense(self.num_classes, name="output", **dtypes)(f6)
        return at_least_float32(logits), {"c1": c1, "s2": s2, "c3": c3, "s4": s4, "c5": c5, "f6": f6}


class LeNet5Of1998(nn.Module):
    """LeNet-5 as published: trainable subsampling, sparse C3, radial basis outputs; 60,000 trained parameters.

    `logits_k = -||f6 - code_k||^2`, the negative of the paper's output `y_k` (equation 7), where the codes are fixed
    bitmaps of the digits, see `DIGITS`. The mean of `-logits[label]` is the paper's first loss (equation 8). Softmax
    cross-entropy of the logits is its discriminative loss (equation 9) without the rubbish class, j to infinity;
    with a further logit of constant -j it is that loss exactly. Parameters by layer: C1 156, S2 12, C3 1,516, S4 32,
    C5 48,120, F6 10,164. The paper scales images so that paper is -0.1 and ink 1.175.

    Args (of the call):
      images: `[B, 32, 32, 1]`.
      train: without effect, nothing here depends on it.

    Returns:
      The logits `[B, 10]`, at least float32, and the squashed features `c1 [B, 28, 28, 6]`, `s2 [B, 14, 14, 6]`,
      `c3 [B, 10, 10, 16]`, `s4 [B, 5, 5, 16]`, `c5 [B, 120]`, `f6 [B, 84]`.

    Raises:
      UserError: for images of another size, a number of classes other than 10, or a width other than 1.

    Source: LeCun, Bottou, Bengio and Haffner 1998, Gradient-Based Learning Applied to Document Recognition, sections
      II-B and II-C, and appendix A (squashing, initial weights).
    """

    num_classes: int = 10
    width: float = 1.0  # every model takes it; this one has no other
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # every model takes it; of no use here, for want of batch norm

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        if images.shape[1:] != (32, 32, 1):
            raise UserError(f"lenet5_1998 takes images [B, 32, 32, 1]; got {list(images.shape)}")
        if self.num_classes != 10:
            raise UserError(f"lenet5_1998 has the codes of the 10 digits; got {self.num_classes} classes")
        if self.width != 1:
            raise UserError(
                f"lenet5_1998 has a table of connections between its channels, and so width 1; got {self.width}"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Any = partial(Conv, padding="VALID", **dtypes)
        c1 = squash(conv(6, (5, 5), kernel_init=uniform(2.4 / 25), name="c1")(images))
        s2 = squash(Subsampling(name="s2", **dtypes)(c1))
        c3 = squash(SparseConv(C3_INPUTS, (5, 5), name="c3", **dtypes)(s2))
        s4 = squash(Subsampling(name="s4", **dtypes)(c3))
        # C5 is a convolution whose kernel covers its whole input: a full connection.
        c5 = squash(nn.Dense(120, kernel_init=uniform(2.4 / 400), name="c5", **dtypes)(s4.reshape(len(s4), -1)))
        f6 = squash(nn.Dense(84, kernel_init=uniform(2.4 / 120), name="f6", **dtypes)(c5))
        distances = at_least_float32(f6)[:, None, :] - digit_codes()[None, :, :]
        return -(distances**2).sum(-1), {"c1": c1, "s2": s2, "c3": c3, "s4": s4, "c5": c5, "f6": f6}


class Subsampling(nn.Module):
    """S2 and S4: `a sum_{2x2} x + b` with one trained a and b for each map, `[B, H, W, C]` to `[B, H/2, W/2, C]`."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        coefficient = self.param("coefficient", uniform(2.4 / 4), x.shape[-1:], self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        return 4 * avg_pool(x, 2) * coefficient.astype(self.dtype) + bias.astype(self.dtype)


class SparseConv(nn.Module):
    """C3: a VALID convolution with one kernel for each connected pair of maps, `[B, H, W, C]` to `[B, H', W', O]`.

    Only the connections are parameters: `kernel [kh, kw, connections]` and `bias [O]`.
    """

    inputs: Sequence[Sequence[int]]  # of each output map, the input maps that it reads
    kernel_size: tuple[int, int]
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        sources = np.concatenate([np.array(maps) for maps in self.inputs])
        sinks = np.repeat(np.arange(len(self.inputs)), [len(maps) for maps in self.inputs])
        fan_in = np.prod(self.kernel_size) * np.bincount(sinks)[sinks]
        kernel = self.param("kernel", uniform(2.4 / fan_in), (*self.kernel_size, len(sinks)), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (len(self.inputs),), self.param_dtype)
        dense = jnp.zeros((*self.kernel_size, x.shape[-1], len(self.inputs)), self.dtype)
        dense = dense.at[:, :, sources, sinks].set(kernel.astype(self.dtype), unique_indices=True)
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = conv_general_dilated(x.astype(self.dtype), dense, (1, 1), "VALID", dimension_numbers=dimensions)
        return y + bias.astype(self.dtype)


def squash(x: Array) -> Array:
    """The paper's activation `A tanh(S x)`, with A = 1.7159 and S = 2/3 so that f(1) = 1 and f(-1) = -1."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def uniform(limit: float | np.ndarray) -> nn.initializers.Initializer:
    """The initializer that draws from `[-limit, limit)`; the paper's limit is 2.4 / fan-in (appendix A).

    An array gives each entry of the last axis its own limit.
    """

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.random.uniform(key, tuple(shape), dtype, -1, 1) * jnp.asarray(limit, dtype)

    return init
