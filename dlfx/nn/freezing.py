"""Batch norm that stays as it is while the rest of a network is trained."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from dlfx.nn.normalization import BatchNorm


class Fixed(NamedTuple):
    """A module some of whose batch norms are fixed: its `init`, and its `apply` with these in mind."""

    init: Callable[..., Any]
    apply: Callable[..., Any]


def with_fixed_norms(module: nn.Module, frozen: Callable[[str], bool]) -> Fixed:
    """The module with batch norms that normalise by their running moments also in training, and leave these alone.

    What a layer does whose parameters are frozen must not change. Batch norm in training would: it normalises by the
    moments of the batch at hand, and those by which it normalises later drift to the new data.

    Args:
      module: the network.
      frozen: whether a parameter is frozen, by its name such as `layer1.0.bn1.scale`. Norms count whose every one is.
    """

    def fix(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        norm = context.module
        if not isinstance(norm, BatchNorm) or norm.use_running_average or norm.is_initializing():
            return call(*args, **kwargs)
        if not all(frozen(".".join((*norm.path, name))) for name in norm.variables["params"]):
            return call(*args, **kwargs)
        return norm.clone(parent=None, use_running_average=True).apply(norm.variables, *args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(fix):
            return module.apply(*args, **kwargs)

    return Fixed(module.init, apply)
