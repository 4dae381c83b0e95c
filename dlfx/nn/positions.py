"""What tells a network that looks everywhere at once where a token stands: sinusoidal, learned and rotary positions."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.types import Array, UserError

KINDS = ("sinusoidal", "learned", "rotary")


def sinusoidal(positions: Array, features: int, dtype: Any = jnp.float32) -> Array:
    """Sines and cosines of wavelengths from 2 pi to 10,000 times that, to be added to embeddings.

    `PE(p, 2i) = sin(p / 10000^(2i / D)), PE(p, 2i + 1) = cos(p / 10000^(2i / D))`

    PE(p + k) is a rotation of PE(p) that depends on k alone, and all PE(p) are of the same length, sqrt(D / 2).

    Args:
      positions: `[...]`, whole numbers from 0.
      features: D, even.
      dtype: of the result; angles are float32 at least.

    Returns:
      `[..., D]`.

    Raises:
      UserError: for an odd D.

    Source: Vaswani et al. 2017, Attention Is All You Need (arXiv:1706.03762), section 3.5.
    """
    angles = _angles(positions, features, dtype)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*angles.shape[:-1], features).astype(dtype)


def rotary(x_BTHD: Array, positions: Array) -> Array:
    """Every pair of features turned by an angle that grows with the position.

    `(x_2i, x_2i+1) -> (x_2i cos a - x_2i+1 sin a, x_2i sin a + x_2i+1 cos a), a = p / 10000^(2i / D)`

    The inner product of a query at p and a key at s, both turned, depends on p - s and not on p or s alone.

    Args:
      x_BTHD: queries or keys, D even.
      positions: `[T]`.

    Returns:
      `[B, T, H, D]`, of the type of x.

    Raises:
      UserError: for an odd D.

    Source: Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding (arXiv:2104.09864), equation
      34.
    """
    angles = _angles(positions, x_BTHD.shape[-1], x_BTHD.dtype)[:, None, :]
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    even, odd = x_BTHD[..., ::2], x_BTHD[..., 1::2]
    turned = jnp.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1)
    return turned.reshape(x_BTHD.shape).astype(x_BTHD.dtype)


class LearnedPositions(nn.Module):
    """A trained vector for each position, positions `[...]` to `[..., features]`.

    Positions of `context` and beyond, which have no vector, give NaN.

    Source: Gehring et al. 2017, Convolutional Sequence to Sequence Learning (arXiv:1705.03122), section 3.1.
    """

    context: int  # how many positions there are
    features: int
    embedding_init: Any = nn.initializers.normal(0.02)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, positions: Array) -> Array:
        table = self.param("embedding", self.embedding_init, (self.context, self.features), self.param_dtype)
        return table.at[positions].get(mode="fill", fill_value=jnp.nan).astype(self.dtype)


def _angles(positions: Array, features: int, dtype: Any) -> Array:
    """`p / 10000^(2i / D)`, `[..., D / 2]`, float32 at least: in bfloat16 neighbours would fall on one another."""
    if features % 2:
        raise UserError(f"positions turn pairs of features, so there is an even number of them; got {features}")
    exact = jnp.promote_types(dtype, jnp.float32)
    return positions[..., None].astype(exact) * 10000.0 ** (-jnp.arange(0, features, 2, dtype=exact) / features)
