"""Recognisers of speech: convolutions that thin out time, a bidirectional recurrent network, scores of symbols."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from dlfx.nn.convolution import Conv
from dlfx.nn.dense import Dense
from dlfx.nn.recurrent import Recurrent
from dlfx.types import Array, UserError

STRIDES = {1: (1, 1), 2: (2, 1), 4: (2, 2)}  # of the two convolutions, by what time is divided by
KERNEL = 5


def output_frames(frames: Any, subsample: int) -> Any:
    """How many frames the network gives for so many of its input, a number or an array: `ceil(frames / subsample)`."""
    return -(-frames // subsample)


class SpeechRecognizer(nn.Module):
    """Two convolutions over time of width 5, each with layer norm and ReLU, then a recurrent network both ways.

    Calls, with features `[B, F, M]` and lengths `[B]` in frames:
      `model(features, lengths, train=False)` to the scores `[B, ceil(F / subsample), classes]` and how many of them
        count, `[B]`; or, with `pooled`, to one score a class `[B, classes]`, of the mean over the frames, and the same
        lengths. Padding has no influence on anything: it is 0 for every layer.

    Raises:
      UserError: for a subsampling that the two convolutions cannot give.

    Source: Graves et al. 2006, Connectionist Temporal Classification, section 4; convolutions in front as in Amodei et
      al. 2016, Deep Speech 2 (arXiv:1512.02595), section 3.4. Layer norm, not batch norm, keeps utterances apart.
    """

    classes: int  # with the blank, where there is one
    features: int = 128  # maps of a convolution, and units of each direction
    layers: int = 1  # recurrent ones
    cell: str = "lstm"
    subsample: int = 4
    pooled: bool = False
    dropout: float = 0.0  # of what goes into the recurrent network, between its layers, and of what comes out
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: Array, lengths: Array, train: bool = False) -> tuple[Array, Array]:
        if self.subsample not in STRIDES:
            raise UserError(f"time can be divided by {', '.join(map(str, STRIDES))}, not by {self.subsample}")
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = features.astype(self.dtype)
        for stride in STRIDES[self.subsample]:
            # As many zeros on both sides whatever the length: "SAME" would shift the frames with that of the batch. As
            # images of width 1, for which Conv knows what is fast.
            pads = ((KERNEL // 2, KERNEL // 2), (0, 0))
            x = Conv(self.features, (KERNEL, 1), (stride, 1), pads, **dtypes)(x[:, :, None])[:, :, 0]
            lengths = output_frames(lengths, stride)
            real = (jnp.arange(x.shape[1]) < lengths[:, None])[..., None]
            x = jnp.where(real, nn.relu(nn.LayerNorm(**dtypes)(x)), 0)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        between = self.dropout if self.layers > 1 else 0.0
        network = Recurrent(self.cell, self.features, self.layers, bidirectional=True, dropout=between, **dtypes)
        x, _ = network(x, lengths, train=train)
        if self.pooled:
            x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).sum(1) / jnp.maximum(lengths, 1)[:, None]
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        scores = Dense(self.classes, **dtypes)(x)
        return scores.astype(jnp.promote_types(scores.dtype, jnp.float32)), lengths
