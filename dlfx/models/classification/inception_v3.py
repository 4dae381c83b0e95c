"""Inception-v3, the network for ImageNet on whose features the Fréchet inception distance is defined."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.models.classification.interface import at_least_float32, require_images
from dlfx.nn.conv_norm import BasicConv2d
from dlfx.ops.pooling import avg_pool, max_pool
from dlfx.types import Array

he_normal = nn.initializers.he_normal()  # truncated, of the fan-in
SMALLEST = 75  # the side at which the last block is 1x1
SMALLEST_AUX = 299  # the side at which the 5x5 convolution of the auxiliary head is 1x1


class InceptionV3(nn.Module):
    """Inception-v3: blocks of parallel branches, whose large kernels are factored into small and one-sided ones.

    The stem, three blocks A at 35x35, a reduction B, four blocks C at 17x17, a reduction D, two blocks E at 8x8 (for
    images of 299x299), the mean over all positions, dropout of one half and a linear layer. With three channels
    and 1000 classes 23,834,568 parameters, with the auxiliary head 27,161,264. The form is torchvision's, and layers
    have its names, so that its weights are read by name, see `dlfx.weights.inception`.

    Both of the public sets of weights want pixels in [-1, 1], `2 image - 1` of an image in [0, 1]. That is also what
    torchvision's `transform_input` turns images into that were normalised by the statistics of ImageNet; bringing
    images there is the caller's matter.

    With `fid`, the form of 2015 whose weights the Fréchet inception distance is defined on, of 1008 classes: averages
    leave out the padding, and the pool branch of the last block takes maxima. The shapes are the same.

    Args (of the call):
      images: `[B, H, W, C]`, each side at least 75; with an auxiliary head, at initialisation and in training, 299.
      train: normalise by the statistics of this batch and update the running ones (pass `mutable=["batch_stats"]`),
        and drop features at random (pass `rngs={"dropout": key}`).

    Returns:
      The logits `[B, num_classes]`, at least float32, and the last features of each stage: `stem [B, H1, W1, 192]`,
      `mixed_5d [B, H1, W1, 288]`, `mixed_6e [B, H2, W2, 768]`, `mixed_7c [B, H3, W3, 2048]` and `pooled [B, 2048]`,
      before dropout. In training with an auxiliary head also its logits `aux [B, num_classes]`; what they weigh in the
      loss (0.4 in torchvision's recipe) is the loss's matter.

    Raises:
      UserError: for smaller images.

    Source: Szegedy, Vanhoucke, Ioffe, Shlens and Wojna 2015, Rethinking the Inception Architecture for Computer Vision
      (arXiv:1512.00567), table 1 and figures 5 to 8, 10. The stem, the widths and the two ways of pooling, which the
      paper leaves open, as in torchvision and pytorch-fid. Initialisation as in TF-slim.
    """

    num_classes: int = 1000
    aux_heads: bool = False  # there is one
    fid: bool = False
    dropout: float = 0.5
    width: float = 1.0  # a factor on all channels
    dtype: Any = jnp.float32  # of the computation; the statistics of batch norm are at least float32
    param_dtype: Any = jnp.float32
    axis_name: str | None = None  # the pmap axis over which batch norm takes its statistics; None under jit

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> tuple[Array, dict[str, Array]]:
        aux_runs = self.aux_heads and (train or self.is_initializing())
        smallest, why = (SMALLEST_AUX, "for its auxiliary head") if aux_runs else (SMALLEST, "")
        require_images("inception_v3", images, smallest, 299, why)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Any = partial(BasicConv2d, width=self.width, train=train, axis_name=self.axis_name, **dtypes)
        average = partial(avg_pool, window=3, stride=1, padding=((1, 1), (1, 1)), count_padding=not self.fid)
        maximum = partial(max_pool, window=3, stride=1, padding=((1, 1), (1, 1)))
        features = {}

        x = conv(32, (3, 3), 2, name="Conv2d_1a_3x3")(images)
        x = conv(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = conv(64, (3, 3), padding="SAME", name="Conv2d_2b_3x3")(x)
        x = max_pool(x, 3, 2)
        x = conv(80, (1, 1), name="Conv2d_3b_1x1")(x)
        x = conv(192, (3, 3), name="Conv2d_4a_3x3")(x)
        features["stem"] = x = max_pool(x, 3, 2)
        x = InceptionA(32, average, conv, name="Mixed_5b")(x)
        x = InceptionA(64, average, conv, name="Mixed_5c")(x)
        features["mixed_5d"] = x = InceptionA(64, average, conv, name="Mixed_5d")(x)
        x = InceptionB(conv, name="Mixed_6a")(x)
        x = InceptionC(128, average, conv, name="Mixed_6b")(x)
        x = InceptionC(160, average, conv, name="Mixed_6c")(x)
        x = InceptionC(160, average, conv, name="Mixed_6d")(x)
        features["mixed_6e"] = x = InceptionC(192, average, conv, name="Mixed_6e")(x)
        if aux_runs:
            aux = AuxiliaryHead(self.num_classes, conv, **dtypes, name="AuxLogits")(x)
            features["aux"] = at_least_float32(aux)
        x = InceptionD(conv, name="Mixed_7a")(x)
        x = InceptionE(average, conv, name="Mixed_7b")(x)
        features["mixed_7c"] = x = InceptionE(maximum if self.fid else average, conv, name="Mixed_7c")(x)

        features["pooled"] = x.mean((1, 2))
        x = nn.Dropout(self.dropout, deterministic=not train)(features["pooled"])
        logits = nn.Dense(self.num_classes, kernel_init=he_normal, name="fc", **dtypes)(x)
        return at_least_float32(logits), features


class InceptionA(nn.Module):
    """Branches 1x1, 5x5, twice 3x3, and pool: `[B, H, W, C]` to `[B, H, W, 224 + pool_features]`.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), figure 5, with a 5x5 as in torchvision where the paper has a 3x3.
    """

    pool_features: int
    pool: Any  # 3x3, of stride 1
    conv: Any  # `BasicConv2d`, to be finished with features, kernel and name

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv: Any = partial(self.conv, padding="SAME")
        a = conv(64, (1, 1), name="branch1x1")(x)
        b = conv(48, (1, 1), name="branch5x5_1")(x)
        b = conv(64, (5, 5), name="branch5x5_2")(b)
        c = conv(64, (1, 1), name="branch3x3dbl_1")(x)
        c = conv(96, (3, 3), name="branch3x3dbl_2")(c)
        c = conv(96, (3, 3), name="branch3x3dbl_3")(c)
        d = conv(self.pool_features, (1, 1), name="branch_pool")(self.pool(x))
        return jnp.concatenate([a, b, c, d], -1)


class InceptionB(nn.Module):
    """Branches 3x3, twice 3x3, and pool, of stride 2: `[B, H, W, C]` to `[B, (H-1)//2, (W-1)//2, 480 + C]`.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), figure 10.
    """

    conv: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = self.conv
        a = conv(384, (3, 3), 2, name="branch3x3")(x)
        b = conv(64, (1, 1), name="branch3x3dbl_1")(x)
        b = conv(96, (3, 3), padding="SAME", name="branch3x3dbl_2")(b)
        b = conv(96, (3, 3), 2, name="branch3x3dbl_3")(b)
        return jnp.concatenate([a, b, max_pool(x, 3, 2)], -1)


class InceptionC(nn.Module):
    """Branches 1x1, 7x7, twice 7x7, and pool, 7x7 as 1x7 and 7x1: `[B, H, W, C]` to `[B, H, W, 768]`.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), figure 6 with n = 7.
    """

    width: int
    pool: Any
    conv: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv: Any = partial(self.conv, padding="SAME")
        a = conv(192, (1, 1), name="branch1x1")(x)
        b = conv(self.width, (1, 1), name="branch7x7_1")(x)
        b = conv(self.width, (1, 7), name="branch7x7_2")(b)
        b = conv(192, (7, 1), name="branch7x7_3")(b)
        c = conv(self.width, (1, 1), name="branch7x7dbl_1")(x)
        c = conv(self.width, (7, 1), name="branch7x7dbl_2")(c)
        c = conv(self.width, (1, 7), name="branch7x7dbl_3")(c)
        c = conv(self.width, (7, 1), name="branch7x7dbl_4")(c)
        c = conv(192, (1, 7), name="branch7x7dbl_5")(c)
        d = conv(192, (1, 1), name="branch_pool")(self.pool(x))
        return jnp.concatenate([a, b, c, d], -1)


class InceptionD(nn.Module):
    """Branches 3x3, 7x7 and 3x3, and pool, of stride 2: `[B, H, W, C]` to `[B, (H-1)//2, (W-1)//2, 512 + C]`.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), figure 10, with a 7x7 in the branch; as in torchvision.
    """

    conv: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv = self.conv
        a = conv(192, (1, 1), name="branch3x3_1")(x)
        a = conv(320, (3, 3), 2, name="branch3x3_2")(a)
        b = conv(192, (1, 1), name="branch7x7x3_1")(x)
        b = conv(192, (1, 7), padding="SAME", name="branch7x7x3_2")(b)
        b = conv(192, (7, 1), padding="SAME", name="branch7x7x3_3")(b)
        b = conv(192, (3, 3), 2, name="branch7x7x3_4")(b)
        return jnp.concatenate([a, b, max_pool(x, 3, 2)], -1)


class InceptionE(nn.Module):
    """Branches 1x1, 3x3, twice 3x3, and pool, the last 3x3 as 1x3 beside 3x1: `[B, H, W, C]` to `[B, H, W, 2048]`.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), figure 7.
    """

    pool: Any
    conv: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        conv: Any = partial(self.conv, padding="SAME")
        a = conv(320, (1, 1), name="branch1x1")(x)
        b = conv(384, (1, 1), name="branch3x3_1")(x)
        b1 = conv(384, (1, 3), name="branch3x3_2a")(b)
        b2 = conv(384, (3, 1), name="branch3x3_2b")(b)
        c = conv(448, (1, 1), name="branch3x3dbl_1")(x)
        c = conv(384, (3, 3), name="branch3x3dbl_2")(c)
        c1 = conv(384, (1, 3), name="branch3x3dbl_3a")(c)
        c2 = conv(384, (3, 1), name="branch3x3dbl_3b")(c)
        d = conv(192, (1, 1), name="branch_pool")(self.pool(x))
        return jnp.concatenate([a, b1, b2, c1, c2, d], -1)


class AuxiliaryHead(nn.Module):
    """The classifier beside the trunk, `[B, H, W, C]` with sides of at least 17 to `[B, num_classes]`.

    Source: Szegedy et al. 2015 (arXiv:1512.00567), section 4 and figure 8.
    """

    num_classes: int
    conv: Any
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = avg_pool(x, 5, 3)
        x = self.conv(128, (1, 1), name="conv0")(x)
        x = self.conv(768, (5, 5), kernel_init=nn.initializers.truncated_normal(0.01), name="conv1")(x)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        linear = nn.Dense(self.num_classes, kernel_init=nn.initializers.truncated_normal(0.001), name="fc", **dtypes)
        return linear(x.mean((1, 2)))
