"""Classifiers of texts that begin with the encoder of a finished sequence autoencoder.

Source: Dai and Le 2015, Semi-supervised Sequence Learning (arXiv:1511.01432), section 2.
"""

from pathlib import Path
from typing import Any

from dlfx.data import vocabulary
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import UserError
from experiments import finished
from experiments.common import FLAGS

CELLS = ("rnn", "lstm", "gru")


def take_form(path: Path) -> None:
    """Sets the flags of the classifier to the form of the encoder in a run directory.

    Raises:
      UserError: it holds no finished run of experiments.seq_autoencoder, or one that no classifier is like.
    """
    told = finished.flags_of(path, "seq_autoencoder")
    if told is None:
        raise UserError(f"--init_from={path} holds no finished run of experiments.seq_autoencoder")
    both = told["bidirectional"] == "true"
    if told["tokens"] != "words" or told["cell"] not in (("lstm",) if both else CELLS):
        raise UserError(
            f"--init_from={path} is of --cell={told['cell']} --bidirectional={both} --tokens={told['tokens']}; a "
            f"classifier is of words, and of {', '.join(CELLS)} in one direction or lstm in both"
        )
    form: dict[str, Any] = {
        "model": "bilstm" if both else told["cell"],
        "hidden": int(told["width"]) // (1 + both),
        "layers": int(told["layers"]),
        "features": int(told["features"]),
        "reverse": told["reverse"] == "true" and not both,
    }
    for name, value in form.items():
        FLAGS[name].value = value


def load(path: Path) -> tuple[Vocabulary, dict[str, Any]]:
    """The words of the encoder, and the variables of a `TextClassifier` with it; what it has not is None."""
    params = finished.params_of(path)
    begun = {
        "vectors": params["source_embedding"]["embedding"],
        "encoder": {"network": params["encoder"]},
        "out": {"kernel": None, "bias": None},
    }
    return vocabulary.read(path / finished.VOCABULARY), {"params": begun}
