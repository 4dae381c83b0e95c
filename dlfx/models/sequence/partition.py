"""How the weights of a Transformer are shared out over devices, so that each computes a part of every layer."""

import re

from jax.sharding import PartitionSpec as P

# The end of a tensor's name to the axis, counted from the last, that is cut: attention by heads, dense layers by their
# hidden units. So the first layer of each pair needs no exchange, and the second one sum.
AXES = {
    r"attention/(query|key|value)/kernel": -1,
    r"attention/(query|key|value)/bias": -1,
    r"attention/out/kernel": -2,
    r"mlp_in/(kernel|bias)": -1,
    r"mlp_out/kernel": -2,
    r"embedding/embedding": -2,  # by tokens
}


def transformer(name: str, shape: tuple[int, ...], parts: int) -> P:
    """The sharding of one tensor of a state over the mesh axis `model`; what the optimizer keeps of it goes with it.

    Args:
      name: its path, such as `opt_state/0/mu/stack/blocks/mlp_in/kernel`.
      shape: of the tensor.
      parts: devices along the axis; a tensor that they do not divide stays whole.

    Source: Shoeybi et al. 2019, Megatron-LM (arXiv:1909.08053), section 3.
    """
    for pattern, axis in AXES.items():
        if re.search(rf"(^|[/_]){pattern}$", name) and shape and shape[axis] % parts == 0:
            spec: list[str | None] = [None] * len(shape)
            spec[axis] = "model"
            return P(*spec)
    return P()
