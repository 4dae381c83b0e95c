"""The public weights of Inception-v3, by torchvision's names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.models.classification.inception_v3 import SMALLEST_AUX, InceptionV3
from dlfx.types import UserError
from dlfx.weights.files import load_tensors

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # HWIO to OIHW, and [in, out] to [out, in]
FROM_TORCH = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
FID_CLASSES = 1008
SHOWN = 10  # names in an error


def load_inception_v3(path: str | Path, fid: bool | None = None) -> tuple[InceptionV3, dict[str, Any]]:
    """Inception-v3 with the weights of a file.

    Such files are torchvision's `inception_v3_google`, of 1000 classes with an auxiliary head, and the
    `pt_inception-2015-12-05` of pytorch-fid, of 1008 classes without one, on which the Fréchet inception distance is
    defined. Both take images in [-1, 1], see `InceptionV3`. The number of classes and whether there is an auxiliary
    head are the file's. Computation in another type: `module.clone(dtype=...)`.

    Args:
      path: a file of tensors by torchvision's names, see `load_tensors`.
      fid: whether to pool as the weights of 2015 want it; None: if there are 1008 classes.

    Returns:
      The module, and its variables in float32.

    Raises:
      UserError: for a file that cannot be read, and for one that has not just the tensors of the network, naming them.
    """
    tensors = load_tensors(path)
    head = tensors.get("fc.bias", np.empty(FID_CLASSES if fid else 1000))
    num_classes = head.size if head.ndim == 1 and head.size else 1000
    aux_head = any(name.startswith("AuxLogits.") for name in tensors)
    module = InceptionV3(num_classes, aux_head, num_classes == FID_CLASSES if fid is None else fid)
    images = jax.ShapeDtypeStruct((1, SMALLEST_AUX, SMALLEST_AUX, 3), jnp.float32)
    try:
        return module, from_torch_names(tensors, jax.eval_shape(module.init, jax.random.key(0), images))
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of inception_v3: {error}") from error


def from_torch_names(tensors: Mapping[str, np.ndarray], like: Any) -> dict[str, Any]:
    """Variables from tensors by their names in PyTorch; the inverse of `to_torch_names`.

    Args:
      tensors: by name. The counts of batches that batch norm keeps there, `num_batches_tracked`, are passed over.
      like: the variables to fill, arrays or their shapes, of a module whose layers have the names of PyTorch's.

    Returns:
      Variables of the shapes and types of `like`.

    Raises:
      UserError: where tensors are missing, too many, of another shape or not floating point, naming them.
    """
    leaves, structure = jax.tree.flatten_with_path(like)
    names = [_torch_name(path) for path, _ in leaves]
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    wrong = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        shape = tuple(leaf.shape[axis] for axis in TO_TORCH[leaf.ndim])
        if name in found and found[name].shape != shape:
            wrong.append(f"{name} {list(found[name].shape)} for {list(shape)}")
        elif name in found and not jnp.issubdtype(found[name].dtype, jnp.floating):
            wrong.append(f"{name} {found[name].dtype} for {leaf.dtype}")
    problems = {
        "missing": [name for name in names if name not in found],
        "unexpected": [name for name in found if name not in set(names)],
        "of another shape or type": wrong,
    }
    if any(problems.values()):
        raise UserError("; ".join(f"{kind}: {_listed(which)}" for kind, which in problems.items() if which))
    arrays = [
        np.array(found[name].transpose(FROM_TORCH[leaf.ndim]), leaf.dtype, order="C")
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, jax.device_put(arrays))


def to_torch_names(variables: Any) -> dict[str, np.ndarray]:
    """Variables as tensors by their names in PyTorch, such as `Mixed_5b.branch1x1.bn.running_mean`.

    Kernels `[H, W, I, O]` become weights `[O, I, H, W]`, and `[I, O]` become `[O, I]`. To be written by
    `save_safetensors`, or given to `load_state_dict`.

    Args:
      variables: `params` and `batch_stats` of a module whose layers have the names of PyTorch's.
    """
    return {
        _torch_name(path): np.ascontiguousarray(np.asarray(leaf).transpose(TO_TORCH[np.ndim(leaf)]))
        for path, leaf in jax.tree.leaves_with_path(variables)
    }


def _torch_name(path: Any) -> str:
    """Of params/Mixed_5b/branch1x1/conv/kernel: Mixed_5b.branch1x1.conv.weight."""
    _, *layers, leaf = (key.key for key in path)
    return ".".join([*layers, LEAVES[leaf]])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
