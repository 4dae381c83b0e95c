"""The BERT of the flags, and BERTs to go on from: finished runs of experiments.bert, and those of transformers."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from dlfx.data import vocabulary
from dlfx.data.vocabulary import Vocabulary
from dlfx.models.sequence.bert import BERT, SIZES
from dlfx.types import UserError
from dlfx.weights.bert import bert_of, load_bert
from experiments import common, finished
from experiments.common import FLAGS, group

with group("BERT"):
    flags.DEFINE_enum("size", "", ["", *SIZES], "a published size; it overrides --layers, --heads and --width")
    flags.DEFINE_integer("context", 64, "tokens of a text or pair of texts, [CLS] and [SEP] counted", lower_bound=8)
    flags.DEFINE_integer("layers", 2, "blocks", lower_bound=1)
    flags.DEFINE_integer("heads", 2, "of attention", lower_bound=1)
    flags.DEFINE_integer("width", 128, "of each layer", lower_bound=1)
    flags.DEFINE_float("dropout", 0.1, "of the model", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_bool("remat", False, "compute blocks again in the backward pass, to save memory")
    flags.DEFINE_integer("unroll", 1, "blocks in one turn of the loop over layers", lower_bound=1)
FORM = ("size", "context", "layers", "heads", "width")  # flags


class Beginning(NamedTuple):
    """A BERT to go on from.

    Attributes:
      vocabulary: `<bos>` is [CLS] and `<eos>` is [SEP].
      tokens: rows of its embeddings.
      params: of the encoder and the pooler, which is None where the model had none.
    """

    vocabulary: Vocabulary
    tokens: int
    params: dict[str, Any]


def make(session: common.Session, tokens: int) -> BERT:
    """The encoder of the flags, with embeddings of so many tokens."""
    form: dict[str, Any] = SIZES.get(FLAGS.size) or {name: FLAGS[name].value for name in ("layers", "heads", "width")}
    if form["width"] % form["heads"]:
        raise UserError(f"--heads={form['heads']} does not divide --width={form['width']}")
    form = form | {name: FLAGS[name].value for name in ("context", "dropout", "remat", "unroll")}
    return BERT(tokens, **form, dtype=session.dtype, param_dtype=session.param_dtype)


def take_form(path: Path, context: int = 0) -> None:
    """Sets the flags of the model to what the one in a directory is. No computation begins.

    Args:
      path: a finished run, or a directory with a BERT of transformers.
      context: one of one's own, if not 0.

    Raises:
      UserError: it is neither, or the model has not learned as many positions.
    """
    if _is_theirs(path):
        model = bert_of(path)
        form: dict[str, Any] = {"size": ""} | {name: getattr(model, name) for name in FORM[1:]}
    else:
        told = finished.flags_of(path, "bert", FORM)
        if told is None:
            raise UserError(f"{path} is neither a finished run of experiments.bert nor a BERT as transformers saves it")
        form = {name: FLAGS[name].parser.parse(told[name]) for name in FORM}
    if context > form["context"]:
        raise UserError(f"--context={context}, but the model in {path} has learned {form['context']} positions")
    for name, value in (form | ({"context": context} if context else {})).items():
        FLAGS[name].value = value


def load(path: Path) -> Beginning:
    """The model in a directory, as far as the context of the flags goes. Of a population it is the first member.

    Raises:
      UserError: it cannot be read, or its vocabulary lacks [CLS] or [SEP] or is larger than its embeddings.
    """
    file = path / ("tokenizer.json" if _is_theirs(path) else finished.VOCABULARY)
    known = vocabulary.read(file)
    params = load_bert(path)[1]["params"] if _is_theirs(path) else finished.params_of(path)["bert"]
    params = jax.tree.map(np.asarray, params)
    for token, name in ("<bos>", "[CLS]"), ("<eos>", "[SEP]"):
        if token not in known.special:
            raise UserError(f"the vocabulary {file} has no {name} ({token}), which BERT needs")
    tokens = len(params["embedding"]["embedding"])
    if known.size > tokens:
        raise UserError(f"{file} has {known.size} tokens, its model {tokens}")
    if len(params["type"]["embedding"]) != 2:
        raise UserError(f"the model in {path} has {len(params['type']['embedding'])} types of tokens; it must have 2")
    params["position"]["embedding"] = params["position"]["embedding"][: FLAGS.context]
    if not params["pooler"]["kernel"].any():  # zeros stand for one that a checkpoint lacks
        params["pooler"] = None
    return Beginning(known, tokens, params)


def _is_theirs(path: Path) -> bool:
    return (path / "config.json").is_file()
