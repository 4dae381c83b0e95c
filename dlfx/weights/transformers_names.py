"""Directories as Hugging Face's transformers save them, and variables with stacked blocks by the names in there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dlfx.types import UserError
from dlfx.weights.files import load_tensors, save_safetensors
from dlfx.weights.torch_names import require

CONFIG = "config.json"
FILES = ("model.safetensors", "pytorch_model.bin")  # the first one found is read
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


class Layer(NamedTuple):
    """Where a layer of ours stands there.

    Attributes:
      name: `{}` in it is the number of the block, over which our arrays are stacked.
      part: of `parts` equal ones of the last axis; there are layers of several of ours side by side.
      parts: how many.
    """

    name: str
    part: int = 0
    parts: int = 1


class Form(NamedTuple):
    """How a kind of network is written.

    Attributes:
      layers: our layers, such as `stack/blocks/attention/out`, to theirs.
      transposed: whether the weights of dense layers are `[out, in]`, not `[in, out]`.
    """

    layers: Mapping[str, Layer]
    transposed: bool


class Place(NamedTuple):
    """Where an array of ours, or what of it belongs to one block, stands there."""

    name: str
    shape: tuple[int, ...]  # of the tensor there
    block: Any  # the index of ours, `...` for all of it
    part: int
    parts: int
    turned: bool  # whether it is transposed


def read_config(directory: str | Path, model_type: str, sizes: Sequence[str]) -> dict[str, Any]:
    """The `config.json` of a checkpoint.

    Args:
      directory: of the checkpoint.
      model_type: what it has to be of.
      sizes: names of whole numbers that it has to have.

    Raises:
      UserError: if there is none, it is of another kind of model, or lacks a size.
    """
    path = Path(directory) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{directory} is no checkpoint of transformers: {path} cannot be read") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != model_type:
        found = config.get("model_type") if isinstance(config, dict) else None
        raise UserError(f"{path} must be of model_type {model_type!r}; got {found!r}")
    for name in sizes:
        if type(config.get(name)) is not int or config[name] < 1:
            raise UserError(f"{path} must have {name}, a whole number from 1; got {config.get(name)!r}")
    return config


def require_form(directory: str | Path, config: Mapping[str, Any], fixed: Mapping[str, Sequence[Any]]) -> None:
    """Raises a UserError where a config asks for what our model cannot do.

    Args:
      directory: of the checkpoint.
      config: of `read_config`.
      fixed: names to the values that our model has; what a config does not name is the first of them.
    """
    for name, allowed in fixed.items():
        if config.get(name, allowed[0]) not in allowed:
            told = " or ".join(json.dumps(value) for value in allowed)
            path = Path(directory) / CONFIG
            raise UserError(f"{path} has {name} {json.dumps(config[name])}; here there is {told} alone")


def read_tensors(directory: str | Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The file of weights in a directory, and the tensors in it.

    Raises:
      UserError: if there is none, or see `load_tensors`.
    """
    for name in FILES:
        path = Path(directory) / name
        if path.is_file():
            return path, load_tensors(path)
    raise UserError(f"{directory} has no weights: neither {' nor '.join(FILES)}")


def write_directory(directory: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """A directory that `from_pretrained` of transformers reads. What else lies there stays.

    Raises:
      UserError: if it cannot be written.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_safetensors(path / FILES[0], tensors, {"format": "pt"})
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def shapes(like: Any, form: Form) -> dict[str, jax.ShapeDtypeStruct]:
    """The tensors of variables by their names there: shapes there, and types here."""
    leaves = jax.tree.leaves_with_path(like)
    return {
        place.name: jax.ShapeDtypeStruct(place.shape, leaf.dtype)
        for path, leaf in leaves
        for place in _places(path, leaf, form)
    }


def from_names(tensors: Mapping[str, np.ndarray], like: Any, form: Form) -> Any:
    """Variables from tensors by their names there; the inverse of `to_names`.

    Args:
      tensors: by name.
      like: the variables to fill, arrays or their shapes.
      form: see `Form`.

    Returns:
      Variables of the shapes and types of `like`.

    Raises:
      UserError: where tensors are missing, too many, of another shape or not floating point, naming them.
    """
    require(tensors, shapes(like, form))

    def filled(path: Any, leaf: Any) -> np.ndarray:
        array = np.empty(leaf.shape, leaf.dtype)
        for place in _places(path, leaf, form):
            tensor = tensors[place.name]
            array[place.block] = np.split(tensor.T if place.turned else tensor, place.parts, -1)[place.part]
        return array

    return jax.device_put(jax.tree.map_with_path(filled, like))


def to_names(variables: Any, form: Form) -> dict[str, np.ndarray]:
    """Variables as tensors by their names there."""
    parts: dict[str, dict[int, np.ndarray]] = {}
    for path, leaf in jax.tree.leaves_with_path(variables):
        array = np.asarray(leaf)
        for place in _places(path, leaf, form):
            tensor = array[place.block]
            parts.setdefault(place.name, {})[place.part] = tensor.T if place.turned else tensor
    return {name: np.concatenate([found[i] for i in sorted(found)], -1) for name, found in parts.items()}


def _places(path: Any, leaf: Any, form: Form) -> Iterator[Place]:
    """Of params/stack/blocks/mlp_in/kernel, say: h.0.mlp.c_fc.weight, h.1.mlp.c_fc.weight, ..."""
    _, *names, kind = (key.key for key in path)
    layer, kind_there = form.layers["/".join(names)], LEAVES.get(kind, kind)
    stacked = "{}" in layer.name
    *others, last = leaf.shape[1:] if stacked else leaf.shape
    turned = form.transposed and kind == "kernel"
    shape = (last, *others) if turned else (*others, last * layer.parts)
    for block in range(leaf.shape[0]) if stacked else (...,):
        yield Place(f"{layer.name.format(block)}.{kind_there}", shape, block, layer.part, layer.parts, turned)
