"""Language models to go on from: finished runs of experiments.lm, and GPT-2 as transformers saves it."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlfx.data import vocabulary
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import UserError
from dlfx.weights.gpt2 import gpt2_of, load_gpt2
from experiments import finished
from experiments.common import FLAGS

FORM = ("model", "size", "context", "layers", "heads", "width", "bias", "positions", "tied")  # flags


def take_form(path: Path, context: int = 0) -> None:
    """Sets the flags of the model to what the one in a directory is. No computation begins.

    Args:
      path: a finished run, or a directory with a GPT-2.
      context: one of one's own, if not 0.

    Raises:
      UserError: it is neither, or the model has not learned as many positions.
    """
    if _is_gpt2(path):
        model = gpt2_of(path)
        numbers = {name: getattr(model, name) for name in ("context", "layers", "heads", "width")}
        form: dict[str, Any] = {"model": "gpt", "size": "", "bias": True, "positions": "learned", **numbers}
    else:
        told = _told(path)
        form = {name: FLAGS[name].parser.parse(told[name]) for name in FORM}
    if context > form["context"] and form["model"] == "gpt" and form["positions"] == "learned":
        raise UserError(f"--context={context}, but the model in {path} has learned {form['context']} positions")
    for name, value in (form | ({"context": context} if context else {})).items():
        FLAGS[name].value = value


def load(path: Path) -> tuple[Vocabulary, dict[str, Any]]:
    """The vocabulary and the variables of the model in a directory, as far as the context of the flags goes.

    Of a population it is the first member. Rows of GPT-2's embeddings that no token has are left out.

    Raises:
      UserError: it cannot be read, or a GPT-2 has fewer embeddings than its vocabulary.
    """
    variables: dict[str, Any]
    if _is_gpt2(path):
        known, (model, variables) = vocabulary.read(path / "tokenizer.json"), load_gpt2(path)
        if known.size > model.vocabulary:
            raise UserError(f"{path / 'tokenizer.json'} has {known.size} tokens, its model {model.vocabulary}")
    else:
        _told(path)
        known, variables = vocabulary.read(path / finished.VOCABULARY), {"params": finished.params_of(path)}
    params = jax.tree.map(np.asarray, variables["params"])
    params["embedding"]["embedding"] = params["embedding"]["embedding"][: known.size]
    if "position" in params:
        params["position"]["embedding"] = params["position"]["embedding"][: FLAGS.context]
    return known, {"params": params}


def _is_gpt2(path: Path) -> bool:
    return (path / "config.json").is_file()


def _told(path: Path) -> dict[str, str]:
    """The flags of a finished run."""
    told = finished.flags_of(path, "lm", FORM)
    if told is None:
        raise UserError(f"{path} is neither a finished run of experiments.lm nor a GPT-2 as transformers saves it")
    return told
