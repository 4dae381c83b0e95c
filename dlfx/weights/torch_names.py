"""Variables of our modules as PyTorch names and lays out its tensors, and back."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.types import UserError

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0)}  # HWIO to OIHW, and [in, out] to [out, in]; others stay
FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0)}
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # of GoogLeNet and Inception-v3; there in training alone
SHOWN = 5  # names in an error


def from_torch_names(tensors: Mapping[str, np.ndarray], like: Any) -> dict[str, Any]:
    """Variables from tensors by their names in PyTorch; the inverse of `to_torch_names`.

    Auxiliary heads are passed over where `like` has none, as are the counts of batches that batch norm keeps there,
    `num_batches_tracked`. The kernel of a convolution over all its input is also that of a dense layer.

    Args:
      tensors: by name.
      like: the variables to fill, arrays or their shapes, of a module whose layers have the names of PyTorch's.

    Returns:
      Variables of the shapes and types of `like`.

    Raises:
      UserError: where tensors are missing, too many, of another shape or not floating point, naming them.
    """
    leaves, structure = jax.tree.flatten_with_path(like)
    wanted = {_torch_name(path): leaf for path, leaf in leaves}
    found = relevant(tensors, wanted)
    for name, leaf in wanted.items():
        tensor, shape = found.get(name), torch_shape(leaf)
        if tensor is not None and tensor.ndim == 4 and len(shape) == 2 and tensor.shape[0] == shape[0]:
            found[name] = tensor.reshape(shape) if tensor.size == leaf.size else tensor
    require(found, {name: jax.ShapeDtypeStruct(torch_shape(leaf), leaf.dtype) for name, leaf in wanted.items()})
    arrays = [np.array(_permuted(found[name], FROM_TORCH), leaf.dtype, order="C") for name, leaf in wanted.items()]
    return jax.tree.unflatten(structure, jax.device_put(arrays))


def to_torch_names(variables: Any) -> dict[str, np.ndarray]:
    """Variables as tensors by their names in PyTorch, such as `layer1.0.bn1.running_mean`.

    Kernels `[H, W, I, O]` become weights `[O, I, H, W]`, and `[I, O]` become `[O, I]`. To be written by
    `save_safetensors`, or given to `load_state_dict`. What PyTorch has no word for keeps its name and layout.

    Args:
      variables: `params` and `batch_stats` of a module whose layers have the names of PyTorch's.
    """
    return {
        _torch_name(path): np.ascontiguousarray(_permuted(np.asarray(leaf), TO_TORCH))
        for path, leaf in jax.tree.leaves_with_path(variables)
    }


def require(tensors: Mapping[str, np.ndarray], wanted: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Raises a UserError unless there are just the wanted tensors, of floating point: it names those that are wrong."""
    wrong = []
    for name, like in wanted.items():
        tensor = tensors.get(name, like)
        if tensor.shape != like.shape:
            wrong.append(f"{name} {list(tensor.shape)} for {list(like.shape)}")
        elif not jnp.issubdtype(tensor.dtype, jnp.floating):
            wrong.append(f"{name} {tensor.dtype} for {like.dtype}")
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape or type": wrong,
    }
    if any(problems.values()):
        told = [f"{len(which)} {kind} ({_listed(which)})" for kind, which in problems.items() if which]
        raise UserError(f"of {len(wanted)} tensors, " + ", ".join(told))


def relevant(tensors: Mapping[str, np.ndarray], wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors without counts of batches, and without auxiliary heads where none is wanted."""
    skipped = () if any(name.startswith(AUXILIARY) for name in wanted) else AUXILIARY
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(skipped)
    }


def by_torch_names(like: Any) -> dict[str, Any]:
    """The leaves of variables, arrays or their shapes, by their names in PyTorch."""
    return {_torch_name(path): leaf for path, leaf in jax.tree.leaves_with_path(like)}


def torch_shape(leaf: Any) -> tuple[int, ...]:
    """The shape that a leaf has in PyTorch."""
    return tuple(leaf.shape[axis] for axis in TO_TORCH.get(leaf.ndim, range(leaf.ndim)))


def _permuted(array: np.ndarray, orders: Mapping[int, tuple[int, ...]]) -> np.ndarray:
    return array.transpose(orders.get(array.ndim, range(array.ndim)))


def _torch_name(path: Any) -> str:
    """Of params/layer1.0/conv1/kernel: layer1.0.conv1.weight."""
    _, *layers, leaf = (key.key for key in path)
    return ".".join([*layers, LEAVES.get(leaf, leaf)])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
