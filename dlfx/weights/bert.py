"""BERT from checkpoints of Hugging Face's transformers, and into them."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.models.sequence.bert import BERT, EPSILON, BERTForPretraining
from dlfx.models.sequence.bert_heads import BERTClassifier, BERTSpans, BERTTagger
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

ENCODER = {
    "embedding": Layer("embeddings.word_embeddings"),
    "position": Layer("embeddings.position_embeddings"),
    "type": Layer("embeddings.token_type_embeddings"),
    "norm": Layer("embeddings.LayerNorm"),
    "stack/blocks/attention/query": Layer("encoder.layer.{}.attention.self.query"),
    "stack/blocks/attention/key": Layer("encoder.layer.{}.attention.self.key"),
    "stack/blocks/attention/value": Layer("encoder.layer.{}.attention.self.value"),
    "stack/blocks/attention/out": Layer("encoder.layer.{}.attention.output.dense"),
    "stack/blocks/attention_norm": Layer("encoder.layer.{}.attention.output.LayerNorm"),
    "stack/blocks/mlp_in": Layer("encoder.layer.{}.intermediate.dense"),
    "stack/blocks/mlp_out": Layer("encoder.layer.{}.output.dense"),
    "stack/blocks/mlp_norm": Layer("encoder.layer.{}.output.LayerNorm"),
    "pooler": Layer("pooler.dense"),
}
PREFIX = "bert."  # of the models there that have heads
HEADS = {
    "": Layer("cls.predictions"),  # the bias of the tokens
    "transform": Layer("cls.predictions.transform.dense"),
    "norm": Layer("cls.predictions.transform.LayerNorm"),
    "next_sentence": Layer("cls.seq_relationship"),
}
WITHIN = {f"bert/{ours}": Layer(PREFIX + layer.name) for ours, layer in ENCODER.items()}
WITH_HEADS = WITHIN | HEADS
WITH_CLASSES = WITHIN | {"out": Layer("classifier")}
WITH_SPANS = WITHIN | {"out": Layer("qa_outputs")}
NETWORKS: dict[Any, tuple[str, dict[str, Layer]]] = {  # what they are called there, and their layers
    BERT: ("BertModel", ENCODER),
    BERTForPretraining: ("BertForPreTraining", WITH_HEADS),
    BERTClassifier: ("BertForSequenceClassification", WITH_CLASSES),
    BERTTagger: ("BertForTokenClassification", WITH_CLASSES),
    BERTSpans: ("BertForQuestionAnswering", WITH_SPANS),
}
FORMS = {network: Form(layers, transposed=True) for network, (_, layers) in NETWORKS.items()}
SIZES = (
    *("vocab_size", "max_position_embeddings", "type_vocab_size"),
    *("num_hidden_layers", "num_attention_heads", "hidden_size"),
)
FIXED = {
    "hidden_act": ("gelu",),
    "layer_norm_eps": (EPSILON,),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
PARTS = ("embeddings.", "encoder.", "pooler.")  # of an encoder
OLD = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}  # of the first checkpoints
TIED = {  # the output layer, which some files hold a second time
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


def bert_of(directory: str | Path, **options: Any) -> BERT:
    """The BERT that a directory of transformers is of, by its `config.json`; arguments and errors as of `load_bert`."""
    config = read_config(directory, "bert", SIZES)
    numbers = [config[name] for name in SIZES]
    require_form(directory, config, FIXED | {"intermediate_size": (4 * numbers[-1],)})
    return BERT(*numbers, **options)


def load_bert(directory: str | Path, **options: Any) -> tuple[BERT, dict[str, Any]]:
    """A BERT, encoder and pooler, with the weights of a checkpoint of transformers; its heads are passed over.

    The pooler is 0 where the checkpoint has none, as those of masked language models alone.

    Args:
      directory: with `config.json`, and `model.safetensors` or `pytorch_model.bin`.
      options: of the model, such as `dtype` or `dropout`.

    Returns:
      The module, and its variables.

    Raises:
      UserError: for a checkpoint that is not there, not a BERT, of another form than the published ones, or that has
        not just the tensors of the model.
    """
    model = bert_of(directory, **options)
    path, tensors = _read(directory)
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
    return model, _filled(path, tensors, model, ("pooler.",))


def load_bert_for_pretraining(directory: str | Path, **options: Any) -> tuple[BERTForPretraining, dict[str, Any]]:
    """A BERT with its two heads, with the weights of a checkpoint of transformers.

    Pooler and next-sentence head are 0 where the checkpoint has none, as those of masked language models alone.
    Arguments, returns and errors are those of `load_bert`; an output matrix other than the embeddings is an error too.
    """
    model = BERTForPretraining(bert_of(directory, **options))
    path, tensors = _read(directory)
    for name, other in TIED.items():
        tensor = tensors.pop(name, None)
        if tensor is not None and not np.array_equal(tensor, tensors.setdefault(other, tensor)):
            raise UserError(f"{path} has {name} other than {other}; here they are one")
    return model, _filled(path, tensors, model, ("bert.pooler.", "cls.seq_relationship."))


def save_bert(directory: str | Path, model: Any, variables: Any) -> None:
    """Writes a BERT as a checkpoint that `from_pretrained` of the class of its name in transformers reads.

    Args:
      directory: to write to.
      model: one of `NETWORKS`; there taggers and spans have no pooler, and its weights are passed over.
      variables: of the model.

    Raises:
      UserError: if the directory cannot be written.
    """
    bert = getattr(model, "bert", model)
    numbers = (bert.vocabulary, bert.context, bert.types, bert.layers, bert.heads, bert.width)
    config = {
        "model_type": "bert",
        "architectures": [NETWORKS[type(model)][0]],
        **dict(zip(SIZES, numbers, strict=True)),
    }
    config |= {name: allowed[0] for name, allowed in FIXED.items()} | {"intermediate_size": 4 * bert.width}
    if "out" in variables["params"]:
        config["num_labels"] = len(variables["params"]["out"]["bias"])
    write_directory(directory, config, to_names(variables, FORMS[type(model)]))


def _read(directory: str | Path) -> tuple[Path, dict[str, np.ndarray]]:
    path, found = read_tensors(directory)
    tensors = {}
    for name, tensor in found.items():
        for old, new in OLD.items():
            name = name.replace(old, new)
        if not name.endswith("embeddings.position_ids"):  # 0, 1, 2, ..., which older versions saved
            tensors[name] = tensor
    return path, tensors


def _filled(path: Path, tensors: dict[str, np.ndarray], model: Any, optional: tuple[str, ...]) -> Any:
    """The variables; the layers whose names begin with `optional` are 0 where all of a layer is missing."""
    form = FORMS[type(model)]
    like = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    for layer in optional:
        if not any(name.startswith(layer) for name in tensors):
            absent = {name: leaf for name, leaf in shapes(like, form).items() if name.startswith(layer)}
            tensors |= {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in absent.items()}
    try:
        return from_names(tensors, like, form)
    except UserError as error:
        raise UserError(f"{path} does not hold the weights of its {path.parent / 'config.json'}: {error}") from error
