"""Variational autoencoders: dense and convolutional encoders and decoders, with or without a label to depend on."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import Array, UserError

HE = nn.initializers.he_normal()
FINE = nn.initializers.constant(-4.0)  # a learned log-variance begins low: where details count, latents come into use


class VAE(nn.Module):
    """The two networks of a variational autoencoder: q(z | x) = N(mu(x), diag s^2(x)) and p(x | z).

    Where `num_classes` is not 0 both also depend on the label: a one-hot vector beside what they take.

    Source: Kingma and Welling 2013, Auto-Encoding Variational Bayes (arXiv:1312.6114), section 3; with a label: Sohn,
      Lee and Yan 2015, Learning Structured Output Representation using Deep Conditional Generative Models.
    """

    encoder: nn.Module  # (images [B, H, W, C], condition [B, K] or None) to features [B, F]
    decoder: nn.Module  # latents and condition [B, latent + K] to [B, H, W, C]
    latent: int
    num_classes: int = 0
    variance: float | None = 1.0  # of pixels in a Gaussian likelihood; None learns it
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        if self.latent < 1:
            raise UserError(f"a latent of {self.latent} dimensions is not possible; it has at least 1")
        self.head = nn.Dense(2 * self.latent, dtype=self.dtype, param_dtype=self.param_dtype)
        if self.variance is None:
            self.log_variance = self.param("log_variance", FINE, (), self.param_dtype)

    def __call__(self, images: Array, labels: Array) -> Array:
        """Images `[B, H, W, C]` as they are decoded from the mean of their latents."""
        return self.decode(self.encode(images, labels)[0], labels)[0]

    def encode(self, images: Array, labels: Array) -> tuple[Array, Array]:
        """Images `[B, H, W, C]` and labels `[B]` to mu and log s^2, both `[B, latent]`, float32 at least."""
        head = _exact(self.head(self.encoder(images.astype(self.dtype), self._condition(labels))))
        return head[:, : self.latent], head[:, self.latent :]

    def decode(self, latents: Array, labels: Array) -> tuple[Array, Array]:
        """Latents `[B, latent]` and labels `[B]` to logits or means `[B, H, W, C]` and the log-variance `[]`."""
        condition = self._condition(labels)
        inputs = latents.astype(self.dtype)
        if condition is not None:
            inputs = jnp.concatenate([inputs, condition], -1)
        outputs = _exact(self.decoder(inputs))
        if self.variance is None:
            return outputs, self.log_variance.astype(outputs.dtype)
        return outputs, jnp.asarray(math.log(self.variance), outputs.dtype)

    def _condition(self, labels: Array) -> Array | None:
        return jax.nn.one_hot(labels, self.num_classes, dtype=self.dtype) if self.num_classes else None


def _exact(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class DenseEncoder(nn.Module):
    """Dense layers over the pixels and the condition."""

    hidden: Sequence[int] = (500,)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, condition: Array | None) -> Array:
        x = images.reshape(len(images), -1)
        if condition is not None:
            x = jnp.concatenate([x, condition], -1)
        for size in self.hidden:
            x = nn.relu(nn.Dense(size, kernel_init=HE, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        return x


class DenseDecoder(nn.Module):
    """Dense layers to the pixels."""

    shape: tuple[int, int, int]  # (H, W, C)
    hidden: Sequence[int] = (500,)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for size in self.hidden:
            x = nn.relu(nn.Dense(size, kernel_init=HE, dtype=self.dtype, param_dtype=self.param_dtype)(x))
        x = nn.Dense(math.prod(self.shape), dtype=self.dtype, param_dtype=self.param_dtype)(x)
        return x.reshape(-1, *self.shape)


class Conv(nn.Module):
    """A 3x3 convolution that keeps the sides, or with stride 2 halves them, rounding up."""

    features: int
    strides: int = 1
    kernel_init: Any = HE
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return nn.Conv(
            self.features,
            (3, 3),
            self.strides,
            padding=1,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=conv_general_dilated,
        )(x)


class Residual(nn.Module):
    """`x + f(x)` with f two convolutions, each after a SiLU. At first f is 0, in place of batch norm."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Conv(x.shape[-1], **types)(nn.silu(x))
        return x + Conv(x.shape[-1], kernel_init=nn.initializers.zeros, **types)(nn.silu(y))


class ConvTrunk(nn.Module):
    """Images to feature maps: for each width a convolution of stride 2 and residual blocks.

    Returns:
      `[B, ceil(H / 2^n), ceil(W / 2^n), widths[-1]]` for n widths, after a SiLU.

    Source: the residual encoder without batch norm of Kingma et al. 2016, Improving Variational Inference with Inverse
      Autoregressive Flow (arXiv:1606.04934), appendix C, smaller.
    """

    widths: Sequence[int] = (32, 64)
    blocks: int = 1  # after each convolution of stride 2
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        for stage, width in enumerate(self.widths):
            x = Conv(width, 2, **types)(nn.silu(x) if stage else x)
            if stage == 0 and condition is not None:  # what constant planes beside the pixels would add
                x = x + nn.Dense(width, use_bias=False, **types)(condition)[:, None, None]
            for _ in range(self.blocks):
                x = Residual(**types)(x)
        return nn.silu(x)


class ConvTop(nn.Module):
    """Feature maps to images: the way of `ConvTrunk` back, each doubling a convolution to four times the channels.

    Source: of the doubling, Shi et al. 2016, Real-Time Single Image and Video Super-Resolution Using an Efficient
      Sub-Pixel Convolutional Neural Network (arXiv:1609.05158), section 2.2.
    """

    shape: tuple[int, int, int]  # (H, W, C)
    widths: Sequence[int] = (32, 64)  # as of the trunk
    blocks: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        height, width, channels = self.shape
        for stage in reversed(range(len(self.widths))):
            for _ in range(self.blocks):
                x = Residual(**types)(x)
            outputs = self.widths[stage - 1] if stage else channels
            x = depth_to_space(Conv(4 * outputs, **types)(nn.silu(x)))
            x = x[:, : -(-height // 2**stage), : -(-width // 2**stage)]
        return x


class ConvEncoder(nn.Module):
    """`ConvTrunk`, flattened, and dense layers."""

    widths: Sequence[int] = (32, 64)
    blocks: int = 1
    hidden: Sequence[int] = (256,)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array, condition: Array | None) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = ConvTrunk(self.widths, self.blocks, **types)(images, condition)
        x = x.reshape(len(x), -1)
        for size in self.hidden:
            x = nn.silu(nn.Dense(size, kernel_init=HE, **types)(x))
        return x


class ConvDecoder(nn.Module):
    """Dense layers and `ConvTop`."""

    shape: tuple[int, int, int]  # (H, W, C)
    widths: Sequence[int] = (32, 64)
    blocks: int = 1
    hidden: Sequence[int] = (256,)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        sides = [-(-side // 2 ** len(self.widths)) for side in self.shape[:2]]
        for size in self.hidden:
            x = nn.silu(nn.Dense(size, kernel_init=HE, **types)(x))
        x = nn.Dense(math.prod(sides) * self.widths[-1], kernel_init=HE, **types)(x)
        x = x.reshape(-1, *sides, self.widths[-1])
        return ConvTop(self.shape, self.widths, self.blocks, **types)(x)


def depth_to_space(x: Array) -> Array:
    """`[B, H, W, 4 C]` to `[B, 2 H, 2 W, C]`: channel `(2 u + v) C + c` of a pixel becomes pixel (u, v) of a square."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).swapaxes(2, 3)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)
