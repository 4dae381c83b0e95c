"""The sentences of an experiment: those of a corpus, or labelled texts, in numbers."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags

from dlfx.data import corpora, vocabulary
from dlfx.data import sequences as batches
from dlfx.data.vocabulary import SPECIAL, Vocabulary
from dlfx.types import UserError
from experiments import labelled, texts
from experiments.common import FLAGS, Session, group

REVIEWS = "reviews"

with group("Sentences"):
    flags.DEFINE_string(
        "labelled",
        "",
        f"texts with labels instead: {REVIEWS}, which are generated, or a file of yours, a line each: label TAB text",
    )
    flags.DEFINE_integer("examples", 4000, f"of --labelled={REVIEWS} to train on", lower_bound=1)
    flags.DEFINE_integer("shortest", 3, "sentences of fewer tokens are left out", lower_bound=1)
    flags.DEFINE_integer("longest", 20, "sentences of more tokens are left out", lower_bound=1)


class Sentences(NamedTuple):
    """Sentences by split, `train` and at least one more, each of them in one place only.

    Attributes:
      name: what to call them.
      sha256: of all of them.
      vocabulary: of the training sentences, with all special tokens.
      texts: as they were written.
      rows: their numbers, each `[length]` int32.
      labels: names of the classes; none of sentences without.
      classes: `[n]`, the class of each; empty without labels.
    """

    name: str
    sha256: str
    vocabulary: Vocabulary
    texts: dict[str, list[str]]
    rows: dict[str, list[np.ndarray]]
    labels: tuple[str, ...]
    classes: dict[str, np.ndarray]


def label() -> str:
    """The sentences in the name of a directory."""
    return Path(FLAGS.labelled).stem if FLAGS.labelled else texts.label()


def load(session: Session) -> Sentences:
    """The sentences of the flags.

    Raises:
      UserError: if none are left to train or to evaluate on; see also `texts.read` and `labelled.read`.
    """
    if FLAGS.shortest > FLAGS.longest:
        raise UserError(
            f"--shortest={FLAGS.shortest} is above --longest={FLAGS.longest}: no sentence is of that length"
        )
    with session.clock.phase("data"):
        labels, pairs = _read()
        known = _vocabulary([text for text, _ in pairs["train"]])
        digest, seen = hashlib.sha256(), set()
        kept: dict[str, list[tuple[str, np.ndarray, str]]] = {}
        for split, listed in pairs.items():
            kept[split] = []
            for text, of in listed:
                row = known.encode(text)
                # A sentence that was trained on says nothing in a test.
                if FLAGS.shortest <= len(row) <= FLAGS.longest and text not in seen:
                    seen.add(text)
                    kept[split].append((text, row, of))
                    digest.update(f"{of}\t{text}\n".encode("utf-8", "surrogatepass"))
        kept = {split: listed for split, listed in kept.items() if listed}
    if "train" not in kept or len(kept) < 2:
        counts = ", ".join(f"{len(listed)} {split}" for split, listed in kept.items()) or "none"
        raise UserError(
            f"of --shortest={FLAGS.shortest} to --longest={FLAGS.longest} tokens there are too few sentences to train "
            f"and to evaluate on: {counts}"
        )
    numbers = {of: k for k, of in enumerate(labels)}
    return Sentences(
        label(),
        digest.hexdigest(),
        known,
        {split: [text for text, _, _ in listed] for split, listed in kept.items()},
        {split: [row for _, row, _ in listed] for split, listed in kept.items()},
        labels,
        {split: np.array([numbers[of] for _, _, of in listed], np.int32) for split, listed in kept.items()}
        if labels
        else {},
    )


def fields(rows: list[np.ndarray], end: int, reverse: bool) -> batches.Fields:
    """Sentences to be written again: `source` as the encoder reads it, `target` with `<eos>`."""
    return {
        "source": batches.ragged(row[::-1] if reverse else row for row in rows),
        "target": batches.ragged(np.append(row, end) for row in rows),
    }


def _read() -> tuple[tuple[str, ...], dict[str, list[tuple[str, str]]]]:
    """The labels, and (text, label) of every split; without labels they are empty."""
    if FLAGS.labelled:
        return labelled.read("" if FLAGS.labelled == REVIEWS else FLAGS.labelled, FLAGS.examples)
    corpus = texts.read()
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    return (), {
        split: [(" ".join(sentence.split()), "") for document in documents for sentence in corpora.sentences(document)]
        for split, documents in parts.items()
    }


def _vocabulary(train: list[str]) -> Vocabulary:
    if FLAGS.tokens == "characters":
        return vocabulary.characters(train, SPECIAL)
    if FLAGS.tokens == "words":
        return vocabulary.words(train, SPECIAL, FLAGS.vocabulary_size)
    return vocabulary.byte_pairs(train, FLAGS.vocabulary_size or 2048, SPECIAL)
