"""The tasks that a BERT is fine-tuned on: their examples in numbers, their heads, losses and scores."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import labelled_files, labelled_text, packages, questions
from dlfx.data import sequences as batches
from dlfx.data.corpora import hashed
from dlfx.data.questions import Question
from dlfx.data.sequences import Fields
from dlfx.data.vocabulary import Vocabulary
from dlfx.metrics.answers import span_match
from dlfx.metrics.span_counts import f1, span_counts
from dlfx.models.sequence.bert import BERT
from dlfx.models.sequence.bert_heads import BERTClassifier, BERTSpans, BERTTagger
from dlfx.ops.answer_spans import best_span
from dlfx.types import Array, Batch, UserError
from experiments import sequences
from experiments.common import FLAGS, group

with group("Task"):
    flags.DEFINE_enum(
        "task", "classify", ["classify", "tags", "spans"], "the class of a text, the tags of words, or answers"
    )
    flags.DEFINE_string(
        "text_file",
        "",
        "of your own: lines of label TAB text; of word and BIO tag; or questions in the format of SQuAD",
    )
    flags.DEFINE_integer("examples", 200, "labelled examples to train on at most", lower_bound=1)
    flags.DEFINE_integer("longest_answer", 30, "tokens of an answer at most", lower_bound=1)
HELD = 500  # examples for validation that are not of a file, and as many to test
Parts = dict[str, list[Any]]


class Task(NamedTuple):
    """A task.

    Attributes:
      generate: (part, n) to at most n examples.
      read: a file to part to examples.
      text: the text of an example, or its words.
      names: the examples to what classes or tags are called.
      numbers: (vocabulary, examples, names) to what batches are made of.
      head: (encoder, how many names) to the model.
      outputs: (model, variables, batch, options of the call) to logits.
      rows: (logits, batch, names) to what each example adds to loss, count and scores, `[B]` each.
      metrics: these, summed over a split, to what is reported.
      monitor: the one that matters.
    """

    generate: Callable[[str, int], list[Any]]
    read: Callable[[str], Parts]
    text: Callable[[Any], Any]
    names: Callable[[list[Any]], tuple[str, ...]]
    numbers: Callable[[Vocabulary, list[Any], tuple[str, ...]], Fields]
    head: Callable[[BERT, int], Any]
    outputs: Callable[..., Any]
    rows: Callable[[Any, Batch, tuple[str, ...]], dict[str, Array]]
    metrics: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
    monitor: str


def read() -> tuple[tuple[str, ...], Parts]:
    """The names and the examples of the flags; of the training ones no more than `--examples`.

    Raises:
      UserError: if there are none to train on or none to evaluate on.
    """
    task = TASKS[FLAGS.task]
    if FLAGS.text_file:
        found = task.read(FLAGS.text_file)
    else:
        sizes = {"train": FLAGS.examples, "valid": HELD, "test": HELD}
        found = {part: task.generate(part, n) for part, n in sizes.items()}
    names = task.names([example for rows in found.values() for example in rows])
    parts = {part: rows for part, rows in found.items() if rows}
    if len(parts) < 2 or "train" not in parts:
        counts = ", ".join(f"{len(rows)} {part}" for part, rows in parts.items()) or "no"
        raise UserError(f"{FLAGS.text_file} has {counts} examples: too few to learn and to test")
    if len(parts["train"]) > FLAGS.examples:  # chosen by hash, as files are often sorted
        parts["train"] = sorted(parts["train"], key=lambda example: hashed(str(task.text(example))))[: FLAGS.examples]
    return names, parts


def pieces(known: Vocabulary, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of words `[n]`, at least one of each word; and which word each is of."""
    if known.kind == "words":
        return known.encode(words), np.arange(len(words))
    # A space before every word, as within a text.
    found = [known.encode(f" {word}") for word in words]
    unknown = np.array([known.special.get("<unk>", known.special["<eos>"])], np.int32)
    found = [tokens if len(tokens) else unknown for tokens in found]
    return np.concatenate([*found, np.zeros(0, np.int32)]), np.repeat(np.arange(len(words)), [len(t) for t in found])


def _ends(known: Vocabulary) -> tuple[list[int], list[int]]:
    return [known.special["<bos>"]], [known.special["<eos>"]]


def _classes(examples: list[tuple[str, str]]) -> tuple[str, ...]:
    names = tuple(sorted({label for _, label in examples}))
    if len(names) < 2:
        raise UserError(f"{FLAGS.text_file} has {len(names)} labels: there must be two or more to tell apart")
    return names


def _classify_numbers(known: Vocabulary, examples: list[tuple[str, str]], names: tuple[str, ...]) -> Fields:
    cls, sep = _ends(known)
    rows = [np.concatenate([cls, known.encode(text)[: FLAGS.context - 2], sep]) for text, _ in examples]
    return {"tokens": batches.ragged(rows), "label": np.array([names.index(label) for _, label in examples], np.int32)}


def _classify_rows(logits: Array, batch: Batch, names: tuple[str, ...]) -> dict[str, Array]:
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]),
        "count": jnp.ones(len(logits), logits.dtype),
        "accuracy": (logits.argmax(-1) == batch["label"]).astype(logits.dtype),
    }


def _tags(examples: list[labelled_text.Tagged]) -> tuple[str, ...]:
    kinds = {tag[2:] for _, tags in examples for tag in tags if tag != "O"}
    if not kinds:
        raise UserError(f"{FLAGS.text_file} has no entity: every tag is O")
    return ("O", *(f"{letter}-{kind}" for kind in sorted(kinds) for letter in "BI"))


def _tags_numbers(known: Vocabulary, examples: list[labelled_text.Tagged], names: tuple[str, ...]) -> Fields:
    """`places` says where the first tokens of words stand; what the context has no room for is cut off."""
    cls, sep = _ends(known)
    number = {name: k for k, name in enumerate(names)}
    rows, places, tags = [], [], []
    for words, of in examples:
        tokens, word = pieces(known, words)
        tokens, word = tokens[: FLAGS.context - 2], word[: FLAGS.context - 2]
        rows.append(np.concatenate([cls, tokens, sep]))
        places.append(1 + np.flatnonzero(np.diff(word, prepend=-1)))
        tags.append(np.array([number[tag] for tag in of[: len(places[-1])]]))
    return {"tokens": batches.ragged(rows), "places": batches.ragged(places), "tags": batches.ragged(tags)}


def _tags_rows(logits: Array, batch: Batch, names: tuple[str, ...]) -> dict[str, Array]:
    true, lengths, best = batch["tags"], batch["tags_lengths"], logits.argmax(-1)
    there = jnp.arange(true.shape[1]) < lengths[:, None]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, true)
    return {
        "loss": (losses * there).sum(1),
        "count": lengths.astype(logits.dtype),
        "accuracy": ((best == true) & there).sum(1).astype(logits.dtype),
        **span_counts(best, true, lengths, names),
    }


def _tags_metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return sequences.means("loss", "accuracy")(sums) | f1(sums["correct"], sums["predicted"], sums["true"])


def _spans_numbers(known: Vocabulary, examples: list[Question], _: tuple[str, ...]) -> Fields:
    """`passage` says where the passage begins; `start` and `end` are -1 where the answer was cut off with its end."""
    cls, sep = _ends(known)
    rows, ends = [], []
    for example in examples:
        asked = pieces(known, example.question)[0][: (FLAGS.context - 3) // 2]
        tokens, word = pieces(known, example.passage)
        room, begin = FLAGS.context - 3 - len(asked), len(asked) + 2
        rows.append(np.concatenate([cls, asked, sep, tokens[:room], sep]))
        inside = np.flatnonzero((word >= example.first) & (word <= example.last))
        ends.append((begin, begin + inside[0], begin + inside[-1]) if inside[-1] < room else (begin, -1, -1))
    passage, start, end = np.array(ends, np.int32).T
    return {"tokens": batches.ragged(rows), "passage": passage, "start": start, "end": end}


def _spans_outputs(model: Any, variables: Any, batch: Batch, **options: Any) -> tuple[Array, Array]:
    types = (jnp.arange(batch["tokens"].shape[1]) >= batch["passage"][:, None]).astype(jnp.int32)
    return model.apply(variables, batch["tokens"], types, batch["lengths"], **options)


def answers(logits: tuple[Array, Array], batch: Batch) -> tuple[Array, Array]:
    """The first and the last token of the best spans, `[B]` each."""
    return best_span(*logits, _in_passage(batch), FLAGS.longest_answer)


def _in_passage(batch: Batch) -> Array:
    position = jnp.arange(batch["tokens"].shape[1])
    return (position >= batch["passage"][:, None]) & (position < batch["lengths"][:, None] - 1)


def _spans_rows(logits: tuple[Array, Array], batch: Batch, names: tuple[str, ...]) -> dict[str, Array]:
    """Those whose answer was cut off count as wrong, and add nothing to the loss."""
    there, has = _in_passage(batch), batch["start"] >= 0
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(jnp.where(there, x, -1e9), jnp.maximum(batch[end], 0))
        for x, end in zip(logits, ("start", "end"), strict=True)
    ]
    exact, overlap = span_match(*answers(logits, batch), batch["start"], batch["end"])
    return {
        "loss": jnp.where(has, (losses[0] + losses[1]) / 2, 0),
        "count": jnp.ones(len(exact)),
        "exact_match": exact,
        "f1": jnp.where(has, overlap, 0),
    }


TASKS = {
    "classify": Task(
        packages.paragraphs,
        labelled_files.read_labelled,
        lambda example: example[0],
        _classes,
        _classify_numbers,
        lambda bert, size: BERTClassifier(bert, size, FLAGS.dropout),
        lambda model, variables, batch, **options: model.apply(
            variables, batch["tokens"], None, batch["lengths"], **options
        ),
        _classify_rows,
        sequences.means("loss", "accuracy"),
        "accuracy",
    ),
    "tags": Task(
        labelled_text.entities,
        labelled_files.read_tagged,
        lambda example: example[0],
        _tags,
        _tags_numbers,
        lambda bert, size: BERTTagger(bert, size, FLAGS.dropout),
        lambda model, variables, batch, **options: model.apply(
            variables, batch["tokens"], None, batch["lengths"], batch["places"], **options
        ),
        _tags_rows,
        _tags_metrics,
        "f1",
    ),
    "spans": Task(
        questions.gaps,
        questions.read_questions,
        lambda example: [*example.question, *example.passage],
        lambda examples: (),
        _spans_numbers,
        lambda bert, size: BERTSpans(bert),
        _spans_outputs,
        _spans_rows,
        sequences.means("loss", "exact_match", "f1"),
        "f1",
    ),
}
