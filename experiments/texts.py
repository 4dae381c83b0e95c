"""The texts of an experiment: flags that choose them, their vocabulary, and the tokens of each split."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from dlfx.data import corpora, labelled_text, vocabulary
from dlfx.data.corpora import joined
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import UserError
from experiments.common import FLAGS, Session, group

with group("Text"):
    flags.DEFINE_string(
        "corpus",
        "python_prose",
        "python_prose, the docstrings of Python's library; entities, generated sentences, those of experiments.tagging "
        "without their tags; or tfds:NAME of a prepared TFDS set",
    )
    flags.DEFINE_string("text_file", "", "a UTF-8 text of your own instead")
    flags.DEFINE_string("data_dir", "", "the TFDS directory; by default $TFDS_DATA_DIR or ~/tensorflow_datasets")
    flags.DEFINE_list("fractions", ["0.9", "0.05", "0.05"], "of --text_file for training, validation and test")
    flags.DEFINE_enum("tokens", "characters", ["characters", "words", "byte_pairs"], "what the text is cut into")
    flags.DEFINE_integer("vocabulary_size", 0, "of words or byte pairs; 0: all words, 2,048 byte pairs", lower_bound=0)
ENTITIES = {"train": 20000, "valid": 500, "test": 500}  # sentences


class Texts(NamedTuple):
    """A corpus in numbers.

    Attributes:
      name: what to call it.
      sha256: of its text.
      vocabulary: of its tokens.
      tokens: split to numbers `[n]` int32; only splits that hold something.
      characters: split to how many characters of text these are; empty for words, of which a text cannot be had back.
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    tokens: dict[str, np.ndarray]
    characters: dict[str, int]


def label() -> str:
    """The text in the name of a directory."""
    return Path(FLAGS.text_file).stem if FLAGS.text_file else FLAGS.corpus.replace(":", "-").replace("/", "-")


def read() -> corpora.Corpus:
    """The corpus of the flags.

    Raises:
      UserError: for an unknown corpus, or see those of `data.corpora`.
    """
    if FLAGS.text_file:
        try:
            fractions = tuple(float(part) for part in FLAGS.fractions)
        except ValueError:
            fractions = ()
        if len(fractions) != 3:
            raise UserError(f"--fractions={','.join(FLAGS.fractions)} must be three numbers, such as 0.9,0.05,0.05")
        return corpora.text_file(FLAGS.text_file, fractions)
    if FLAGS.corpus.startswith("tfds:"):
        return corpora.tfds(FLAGS.corpus.removeprefix("tfds:"), FLAGS.data_dir)
    if FLAGS.corpus == "entities":
        parts = [[" ".join(words) for words, _ in labelled_text.entities(part, n)] for part, n in ENTITIES.items()]
        return corpora.corpus("entities", *parts)
    if FLAGS.corpus != "python_prose":
        raise UserError(
            f"unknown corpus {FLAGS.corpus!r} (there is python_prose, entities, tfds:NAME, and --text_file=FILE)"
        )
    return corpora.python_prose()


def load(session: Session, known: Vocabulary | None = None) -> Texts:
    """The texts of the flags in numbers.

    Args:
      session: of this run.
      known: a vocabulary to encode them with; None makes one, of characters over all splits, else of the training text.
    """
    with session.clock.phase("data"):
        corpus = read()
        texts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
        whole = {split: joined(documents) for split, documents in texts.items() if documents}
        vocab = known or _vocabulary(whole)
        tokens = {split: vocab.encode(text) for split, text in whole.items()}
    characters = {} if vocab.kind == "words" else {split: len(text) for split, text in whole.items()}
    return Texts(corpus.name, corpus.sha256, vocab, tokens, characters)


def _vocabulary(whole: dict[str, str]) -> Vocabulary:
    if FLAGS.tokens == "characters":  # an alphabet is no secret of the test text
        return vocabulary.characters(whole.values())
    if FLAGS.tokens == "words":
        return vocabulary.words(whole["train"], ("<unk>",), FLAGS.vocabulary_size)
    return vocabulary.byte_pairs(whole["train"], FLAGS.vocabulary_size or 2048)
