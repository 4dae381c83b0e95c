"""Dense layers."""

from functools import partial
from typing import Any

import flax.linen as nn

from dlfx.ops.convolution import dense

# Linen's dense layer, whose gradients are fast for large matrices too. Networks with such layers take this one.
Dense: Any = partial(nn.Dense, dot_general=dense)
