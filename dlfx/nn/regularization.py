"""Dropout of more than single units. Linen's `Dropout`: `x m / (1 - rate)`, so that the mean stays and nothing is to be
scaled when m is 1 for all, with `deterministic`. The key is that of the collection `dropout`.
"""

from functools import partial
from typing import Any

import flax.linen as nn

# Whole channels of `[B, H, W, C]`, as neighbouring pixels say the same (Tompson et al. 2014, arXiv:1411.4280, section
# 3.2).
SpatialDropout: Any = partial(nn.Dropout, broadcast_dims=(-3, -2))

# The whole branch of a residual block, for every image by itself: `x + StochasticDepth(rate)(f(x))` (Huang et al. 2016,
# arXiv:1603.09382, equation 2, where the scaling is left to the time of testing).
StochasticDepth: Any = partial(nn.Dropout, broadcast_dims=(-3, -2, -1))


def stochastic_depth_rates(blocks: int, last: float = 0.5) -> tuple[float, ...]:
    """How often each of L residual branches is dropped: `(l / L) last`, l = 1 to L.

    Source: Huang et al. 2016, Deep Networks with Stochastic Depth (arXiv:1603.09382), equation 4.
    """
    return tuple(last * block / blocks for block in range(1, blocks + 1))
