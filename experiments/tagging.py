"""Trains a tagger: Chinese word segmentation with BMES tags, or named entities with BIO tags; with a CRF or a softmax.

python -m experiments.tagging --flagfile=experiments/flagfiles/tagging/segmentation_crf.flags
python -m experiments.tagging --flagfile=experiments/flagfiles/tagging/entities_softmax.flags
python -m experiments.tagging --task=entities --text_file=train.conll     # a line each: word and tag
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import labelled_files, labelled_text, vocabulary
from dlfx.data import sequences as batches
from dlfx.data.labelled_text import Tagged
from dlfx.data.vocabulary import Vocabulary
from dlfx.learners.likelihood import likelihood
from dlfx.metrics.span_counts import f1, span_counts
from dlfx.models.sequence.tagger import Tagger
from dlfx.types import Array, Batch, Key, Learner, Stream, UserError
from experiments import common, sequences
from experiments import tagging_figures as pictures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

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
with group("Tagger"):
    flags.DEFINE_enum("output", "crf", ["crf", "softmax"], "one distribution of all tags, or one of each")
    flags.DEFINE_integer("features", 64, "numbers in the embedding of a token", lower_bound=1)
    flags.DEFINE_integer("hidden", 64, "units of each direction of the LSTM", lower_bound=1)
    flags.DEFINE_integer("layers", 1, "of the LSTM", lower_bound=1)
    flags.DEFINE_bool("spelling", True, "of entities: a convolution looks at the letters of words")
    flags.DEFINE_float("dropout", 0.5, "around the LSTM", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_float(
        "word_dropout", 0.05, "share of tokens that are unknown in training", lower_bound=0.0, upper_bound=1.0
    )


class Sentences(NamedTuple):
    """Tagged sentences.

    Attributes:
      tags: their names.
      vocabulary: of the training tokens.
      sentences: split to sentences.
      fields: split to `{"tokens": Ragged, "tags": Ragged}` and, with spelling, `{"word": Ragged}`.
      letters: of every word that there is, by its number in `word`, `[W, C]`; None without spelling.
      alphabet: how many letters there are, the padding counted.
    """

    tags: tuple[str, ...]
    vocabulary: Vocabulary
    sentences: dict[str, list[Tagged]]
    fields: dict[str, dict[str, Any]]
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
    if not (FLAGS.spelling and task.tokens == "word"):
        return Sentences(tags, known, sentences, fields, None, 0)
    every = vocabulary.words([row for rows in tokens.values() for row in rows], ("<pad>",))
    alphabet = vocabulary.characters(known.symbols[2:], ("<pad>", "<unk>"))
    size = min(LONGEST_WORD, max(map(len, every.symbols[1:])))
    spelled = batches.encoded(alphabet, ["", *every.symbols[1:]])
    for part in fields:
        fields[part]["word"] = batches.encoded(every, tokens[part])
    return Sentences(
        tags, known, sentences, fields, batches.padded(spelled, np.arange(every.size), size), alphabet.size
    )


def spelled(batch: Batch, letters: np.ndarray | None) -> Batch:
    """A batch with `letters [B, T, C]` in place of the numbers of words, if there are any."""
    kept = {name: batch[name] for name in ("tokens", "lengths", "tags", "mask") if name in batch}
    return kept if letters is None else {**kept, "letters": letters[batch["word"]]}


def with_letters(stream: Stream, letters: np.ndarray | None) -> Stream:
    """A stream of such batches."""
    return stream._replace(host=lambda seed, i: spelled(stream.host(seed, i), letters))


def make_model(session: common.Session, data: Sentences) -> Tagger:
    """The model of the flags."""
    return Tagger(
        data.vocabulary.size,
        len(data.tags),
        FLAGS.features,
        FLAGS.hidden,
        FLAGS.layers,
        FLAGS.output == "crf",
        data.alphabet,
        dropout=FLAGS.dropout,
        word_dropout=FLAGS.word_dropout,
        unknown=data.vocabulary.special["<unk>"],
        dtype=session.dtype,
        param_dtype=session.param_dtype,
    )


def make_learner(session: common.Session, model: Any) -> Learner:
    """Maximum likelihood of the tags."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["tokens"], batch["lengths"], batch.get("letters"))

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        given = batch["tokens"], batch["lengths"], batch["tags"], batch.get("letters")
        nats = model.apply(variables, *given, train=True, rngs={"dropout": key}, method="loss")
        return {"loss": nats.sum(), "count": batch["lengths"].sum().astype(nats.dtype)}, {}

    return likelihood(init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def make_sums(model: Any, names: Sequence[str], scheme: str) -> Callable[[Any, Batch], dict[str, Array]]:
    """What a batch adds to the metrics of its split."""

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        tokens, lengths, tags, letters = (batch.get(name) for name in ("tokens", "lengths", "tags", "letters"))
        nats = model.apply(state.variables, tokens, lengths, tags, letters, method="loss")
        best = model.apply(state.variables, tokens, lengths, letters, method="decode")
        there = jnp.arange(tokens.shape[1]) < lengths[:, None]
        rows = {
            "loss": nats,
            "count": lengths,
            "accuracy": ((best == tags) & there).sum(1),
            "sentences": jnp.ones_like(lengths),
            "whole": ((best == tags) | ~there).all(1),
            **span_counts(best, tags, lengths, names, scheme),
        }
        return {name: (value * batch["mask"]).sum() for name, value in rows.items()}

    return sums


def metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Loss and accuracy of tags, the share of sentences without a mistake, and precision, recall and F1 of spans."""
    return {
        **sequences.means("loss", "accuracy")(sums),
        "whole_sentences": sums["whole"] / sums["sentences"],
        **f1(sums["correct"], sums["predicted"], sums["true"]),
    }


def main(_: Any) -> None:
    of = Path(FLAGS.text_file).stem if FLAGS.text_file else FLAGS.task
    with common.begin("tagging", f"{FLAGS.output}-{of}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: sentences, model, learner, training, figures."""
    sequences.check_batch(session)
    with session.clock.phase("data"):
        data = load()
    model: Any = make_model(session, data)
    lengths = batches.longest(*data.fields.values())
    stream = batches.training_stream(data.fields["train"], FLAGS.batch_size, lengths, **sequences.share())
    stream = with_letters(stream, data.letters)
    scheme = TASKS[FLAGS.task].scheme
    rows = -(-128 // session.mesh.size) * session.mesh.size
    splits = {}
    for part, fields in data.fields.items():
        if part != "train":
            whole, count = batches.evaluation_stream(fields, rows, lengths, **sequences.share())
            sums = make_sums(model, data.tags, scheme)
            splits[part] = sequences.Split(with_letters(whole, data.letters), count, sums, metrics)
    fitted = sequences.fit(session, make_learner(session, model), stream, splits, f"{next(iter(splits))}_f1")
    if fitted is None:
        return
    last = list(splits)[-1]
    every = batches.batch_of(data.fields[last], np.arange(len(data.sentences[last])), lengths)
    draw = functools.partial(
        pictures.draw,
        model=model,
        variables=fitted.state.variables,
        batch=spelled(every, data.letters),
        sentences=data.sentences[last],
        names=data.tags,
        known=set(data.vocabulary.symbols),
        scheme=scheme,
        split=last,
    )
    common.finish(session, fitted.result, fitted.result.arrays.params, draw)


if __name__ == "__main__":
    common.launch(main)
