"""Generators and critics: multilayer perceptrons for points and small images, and DCGAN for images of 8x8 to 64x64."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.convolution import ConvTranspose
from dlfx.nn.normalization import BatchNorm
from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import Array

normal_002 = nn.initializers.normal(0.02)


class MLPGenerator(nn.Module):
    """Latents `[B, Z]` through rectified layers to examples `[B, *shape]`; labels join the latents as an embedding.

    Source: Goodfellow et al. 2014 (arXiv:1406.2661), section 5; labels: Mirza and Osindero 2014, Conditional Generative
      Adversarial Nets (arXiv:1411.1784), section 3.2.
    """

    shape: Sequence[int]  # of an example
    hidden: Sequence[int] = (128, 128, 128)
    bounded: bool = False  # to (-1, 1) by tanh, as images are
    num_classes: int = 0  # that labels come from; 0: there are none
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None = None, *, train: bool = False) -> Array:
        dense = partial(nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype)
        x = _with_labels(latents, labels, self.num_classes, self.param_dtype)
        for width in self.hidden:
            x = nn.relu(dense(width, kernel_init=nn.initializers.he_normal())(x))
        size = 1
        for side in self.shape:
            size *= side
        x = dense(size, name="output")(x).reshape(-1, *self.shape).astype(self.param_dtype)
        return jnp.tanh(x) if self.bounded else x


class MLPCritic(nn.Module):
    """Examples `[B, ...]` through leaky rectified layers to logits `[B]`; labels by projection, see `head`."""

    hidden: Sequence[int] = (128, 128, 128)
    spectral: bool = False  # every kernel divided by its largest singular value
    num_classes: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, examples: Array, labels: Array | None = None, *, train: bool = False) -> Array:
        normalized = _normalization(self.spectral, train, self.param_dtype)
        x = examples.reshape(len(examples), -1)
        for width in self.hidden:
            kernel_init = nn.initializers.he_normal()
            layer = nn.Dense(width, kernel_init=kernel_init, dtype=self.dtype, param_dtype=self.param_dtype)
            x = nn.leaky_relu(normalized(layer)(x), 0.2)
        return head(x, labels, self.num_classes, normalized, self.dtype, self.param_dtype)


class DCGANGenerator(nn.Module):
    """Latents `[B, Z]` to images `[B, H, W, C]` in (-1, 1): a small image of many channels, doubled until it is large.

    For 28x28: a linear layer to 7x7 of 2 F channels, then transposed convolutions 4x4 of stride 2 to 14x14 of F and to
    28x28 of C, with batch norm and ReLU between them. Sides that do not halve evenly are rounded up, and cut in the
    end.

    Source: Radford, Metz and Chintala 2016, Unsupervised Representation Learning with Deep Convolutional Generative
      Adversarial Networks (arXiv:1511.06434), section 3 and figure 1; weights from N(0, 0.02), section 4.
    """

    shape: tuple[int, int, int]  # (H, W, C) of an image
    features: int = 64  # F, the channels of the last layer but one
    num_classes: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, latents: Array, labels: Array | None = None, *, train: bool = False) -> Array:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = _batch_norm(train, self.dtype, self.param_dtype, self.axis_name)
        height, width, channels = self.shape
        levels = doublings(min(height, width))
        sizes = [(-(-height // 2**i), -(-width // 2**i)) for i in range(levels + 1)][::-1]
        widths = [self.features * 2 ** (levels - 1 - i) for i in range(levels)]

        x = _with_labels(latents, labels, self.num_classes, self.param_dtype)
        size = sizes[0][0] * sizes[0][1] * widths[0]
        x = nn.Dense(size, use_bias=False, kernel_init=normal_002, name="project", **types)(x)
        x = nn.relu(norm(name="norm0")(x.reshape(-1, *sizes[0], widths[0])))
        for i, (rows, columns) in enumerate(sizes[1:], 1):
            last = i == levels
            up = ConvTranspose(
                channels if last else widths[i],
                (4, 4),
                (2, 2),
                padding=1,
                use_bias=last,
                kernel_init=normal_002,
                name=f"up{i}",
                **types,
            )
            x = up(x)[:, :rows, :columns]
            if not last:
                x = nn.relu(norm(name=f"norm{i}")(x))
        return jnp.tanh(x.astype(self.param_dtype))


class DCGANCritic(nn.Module):
    """Images `[B, H, W, C]` to logits `[B]`: the mirror image of the generator, convolutions 4x4 of stride 2.

    Leaky ReLU of slope 0.2; batch norm in every layer but the first, where wanted: a critic whose gradient is penalised
    must not mix the images of a batch, and spectral normalisation takes its place. Labels by projection, see `head`.

    Source: Radford, Metz and Chintala 2016 (arXiv:1511.06434), section 3.
    """

    features: int = 64  # F, the channels of the first layer
    batch_norm: bool = True
    spectral: bool = False
    num_classes: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images: Array, labels: Array | None = None, *, train: bool = False) -> Array:
        norm = _batch_norm(train, self.dtype, self.param_dtype, self.axis_name)
        normalized = _normalization(self.spectral, train, self.param_dtype)
        x = images
        for i in range(doublings(min(images.shape[1:3]))):
            layer = nn.Conv(
                self.features * 2**i,
                (4, 4),
                strides=2,
                padding="SAME",  # of even sides 1 all around; odd ones round up
                use_bias=i == 0 or not self.batch_norm,
                kernel_init=normal_002,
                conv_general_dilated=conv_general_dilated,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )
            x = normalized(layer)(x)
            if i and self.batch_norm:
                x = norm()(x)
            x = nn.leaky_relu(x, 0.2)
        return head(x.reshape(len(x), -1), labels, self.num_classes, normalized, self.dtype, self.param_dtype)


def doublings(side: int) -> int:
    """How often a DCGAN doubles its smallest image: from at most 7x7, and at least twice (8x8 begins with 2x2)."""
    count = 2
    while -(-side // 2**count) > 7:
        count += 1
    return count


def head(
    features: Array,
    labels: Array | None,
    num_classes: int,
    normalized: Callable[[nn.Module], Callable[[Array], Array]],
    dtype: Any,
    param_dtype: Any,
) -> Array:
    """Features f `[B, F]` to logits `[B]`, at least float32: `w . f + b`, and with labels y `+ v_y . f`.

    Source: Miyato and Koyama 2018, cGANs with Projection Discriminator (arXiv:1802.05637), equation 3.
    """
    types = {"dtype": dtype, "param_dtype": param_dtype}
    logits = normalized(nn.Dense(1, **types))(features)[:, 0]
    if num_classes and labels is not None:
        # A linear layer without bias, read out at the label: an embedding that spectral normalisation knows as kernel.
        scores = normalized(nn.Dense(num_classes, use_bias=False, **types))(features)
        logits += jnp.take_along_axis(scores, labels[:, None], 1)[:, 0]
    return logits.astype(jnp.promote_types(dtype, jnp.float32))


def _with_labels(latents: Array, labels: Array | None, num_classes: int, param_dtype: Any) -> Array:
    """The latents, followed by a learned vector of as many numbers for each label."""
    if not num_classes or labels is None:
        return latents
    # Small, or else the labels outweigh the latents in the beginning, and every class collapses to one example.
    init = nn.initializers.normal(0.1)
    embedding = nn.Embed(num_classes, latents.shape[-1], embedding_init=init, param_dtype=param_dtype)
    return jnp.concatenate([latents, embedding(labels)], -1)


def _normalization(spectral: bool, train: bool, param_dtype: Any) -> Callable[[nn.Module], Callable[[Array], Array]]:
    """What wraps a layer of the critic: nothing, or spectral normalisation."""
    if not spectral:
        return lambda layer: layer
    norm = partial(nn.SpectralNorm, collection_name="spectral", param_dtype=param_dtype)
    return lambda layer: partial(norm(layer), update_stats=train)


def _batch_norm(train: bool, dtype: Any, param_dtype: Any, axis_name: str | None) -> Callable[..., nn.Module]:
    types = {"dtype": dtype, "param_dtype": param_dtype}
    return partial(BatchNorm, use_running_average=not train, axis_name=axis_name, **types)
