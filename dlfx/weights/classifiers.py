"""The public weights of image classifiers, whole or as what a new classifier begins with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.models.classification import INPUT_SIZE, MODELS, head_of
from dlfx.types import UserError, unknown
from dlfx.weights.dialects import public_names
from dlfx.weights.files import load_tensors
from dlfx.weights.torch_names import by_torch_names, from_torch_names, relevant, torch_shape

TENSORFLOW = {"tensorflow_padding": True, "epsilon": 1e-3}  # what weights from there want of a MobileNet


def load_classifier(
    path: str | Path, name: str, image_shape: tuple[int, int, int] | None = None, **options: Any
) -> tuple[Any, dict[str, Any]]:
    """A model with the weights of a file, by the names of torchvision, timm or Hugging Face's transformers.

    The number of classes is the file's. Auxiliary heads are left out unless `aux_heads=True` asks for them. MobileNets
    of transformers are Google's: they pad as TensorFlow does, have 1001 classes of which the first is none, and the
    model comes in that form. Images are to be normalised as the source of the weights says.

    Args:
      path: a file of tensors, see `load_tensors`.
      name: of the model, one of `MODELS`.
      image_shape: (H, W, C) of images to come; by default of the size that the model was made for, with 3 channels.
      options: of the model, such as `width` or `aux_heads`.

    Returns:
      The module, and its variables in float32.

    Raises:
      UserError: for an unknown model, a file that cannot be read, and one that has not just the tensors of the model.
    """
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    tensors, tensorflow = read_checkpoint(path)
    if tensorflow:
        options = TENSORFLOW | options

    def shapes(num_classes: int) -> tuple[Any, Any]:
        module = MODELS[name](num_classes=num_classes, **options)
        shape = image_shape or (INPUT_SIZE[name], INPUT_SIZE[name], 3)
        images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        return module, jax.eval_shape(module.init, jax.random.key(0), images)

    module, like = shapes(10)
    head = tensors.get(f"{head_of(like['params'])}.weight", np.empty(0))
    if head.ndim > 1 and head.shape[0] not in (0, 10):
        module, like = shapes(head.shape[0])
    try:
        return module, from_torch_names(tensors, like)
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of {name}: {error}") from error


def read_checkpoint(path: str | Path) -> tuple[dict[str, np.ndarray], bool]:
    """The tensors of a file by the names of our layers, and whether they are of one of TensorFlow's networks."""
    tensors, dialect = public_names(load_tensors(path))
    return tensors, dialect is not None and dialect.tensorflow


def new_heads(tensors: Mapping[str, np.ndarray], like: Any, num_classes: int) -> dict[str, int]:
    """The dense layers with as many outputs as `like` has classes that have another number of them in the tensors.

    Returns:
      The names of these layers, and their numbers of outputs there.
    """
    heads = {}
    for name, leaf in by_torch_names(like).items():
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or leaf.ndim != 2 or leaf.shape[1] != num_classes or name not in tensors:
            continue
        there = tensors[name].shape
        if len(there) in (2, 4) and there[0] != num_classes and np.prod(there[1:]) == leaf.shape[0]:
            heads[layer] = there[0]
    return heads


class Beginning(NamedTuple):
    """What a new classifier begins with.

    Attributes:
      variables: as those of the model, None for what is new.
      told: what was taken, and what is new, in one line.
    """

    variables: Any
    told: str


def begin_from(path: str | Path, like: Any, num_classes: int) -> Beginning:
    """The weights of a file for fine-tuning: all but the head, where that has another number of classes.

    A first convolution of images with three channels becomes one of grey images, as the sum of its kernels: it gives
    for these what the other one gives for the same image three times.

    Args:
      path: a file of tensors, see `load_tensors`.
      like: the variables of the model, arrays or their shapes.
      num_classes: of the model.

    Raises:
      UserError: for a file that cannot be read, one that does not have the other tensors of the model, and one of
        TensorFlow's networks.
    """
    tensors, tensorflow = read_checkpoint(path)
    if tensorflow:
        raise UserError(
            f"{path} holds a MobileNet of Hugging Face's transformers, which pads as TensorFlow does; take weights of "
            "timm or torchvision here (dlfx.weights.classifiers.load_classifier reads both)"
        )
    leaves = by_torch_names(like)
    tensors = relevant(tensors, leaves)
    told = []
    for name, leaf in leaves.items():
        tensor, shape = tensors.get(name), torch_shape(leaf)
        if tensor is None or tensor.ndim != 4 or len(shape) != 4 or (tensor.shape[1], shape[1]) != (3, 1):
            continue
        if tensor.shape[:1] + tensor.shape[2:] == shape[:1] + shape[2:]:
            tensors[name] = tensor.sum(1, keepdims=True)
            told.append(f"{name} is summed over its 3 channels")
    heads = new_heads(tensors, like, num_classes)
    new = {name for name in leaves if name.rpartition(".")[0] in heads}
    zeros = {name: np.zeros(torch_shape(leaves[name]), np.float32) for name in new}
    try:
        variables = from_torch_names(tensors | zeros, like)
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of this model: {error}") from error
    told.insert(0, f"{len(leaves) - len(new)} of {len(leaves)} tensors are taken from {path}")
    told += [f"{layer}, of {count} classes there, is new" for layer, count in heads.items()]
    kept = [None if name in new else leaf for name, leaf in by_torch_names(variables).items()]
    return Beginning(jax.tree.unflatten(jax.tree.structure(variables), kept), "; ".join(told))
