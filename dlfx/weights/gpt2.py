"""GPT-2 from checkpoints of Hugging Face's transformers, and into them."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.models.sequence.gpt import GPT
from dlfx.types import UserError
from dlfx.weights.transformers_names import (
    Form,
    Layer,
    from_names,
    read_config,
    read_tensors,
    require_form,
    shapes,
    to_names,
    write_directory,
)

FORM = Form(
    {
        "embedding": Layer("wte"),
        "position": Layer("wpe"),
        "stack/blocks/attention_norm": Layer("h.{}.ln_1"),
        "stack/blocks/attention/query": Layer("h.{}.attn.c_attn", 0, 3),
        "stack/blocks/attention/key": Layer("h.{}.attn.c_attn", 1, 3),
        "stack/blocks/attention/value": Layer("h.{}.attn.c_attn", 2, 3),
        "stack/blocks/attention/out": Layer("h.{}.attn.c_proj"),
        "stack/blocks/mlp_norm": Layer("h.{}.ln_2"),
        "stack/blocks/mlp_in": Layer("h.{}.mlp.c_fc"),
        "stack/blocks/mlp_out": Layer("h.{}.mlp.c_proj"),
        "stack/norm": Layer("ln_f"),
    },
    transposed=False,  # theirs are convolutions of size 1
)
SIZES = ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd")
FIXED = {
    "activation_function": ("gelu_new", "gelu_fast", "gelu_pytorch_tanh"),  # three names of one function
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
PREFIX = "transformer."  # of the models there that have a head
MASKS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which older versions saved


def gpt2_of(directory: str | Path, **options: Any) -> GPT:
    """The model of a checkpoint of transformers' GPT-2, without its weights: its `config.json` is read, no more.

    Args:
      directory: of the checkpoint.
      options: of the model, such as `dtype` or `dropout`.

    Raises:
      UserError: for a config that is not there, not of a GPT-2, or of another form than the published ones.
    """
    config = read_config(directory, "gpt2", SIZES)
    vocabulary, context, layers, heads, width = (config[name] for name in SIZES)
    require_form(directory, config, FIXED | {"n_inner": (None, 4 * width)})
    return GPT(vocabulary, context, layers, heads, width, **options)


def load_gpt2(directory: str | Path, **options: Any) -> tuple[GPT, dict[str, Any]]:
    """A GPT with the weights of a checkpoint of transformers' GPT-2, with its head or without.

    Args:
      directory: with `config.json`, and `model.safetensors` or `pytorch_model.bin`.
      options: of the model, such as `dtype` or `dropout`.

    Returns:
      The module, and its variables.

    Raises:
      UserError: for a checkpoint that is not there, not a GPT-2, of another form than the published ones, with an
        output matrix other than the embeddings, or that has not just the tensors of the model.
    """
    model = gpt2_of(directory, **options)
    path, tensors = read_tensors(directory)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if not MASKS.fullmatch(name)}
    head = tensors.pop("lm_head.weight", None)
    if head is not None and not np.array_equal(head, tensors.setdefault("wte.weight", head)):
        raise UserError(f"{path} has an output matrix, lm_head.weight, other than its embeddings; here they are one")
    try:
        return model, from_names(tensors, _like(model), FORM)
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of its {path.parent / 'config.json'}: {error}") from error


def save_gpt2(directory: str | Path, model: GPT, variables: Any) -> None:
    """Writes a GPT as a checkpoint that `GPT2LMHeadModel.from_pretrained` of transformers reads.

    A model without biases gets such of 0, which is the same model.

    Raises:
      UserError: for a GPT whose positions are not learned, and if the directory cannot be written.
    """
    if model.positions != "learned":
        raise UserError(f"GPT-2 has learned positions; this model's are {model.positions}")
    tensors = to_names(variables, FORM)
    for name, like in shapes(_like(model.clone(use_bias=True)), FORM).items():
        tensors.setdefault(name, np.zeros(like.shape, like.dtype))
    numbers = (model.vocabulary, model.context, model.layers, model.heads, model.width)
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **dict(zip(SIZES, numbers, strict=True))}
    config |= {name: allowed[0] for name, allowed in FIXED.items()}
    write_directory(directory, config, {PREFIX + name: tensor for name, tensor in tensors.items()})


def _like(model: GPT) -> Any:
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
