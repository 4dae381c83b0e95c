"""A recurrent network with an answer at every step: who remembers what it has read?"""

from typing import Any

import flax.linen as nn
import jax

from dlfx.nn.recurrent import Recurrent
from dlfx.types import Array


class Copier(nn.Module):
    """`[B, T]` tokens to the logits of what to answer at each, `[B, T, kinds]`."""

    kinds: int
    form: Any  # of `Recurrent`

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        x, _ = Recurrent(**self.form)(jax.nn.one_hot(tokens, self.kinds))
        return nn.Dense(self.kinds)(x)
