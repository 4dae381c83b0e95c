"""The public weights of Inception-v3, by torchvision's names."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.models.classification.inception_v3 import SMALLEST_AUX, InceptionV3
from dlfx.types import UserError
from dlfx.weights.classifiers import read_checkpoint
from dlfx.weights.torch_names import from_torch_names

FID_CLASSES = 1008


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
    tensors, _ = read_checkpoint(path)
    head = tensors.get("fc.bias", np.empty(FID_CLASSES if fid else 1000))
    num_classes = head.size if head.ndim == 1 and head.size else 1000
    aux_heads = any(name.startswith("AuxLogits.") for name in tensors)
    module = InceptionV3(num_classes, aux_heads, num_classes == FID_CLASSES if fid is None else fid)
    images = jax.ShapeDtypeStruct((1, SMALLEST_AUX, SMALLEST_AUX, 3), jnp.float32)
    try:
        return module, from_torch_names(tensors, jax.eval_shape(module.init, jax.random.key(0), images))
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of inception_v3: {error}") from error
