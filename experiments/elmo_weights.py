"""A trained biLM as others read it: its form, its alphabet and its weights, from the directory of a finished run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dlfx.data import sequences, vocabulary
from dlfx.data.vocabulary import Vocabulary
from dlfx.models.sequence.elmo import BiLM
from dlfx.training import checkpoints, rundir
from dlfx.types import Array, UserError
from experiments import finished

WORDS, ALPHABET = "words.json", "alphabet.json"  # in a run directory


class Reader(NamedTuple):
    """A biLM that is trained no more.

    Attributes:
      model: its form.
      variables: `{"params": ...}`.
      alphabet: the letters that it knows.
      longest: letters of a word that it looks at.
      sha256: of its parameters.
    """

    model: Any
    variables: dict[str, Any]
    alphabet: Vocabulary
    longest: int
    sha256: str


def filters(told: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """`["1:32", "2:64"]` as pairs: 32 filters that see one letter, and 64 that see two.

    Raises:
      UserError: if it is not of that form.
    """
    pairs = [part.split(":") for part in told]
    if not pairs or not all(len(pair) == 2 and all(side.isdigit() and int(side) for side in pair) for pair in pairs):
        raise UserError(f"--filters={','.join(told)} is not of the form 1:32,2:64 (letters:filters)")
    return tuple((int(width), int(maps)) for width, maps in pairs)


def make_model(told: Mapping[str, str], alphabet: int, words: int, **types: Any) -> Any:
    """The biLM that flags tell, name to text as `flags.txt` has them."""
    form: dict[str, Any] = {name: int(told[name]) for name in ("width", "layers", "letter_features", "highways")}
    form |= {"filters": filters(told["filters"].split(",")), "dropout": float(told["dropout"])}
    return BiLM(alphabet, words, **form, **types)


def spelled(words: Sequence[str], alphabet: Vocabulary, longest: int) -> np.ndarray:
    """The letters of words between the marks of a beginning and an end, `[W + 1, C]`; those after `longest` are cut.

    Row 0 is the empty word, which stands between two sentences; row k + 1 is of word k.
    """
    marks = alphabet.special
    rows = sequences.encoded(alphabet, ["", *(word[:longest] for word in words)])
    size = int(rows.lengths.max(initial=0)) + 2
    letters = np.full((len(words) + 1, size), marks["<bos>"], np.int32)
    letters[:, 1:] = sequences.padded(rows, np.arange(len(words) + 1), size - 1)
    letters[np.arange(len(letters)), rows.lengths + 1] = marks["<eos>"]
    return letters


def keep(path: Path, words: Vocabulary, alphabet: Vocabulary) -> None:
    """Writes the vocabularies of a run next to its checkpoints."""
    with rundir.explain_os_errors(path):
        vocabulary.save(words, path / WORDS)
        vocabulary.save(alphabet, path / ALPHABET)


def load(path: Path, **types: Any) -> Reader:
    """The biLM of a finished run of experiments.elmo; of a population its first member.

    Args:
      path: the run directory.
      types: `dtype` and `param_dtype` of the computation.

    Raises:
      UserError: it is no such directory.
    """
    told = finished.flags_of(path, "elmo")
    if told is None:
        raise UserError(f"{path} is no finished run of experiments.elmo")
    alphabet, params = vocabulary.read(path / ALPHABET), finished.params_of(path)
    model = make_model(told, alphabet.size, vocabulary.read(path / WORDS).size, **types)
    return Reader(model, {"params": params}, alphabet, int(told["longest_word"]), checkpoints.digest(params))


def layers(model: Any, variables: Any, letters: Array, words: Array, lengths: Array) -> Array:
    """What a biLM makes of sentences, `[B, layers + 1, T, F]`, 0 at padding.

    Args:
      model, variables: of a `Reader`.
      letters: of every word `[W, C]`; row 0 is the boundary of sentences, which the model reads at both ends.
      words: their numbers `[B, T]`, 0 at padding.
      lengths: `[B]`.
    """
    read = model.apply(variables, jnp.take(letters, jnp.pad(words, ((0, 0), (1, 1))), 0), lengths + 2)[:, :, 1:-1]
    return jnp.where((jnp.arange(words.shape[1]) < lengths[:, None])[:, None, :, None], read, 0)
