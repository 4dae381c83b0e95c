"""The sentences of experiments.tagging: flags that choose them, in numbers, and what a batch holds of their words."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import labelled_files, labelled_text, vocabulary
from dlfx.data import sequences as batches
from dlfx.data.labelled_text import Tagged
from dlfx.data.vocabulary import Vocabulary
from dlfx.types import Batch, Stream, UserError
from experiments import elmo_weights
from experiments.common import FLAGS, group

LONGEST_WORD = 20  # letters that are looked at


class Task(NamedTuple):
    """A kind of tagging.

    Attributes:
      scheme: of its tags, see `metrics.spans`.
      generate: (part, n) to n generated sentences.
      read: a file to part to sentences.
      tokens: what a token is.
    """

    scheme: str
    generate: Callable[[str, int], list[Tagged]]
    read: Callable[[str], dict[str, list[Tagged]]]
    tokens: str


TASKS = {
    "segmentation": Task("BMES", labelled_text.segmentation, labelled_text.read_segmented, "character"),
    "entities": Task("BIO", labelled_text.entities, labelled_files.read_tagged, "word"),
}

with group("Tagging"):
    flags.DEFINE_enum("task", "segmentation", list(TASKS), "words of Chinese text, or names in text of words")
    flags.DEFINE_string(
        "text_file", "", "of your own: sentences with spaces between words, or lines of a word and its BIO tag"
    )
    flags.DEFINE_integer("examples", 2000, "generated sentences to train on", lower_bound=1)
    flags.DEFINE_integer("min_count", 1, "tokens that occur less often in training are unknown", lower_bound=1)
    flags.DEFINE_bool("spelling", True, "of entities: a convolution looks at the letters of words")


class Sentences(NamedTuple):
    """Tagged sentences.

    Attributes:
      tags: their names.
      vocabulary: of the training tokens.
      sentences: split to sentences.
      fields: split to `{"tokens": Ragged, "tags": Ragged}` and, where tokens are words, `{"word": Ragged}`.
      words: every word that there is; in `word` the first has the number 1.
      letters: of every word, by its number in `word`, `[W, C]`; None without spelling.
      alphabet: how many letters there are, the padding counted.
    """

    tags: tuple[str, ...]
    vocabulary: Vocabulary
    sentences: dict[str, list[Tagged]]
    fields: dict[str, dict[str, Any]]
    words: tuple[str, ...]
    letters: np.ndarray | None
    alphabet: int


def load() -> Sentences:
    """The sentences of the flags; only splits that hold some."""
    task = TASKS[FLAGS.task]
    sizes = {"train": FLAGS.examples, "valid": 500, "test": 500}
    found = (
        task.read(FLAGS.text_file) if FLAGS.text_file else {part: task.generate(part, n) for part, n in sizes.items()}
    )
    sentences = {part: rows for part, rows in found.items() if rows}
    if len(sentences) < 2 or "train" not in sentences:
        counts = ", ".join(f"{len(rows)} {part}" for part, rows in sentences.items())
        raise UserError(f"{FLAGS.text_file} has only {counts} sentences: too few to learn and to test")
    tags: tuple[str, ...] = tuple("BMES")
    if task.scheme == "BIO":
        kinds = {tag[2:] for rows in sentences.values() for _, of in rows for tag in of if tag != "O"}
        if not kinds:
            raise UserError(f"{FLAGS.text_file} has no entity: every tag is O")
        tags = ("O", *(f"{letter}-{kind}" for kind in sorted(kinds) for letter in "BI"))
    tokens = {part: [row for row, _ in rows] for part, rows in sentences.items()}
    known = vocabulary.words(tokens["train"], ("<pad>", "<unk>"), min_count=FLAGS.min_count)
    numbers = {tag: k for k, tag in enumerate(tags)}
    fields: dict[str, dict[str, Any]] = {
        part: {
            "tokens": batches.encoded(known, tokens[part]),
            "tags": batches.ragged(np.array([numbers[tag] for tag in of]) for _, of in rows),
        }
        for part, rows in sentences.items()
    }
    if task.tokens != "word":
        return Sentences(tags, known, sentences, fields, (), None, 0)
    every = vocabulary.words([row for rows in tokens.values() for row in rows], ("<pad>",))
    for part in fields:
        fields[part]["word"] = batches.encoded(every, tokens[part])
    if not FLAGS.spelling:
        return Sentences(tags, known, sentences, fields, every.symbols[1:], None, 0)
    alphabet = vocabulary.characters(known.symbols[2:], ("<pad>", "<unk>"))
    size = min(LONGEST_WORD, max(map(len, every.symbols[1:])))
    spelled = batches.encoded(alphabet, ["", *every.symbols[1:]])
    letters = batches.padded(spelled, np.arange(every.size), size)
    return Sentences(tags, known, sentences, fields, every.symbols[1:], letters, alphabet.size)


def with_words(stream: Stream, data: Sentences, reader: elmo_weights.Reader | None) -> Stream:
    """A stream of batches with `letters` and `context`, as of `Tagger`, in place of `word`, where there are such.

    A language model is a part of the data here: nothing trains it.
    """
    tables: dict[str, Any] = {} if data.letters is None else {"letters": data.letters}
    if reader:
        tables["spelled"] = elmo_weights.spelled(data.words, reader.alphabet, reader.longest)
        tables["variables"] = reader.variables

    def host(seed: int, i: int) -> Batch:
        batch = stream.host(seed, i)
        names = ("tokens", "lengths", "tags", "mask", *(["word"] if tables else []))
        return {name: batch[name] for name in names if name in batch}

    def fetch(tables: Any, batch: Batch) -> Batch:
        batch = dict(batch)
        word = batch.pop("word", None)
        if data.letters is not None:
            batch["letters"] = jnp.take(tables["letters"], word, 0)
        if reader:
            form = reader.model, tables["variables"], tables["spelled"]
            batch["context"] = elmo_weights.layers(*form, word, batch["lengths"])
        return batch

    return Stream(host, tables, fetch)
