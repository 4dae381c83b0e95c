"""What the layers of a network give, seen from outside."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn

from dlfx.types import Array


class Recorded(NamedTuple):
    """A call of a layer that has parameters of its own.

    Attributes:
      name: the path of the layer in the network, such as `layer1.0.conv1`.
      kind: the class of its module.
      params: its parameters by name.
      output: what it gave.
    """

    name: str
    kind: str
    params: dict[str, Array]
    output: Array


def record(run: Callable[[], Any]) -> list[Recorded]:
    """The layers that a function calls, such as `lambda: module.init(key, images)`, in the order in which they end.

    Inside a traced function the parameters and outputs are traced too.
    """
    found: list[Recorded] = []

    def look(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            held = context.module.variables.get("params", {})
            own = {name: value for name, value in held.items() if not isinstance(value, dict)}
            if own:
                name = ".".join(context.module.path)
                found.append(Recorded(name, type(context.module).__name__, own, output))
        return output

    with nn.intercept_methods(look):
        run()
    return found
