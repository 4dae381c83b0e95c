"""VQ-VAE: a convolutional encoder and decoder around a grid of discrete codes, and a prior over such grids."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.generative.vae import FINE, Conv, ConvTop, ConvTrunk
from dlfx.types import Array


class VQVAE(nn.Module):
    """The networks on both sides of the codes, with the prior over them.

    Source: van den Oord, Vinyals and Kavukcuoglu 2017, Neural Discrete Representation Learning (arXiv:1711.00937).
    """

    shape: tuple[int, int, int]  # (H, W, C) of images
    codes: int  # K, the size of the codebook
    width: int  # D, of a code's vector
    widths: Sequence[int] = (32, 64)  # each halves the sides
    blocks: int = 1
    prior_hidden: int = 128
    variance: float | None = 1.0  # of pixels in a Gaussian likelihood; None learns it
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.trunk = ConvTrunk(self.widths, self.blocks, **types)
        self.narrow = nn.Dense(self.width, **types)
        self.widen = Conv(self.widths[-1], **types)
        self.top = ConvTop(self.shape, self.widths, self.blocks, **types)
        self.code_prior = CodePrior(self.codes, self.prior_hidden, **types)
        if self.variance is None:
            self.log_variance = self.param("log_variance", FINE, (), self.param_dtype)

    def __call__(self, images: Array) -> tuple[Array, Array]:
        """Touches every parameter, for `init`."""
        vectors = self.encode(images)
        return self.decode(vectors)[0], self.prior(jnp.zeros(vectors.shape[:-1], jnp.int32))

    def encode(self, images: Array) -> Array:
        """Images `[B, H, W, C]` to the vectors `[B, h, w, D]` that look for their nearest code, float32 at least."""
        x = self.narrow(self.trunk(images.astype(self.dtype)))
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))

    def decode(self, vectors: Array) -> tuple[Array, Array]:
        """Vectors of codes `[B, h, w, D]` to logits or means `[B, H, W, C]` and the log-variance `[]`."""
        x = self.top(self.widen(vectors.astype(self.dtype)))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.variance is None:
            return x, self.log_variance.astype(x.dtype)
        return x, jnp.log(jnp.asarray(self.variance, x.dtype))

    def prior(self, codes: Array) -> Array:
        """Codes `[B, h, w]` to the logits `[B, h, w, K]` of each given those before it, in rows from the top left."""
        logits = self.code_prior(codes.reshape(len(codes), -1))
        return logits.reshape(*codes.shape, -1)


class CodePrior(nn.Module):
    """An autoregressive categorical distribution with one hidden layer, of categorical NADE's form.

    `log p(c) = sum_i log softmax(U_i h_i + b_i)[c_i]`, `h_i = silu(a + sum_{j < i} A_j[c_j])`

    The sums over all earlier positions are one cumulative sum.

    Source: Larochelle and Murray 2011, The Neural Autoregressive Distribution Estimator, equations 1 to 4; its output
      weights of one position for a categorical variable: Uria et al. 2016 (arXiv:1605.02226), section 3.
    """

    codes: int
    hidden: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, codes: Array) -> Array:
        """Codes `[B, N]` to logits `[B, N, K]`, float32 at least."""
        positions = codes.shape[1]
        begin = nn.initializers.normal(positions**-0.5)
        table = self.param("table", begin, (positions, self.codes, self.hidden), self.param_dtype)
        offset = self.param("offset", nn.initializers.zeros, (self.hidden,), self.param_dtype)
        weights = self.param(
            "weights",
            nn.initializers.variance_scaling(0.1, "fan_in", "normal", batch_axis=0),
            (positions, self.hidden, self.codes),
            self.param_dtype,
        )
        bias = self.param("bias", nn.initializers.zeros, (positions, self.codes), self.param_dtype)
        seen = table[jnp.arange(positions), codes].astype(self.dtype)  # [B, N, hidden]
        before = jnp.cumsum(seen, 1) - seen + offset.astype(self.dtype)
        logits = jnp.einsum("bnh,nhk->bnk", nn.silu(before), weights.astype(self.dtype)) + bias.astype(self.dtype)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
