"""Autoencoders: dense, convolutional, and stacked ones that are trained layer by layer.

An autoencoder has a code, `code = encode(x)`, but no prior on it: nothing says which codes are likely, so it is no
generative model to sample from. A Gaussian fitted to the codes is one more model, of which nothing is claimed here.
The outputs of a decoder are left as they are: pixels for the squared error, logits for the Bernoulli likelihood.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlfx.ops.convolution import conv_general_dilated
from dlfx.types import Array, UserError, unknown

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
}
INITIALIZERS = {
    "uniform": nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),  # U(-1/sqrt(n), 1/sqrt(n))
    "xavier": nn.initializers.glorot_uniform(),
    "he": nn.initializers.he_normal(),
}


class Autoencoder(nn.Module):
    """Dense layers down to a code, and back: `code = f(x)`, `outputs = g(code)`.

    With one linear layer each way and the squared error the best code spans the principal components of the data.

    Args (of the call):
      images: `[B, H, W, C]` of the shape of the field.

    Returns:
      The outputs `[B, H, W, C]` and the code `[B, widths[-1]]`, at least float32.

    Raises:
      UserError: for a width below 1, an unknown activation, or images of another shape.

    Source: Hinton and Salakhutdinov 2006, Reducing the Dimensionality of Data with Neural Networks; tied weights:
      Vincent et al. 2010, Stacked Denoising Autoencoders, section 2.2; the linear case: Baldi and Hornik 1989.
    """

    shape: tuple[int, int, int]  # (H, W, C) of an image
    widths: Sequence[int] = (32,)  # of the encoder's layers; the last is the size of the code
    activation: str = "sigmoid"  # of the hidden layers
    code_activation: str = "sigmoid"
    tied: bool = False  # the decoder's kernels are the encoder's, transposed
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        _check(self.widths, self.activation, self.code_activation)
        dense = partial(nn.Dense, kernel_init=INITIALIZERS["xavier"], dtype=self.dtype, param_dtype=self.param_dtype)
        self.encoder = [dense(width) for width in self.widths]
        back = [int(np.prod(self.shape)), *self.widths[:-1]]  # back[n]: what layer n was given
        if self.tied:
            zeros = nn.initializers.zeros
            self.bias = [self.param(f"bias_{n}", zeros, (width,), self.param_dtype) for n, width in enumerate(back)]
        else:
            self.decoder = [dense(width) for width in back]

    def __call__(self, images: Array) -> tuple[Array, Array]:
        code = self.encode(images)
        return self.decode(code), code

    def encode(self, images: Array) -> Array:
        """The code `[B, widths[-1]]` of images `[B, H, W, C]`."""
        x = _flat(images, self.shape)
        for layer, activation in zip(self.encoder, self._activations(), strict=True):
            x = activation(layer(x))
        return _at_least_float32(x)

    def decode(self, code: Array) -> Array:
        """The outputs `[B, H, W, C]` of codes `[B, widths[-1]]`."""
        x = code.astype(self.dtype)
        for n in reversed(range(len(self.widths))):
            x = x @ self._kernel(n).T + self.bias[n].astype(self.dtype) if self.tied else self.decoder[n](x)
            x = ACTIVATIONS[self.activation](x) if n else x
        return _at_least_float32(x.reshape(len(x), *self.shape))

    def squared_jacobian(self, images: Array) -> Array:
        """The squared Frobenius norm of the encoder's Jacobian at each image, exactly.

        `||J||^2 = sum_j s'(a_j)^2 sum_i W_ij^2` for one layer `s(a)`, `a = W^T x + b`; for a sigmoid `s' = h (1 - h)`.
        For more layers J is multiplied out, which takes B times the input size times a width of memory.

        Args:
          images: `[B, H, W, C]`.

        Returns:
          `[B]`.

        Source: Rifai et al. 2011, Contractive Auto-Encoders, equations 2 and 9.
        """
        x = _flat(images, self.shape).astype(self.dtype)
        jacobian = None
        for n, activation in enumerate(self._activations()):
            before = self.encoder[n](x)
            x, slope = jax.jvp(activation, (before,), (jnp.ones_like(before),))
            if len(self.widths) == 1:
                return _at_least_float32((slope**2 * (self._kernel(n) ** 2).sum(0)).sum(-1))
            jacobian = (self._kernel(n)[None] if jacobian is None else jacobian @ self._kernel(n)) * slope[:, None]
        return _at_least_float32((jacobian**2).sum((1, 2)))  # type: ignore[operator]

    def _activations(self) -> list[Callable[[Array], Array]]:
        return [ACTIVATIONS[self.activation]] * (len(self.widths) - 1) + [ACTIVATIONS[self.code_activation]]

    def _kernel(self, n: int) -> Array:
        return self.encoder[n].variables["params"]["kernel"].astype(self.dtype)


class ConvolutionalAutoencoder(nn.Module):
    """3x3 convolutions of stride 2 and a dense layer down to a code; enlarging by 2 and 3x3 convolutions back.

    Enlarged to nearest neighbours and then convolved, so that every output pixel is under as many kernel entries as
    its neighbours, where a transposed convolution of kernel 3 and stride 2 paints checkerboards.

    Args (of the call):
      images: `[B, H, W, C]` of the shape of the field, whose sides are multiples of `2 ** len(channels)`.

    Returns:
      The outputs `[B, H, W, C]` and the code `[B, code_size]`, at least float32.

    Raises:
      UserError: for a size below 1, an unknown activation, or images of another shape.

    Source: Masci et al. 2011, Stacked Convolutional Auto-Encoders; enlarging: Odena, Dumoulin and Olah 2016,
      Deconvolution and Checkerboard Artifacts.
    """

    shape: tuple[int, int, int]  # (H, W, C) of an image
    code_size: int = 32
    channels: Sequence[int] = (16, 32)  # of the convolutions of the encoder
    activation: str = "relu"
    code_activation: str = "linear"
    dtype: Any = jnp.float32  # of the computation
    param_dtype: Any = jnp.float32

    def setup(self) -> None:
        _check([*self.channels, self.code_size], self.activation, self.code_activation)
        height, width, colors = self.shape
        factor = 2 ** len(self.channels)
        if not self.channels or height % factor or width % factor:
            raise UserError(
                f"{len(self.channels)} convolutions of stride 2 need images whose sides are multiples of {factor}; "
                f"got {height}x{width}"
            )
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Any = partial(nn.Conv, kernel_size=(3, 3), padding=1, conv_general_dilated=conv_general_dilated, **types)
        self.small = (height // factor, width // factor, self.channels[-1])
        self.encoder = [conv(channels, strides=2) for channels in self.channels]
        self.to_code = nn.Dense(self.code_size, **types)
        self.from_code = nn.Dense(int(np.prod(self.small)), **types)
        self.decoder = [conv(channels) for channels in [colors, *self.channels[:-1]]]

    def __call__(self, images: Array) -> tuple[Array, Array]:
        code = self.encode(images)
        return self.decode(code), code

    def encode(self, images: Array) -> Array:
        """The code `[B, code_size]` of images `[B, H, W, C]`."""
        x = list(self.features(images).values())[-1]
        return _at_least_float32(ACTIVATIONS[self.code_activation](self.to_code(x.reshape(len(x), -1))))

    def features(self, images: Array) -> dict[str, Array]:
        """What each convolution of the encoder gives after its activation: `conv0 [B, H/2, W/2, channels[0]]`, ..."""
        _flat(images, self.shape)
        x, found = images, {}
        for n, layer in enumerate(self.encoder):
            found[f"conv{n}"] = x = ACTIVATIONS[self.activation](layer(x))
        return found

    def decode(self, code: Array) -> Array:
        """The outputs `[B, H, W, C]` of codes `[B, code_size]`."""
        activation = ACTIVATIONS[self.activation]
        x = activation(self.from_code(code)).reshape(len(code), *self.small)
        for n in reversed(range(len(self.channels))):
            x = self.decoder[n](x.repeat(2, axis=1).repeat(2, axis=2))
            x = activation(x) if n else x
        return _at_least_float32(x)


class Layer(nn.Module):
    """`s(x W + b)`, or with batch norm `s(norm(x W))`, whose offset makes b needless: `[B, n]` to `[B, width]`."""

    width: int
    activation: str
    normalize: bool
    initializer: str
    dtype: Any
    param_dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        kernel_init = INITIALIZERS[self.initializer]
        x = nn.Dense(self.width, use_bias=not self.normalize, kernel_init=kernel_init, name="dense", **types)(x)
        if self.normalize:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                axis_name=self.axis_name,
                force_float32_reductions=jnp.dtype(self.dtype) != jnp.float64,
                name="norm",
                **types,
            )(x)
        return ACTIVATIONS[self.activation](x)


class StackedAutoencoder(nn.Module):
    """A classifier of dense layers, each of which has a decoder back to what it was given.

    `code_0 = x`, `code_n = layer_{n-1}(code_{n-1})`, `logits = output(code_L)`; decoder n leads from code n+1 to code
    n. The parameters are those of `layer_0`, ..., `decoder_0`, ..., and `output`, by these names.

    Args (of the call):
      images: `[B, H, W, C]` of the shape of the field.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the features `layer_0 [B, widths[0]]`, ...

    Raises:
      UserError: for a width below 1, an unknown activation or initializer, or images of another shape.

    Source: Bengio et al. 2007, Greedy Layer-Wise Training of Deep Networks, section 3; Vincent et al. 2010, Stacked
      Denoising Autoencoders, section 4.
    """

    shape: tuple[int, int, int]  # (H, W, C) of an image
    widths: Sequence[int]  # of the layers
    num_classes: int = 10
    activation: str = "sigmoid"
    normalize: bool = False  # batch norm before every activation
    initializer: str = "xavier"  # of all kernels, one of `INITIALIZERS`; biases begin at 0
    dtype: Any = jnp.float32  # of the computation; the statistics of batch norm are at least float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    def setup(self) -> None:
        _check(self.widths, self.activation)
        if self.initializer not in INITIALIZERS:
            raise unknown("initializer", self.initializer, INITIALIZERS)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        made = (self.activation, self.normalize, self.initializer, self.dtype, self.param_dtype, self.axis_name)
        dense: Any = partial(nn.Dense, kernel_init=INITIALIZERS[self.initializer], **types)
        self.layer = [Layer(width, *made) for width in self.widths]
        self.decoder = [dense(width) for width in [int(np.prod(self.shape)), *self.widths[:-1]]]
        self.output = dense(self.num_classes)

    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        x, features = _flat(images, self.shape), {}
        for n, layer in enumerate(self.layer):
            features[f"layer_{n}"] = x = layer(x, train=train)
        return _at_least_float32(self.output(x)), features

    def everything(self, images: Array) -> tuple[Array, list[Array]]:
        """The logits and the outputs of all decoders: what to initialise by, as it meets all parameters."""
        logits, features = self(images)
        return logits, [decoder(x) for decoder, x in zip(self.decoder, features.values(), strict=True)]

    def encode(self, images: Array, depth: int) -> Array:
        """Code number `depth` of images `[B, H, W, C]`, by running statistics: `[B, n]`, for depth 0 the pixels."""
        x = _flat(images, self.shape)
        for layer in self.layer[:depth]:
            x = layer(x)
        return _at_least_float32(x)

    def reconstruct(self, code: Array, n: int, *, train: bool = False) -> Array:
        """The outputs of decoder n over layer n for code n, `[B, n]` to `[B, n]`."""
        return _at_least_float32(self.decoder[n](self.layer[n](code, train=train)))

    def decode(self, code: Array, depth: int, mean: Callable[[Array], Array]) -> Array:
        """From code number `depth` back through all decoders to pixels `[B, H, W, C]`.

        Args:
          code: `[B, n]`.
          depth: which code it is.
          mean: what makes the outputs of a decoder a code.
        """
        for decoder in reversed(self.decoder[:depth]):
            code = mean(_at_least_float32(decoder(code)))
        return code.reshape(len(code), *self.shape)


def _check(sizes: Sequence[int], *activations: str) -> None:
    for size in sizes:
        if size < 1:
            raise UserError(f"a layer or code of {size} units; it must have at least 1")
    for name in activations:
        if name not in ACTIVATIONS:
            raise unknown("activation", name, ACTIVATIONS)


def _flat(images: Array, shape: tuple[int, int, int]) -> Array:
    if images.shape[1:] != tuple(shape):
        raise UserError(f"this autoencoder is of images of {list(shape)}; got {list(images.shape[1:])}")
    return images.reshape(len(images), -1)


def _at_least_float32(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
