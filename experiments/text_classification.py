"""Trains a classifier of texts: TextCNN, a recurrent network of one or two directions, or a Transformer.

python -m experiments.text_classification --flagfile=experiments/flagfiles/text_classification/sentiment_textcnn.flags
python -m experiments.text_classification --text_file=labels.tsv --model=bilstm      # a line each: label TAB text
python -m experiments.text_classification --text_file=labels.tsv --vectors=vectors.txt --channels=both
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import labelled_files, labelled_text, vocabulary
from dlfx.data import sequences as batches
from dlfx.data.vocabulary import Vocabulary
from dlfx.learners.likelihood import likelihood
from dlfx.metrics import classification
from dlfx.models.sequence.text_classifier import (
    CHANNELS,
    ConvolutionalEncoder,
    RecurrentEncoder,
    TextClassifier,
    TransformerEncoder,
    uniform,
)
from dlfx.nn.recurrent import Recurrent
from dlfx.types import Array, Batch, Key, Learner, UserError, unknown
from experiments import common, sequences
from experiments import text_classification_figures as pictures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

Types = dict[str, Any]  # dtype and param_dtype


def _recurrent(cell: str, bidirectional: bool, types: Types) -> RecurrentEncoder:
    dropout = FLAGS.dropout if FLAGS.layers > 1 else 0.0
    return RecurrentEncoder(
        Recurrent(cell, FLAGS.hidden, FLAGS.layers, bidirectional=bidirectional, dropout=dropout, **types)
    )


def _textcnn(types: Types) -> ConvolutionalEncoder:
    try:
        windows = tuple(int(window) for window in FLAGS.windows)
    except ValueError:
        raise UserError(f"--windows={','.join(FLAGS.windows)} must be whole numbers, such as 3,4,5") from None
    return ConvolutionalEncoder(windows, FLAGS.maps, **types)


def _transformer(types: Types) -> TransformerEncoder:
    if FLAGS.hidden % FLAGS.heads or FLAGS.hidden % 2:
        raise UserError(f"--hidden={FLAGS.hidden} must be even and divisible by --heads={FLAGS.heads}")
    return TransformerEncoder(FLAGS.layers, FLAGS.heads, FLAGS.hidden, FLAGS.dropout, **types)


MODELS: dict[str, Callable[[Types], Any]] = {
    "textcnn": _textcnn,
    "rnn": functools.partial(_recurrent, "rnn", False),
    "lstm": functools.partial(_recurrent, "lstm", False),
    "gru": functools.partial(_recurrent, "gru", False),
    "bilstm": functools.partial(_recurrent, "lstm", True),
    "transformer": _transformer,
}

with group("Texts"):
    flags.DEFINE_string("text_file", "", "texts of your own, a line each: label TAB text; by default generated reviews")
    flags.DEFINE_integer("examples", 4000, "generated reviews to train on", lower_bound=1)
    flags.DEFINE_integer("min_count", 1, "words that occur less often in training are unknown", lower_bound=1)
    flags.DEFINE_integer("max_length", 0, "words that longer texts are cut to; 0: none is", lower_bound=0)
with group("Classifier"):
    flags.DEFINE_string("model", "textcnn", f"one of {', '.join(MODELS)}")
    flags.DEFINE_string("vectors", "", "word vectors to begin with, in the text format of word2vec or GloVe")
    flags.DEFINE_enum(
        "channels", "trained", list(CHANNELS), "whether word vectors are trained, or there are two of each"
    )
    flags.DEFINE_integer("features", 64, "numbers in a word vector, unless --vectors says", lower_bound=1)
    flags.DEFINE_list("windows", ["3", "4", "5"], "of textcnn: words that a filter sees")
    flags.DEFINE_integer("maps", 100, "of textcnn: filters of each window", lower_bound=1)
    flags.DEFINE_integer("hidden", 64, "units of each direction, or the width of a Transformer", lower_bound=1)
    flags.DEFINE_integer("layers", 1, "of the recurrent network or Transformer", lower_bound=1)
    flags.DEFINE_integer("heads", 4, "of attention", lower_bound=1)
    flags.DEFINE_float("dropout", 0.5, "before the last layer, and between others", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_float("max_norm", 0.0, "longest vector of weights of a class; Kim has 3; 0: any", lower_bound=0.0)


class Texts(NamedTuple):
    """Labelled texts.

    Attributes:
      labels: names of the classes.
      vocabulary: of the training texts.
      texts: split to texts.
      fields: split to `{"tokens": Ragged, "label": [n]}`.
    """

    labels: tuple[str, ...]
    vocabulary: Vocabulary
    texts: dict[str, list[str]]
    fields: dict[str, dict[str, Any]]


def load() -> Texts:
    """The texts of the flags; only splits that hold some."""
    if FLAGS.text_file:
        pairs = labelled_files.read_labelled(FLAGS.text_file)
    else:
        sizes = {"train": FLAGS.examples, "valid": 1000, "test": 1000}
        names = ("negative", "positive")
        pairs = {
            part: [(text, names[label]) for text, label in labelled_text.reviews(part, n)] for part, n in sizes.items()
        }
    pairs = {part: rows for part, rows in pairs.items() if rows}
    labels = tuple(sorted({label for rows in pairs.values() for _, label in rows}))
    if len(labels) < 2 or len(pairs) < 2 or "train" not in pairs:
        counts = ", ".join(f"{len(rows)} {part}" for part, rows in pairs.items())
        raise UserError(f"{FLAGS.text_file} has {len(labels)} labels in {counts} texts: too few to learn and to test")
    texts = {part: [text for text, _ in rows] for part, rows in pairs.items()}
    words = vocabulary.words(texts["train"], ("<pad>", "<unk>"), min_count=FLAGS.min_count)
    fields = {
        part: {
            "tokens": batches.encoded(words, texts[part]),
            "label": np.array([labels.index(label) for _, label in rows], np.int32),
        }
        for part, rows in pairs.items()
    }
    return Texts(labels, words, texts, fields)


def make_model(session: common.Session, data: Texts) -> TextClassifier:
    """The model of the flags."""
    if FLAGS.model not in MODELS:
        raise unknown("model", FLAGS.model, MODELS)
    if FLAGS.channels != "trained" and not FLAGS.vectors:
        raise UserError(f"--channels={FLAGS.channels} keeps word vectors as they are given: it needs --vectors=FILE")
    features: int = FLAGS.features
    vectors: Any = uniform
    if FLAGS.vectors:
        table, found = labelled_files.read_vectors(FLAGS.vectors, data.vocabulary)
        print(f"{found} of {data.vocabulary.size} words have a vector in {FLAGS.vectors}")
        features, vectors = table.shape[1], lambda key, shape, dtype: jnp.asarray(table, dtype)
    types = {"dtype": session.dtype, "param_dtype": session.param_dtype}
    return TextClassifier(
        data.vocabulary.size,
        len(data.labels),
        features,
        MODELS[FLAGS.model](types),
        FLAGS.channels,
        vectors,
        FLAGS.dropout,
        **types,
    )


def limited(inner: optax.GradientTransformation, limit: float) -> optax.GradientTransformation:
    """An optimizer after whose steps no class has weights of a norm above the limit. Kim 2014, section 2.1."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, state, params)
        old = params["out"]["kernel"]
        kernel = old + updates["out"]["kernel"]
        norm = jnp.linalg.norm(kernel, axis=0)
        kernel = kernel * (limit / jnp.maximum(norm, limit))
        return {**updates, "out": {**updates["out"], "kernel": kernel - old}}, state

    return optax.GradientTransformation(inner.init, update)


def make_learner(session: common.Session, model: Any) -> Learner:
    """Maximum likelihood of the labels."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["tokens"], batch["lengths"])

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        logits = model.apply(variables, batch["tokens"], batch["lengths"], train=True, rngs={"dropout": key})
        sums = classification.sums(logits, batch["label"], jnp.ones(len(logits), logits.dtype))
        extra = {name: value for name, value in variables.items() if name != "params"}
        return {name: sums[name] for name in ("loss", "accuracy", "count")}, extra

    rule = optimizer(FLAGS.steps)
    rule = limited(rule, FLAGS.max_norm) if FLAGS.max_norm else rule
    return likelihood(init, objective, rule, accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def main(_: Any) -> None:
    of = Path(FLAGS.text_file).stem if FLAGS.text_file else "reviews"
    with common.begin("text_classification", f"{FLAGS.model}-{of}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: texts, model, learner, training, figures."""
    sequences.check_batch(session)
    with session.clock.phase("data"):
        data = load()
    model: Any = make_model(session, data)
    longest = batches.longest(*data.fields.values())["tokens"]
    lengths = {"tokens": min(longest, FLAGS.max_length or longest)}
    stream = batches.training_stream(data.fields["train"], FLAGS.batch_size, lengths, **sequences.share())

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        logits = model.apply(state.variables, batch["tokens"], batch["lengths"])
        return classification.sums(logits, batch["label"], batch["mask"])

    rows = -(-256 // session.mesh.size) * session.mesh.size
    splits = {
        part: sequences.Split(
            *batches.evaluation_stream(fields, rows, lengths, **sequences.share()),
            sums,
            sequences.means("loss", "accuracy"),
        )
        for part, fields in data.fields.items()
        if part != "train"
    }
    fitted = sequences.fit(session, make_learner(session, model), stream, splits, f"{next(iter(splits))}_accuracy")
    if fitted is None:
        return
    last = list(splits)[-1]
    draw = functools.partial(
        pictures.draw,
        model=model,
        variables=fitted.state.variables,
        batch=batches.batch_of(data.fields[last], np.arange(len(data.texts[last])), lengths),
        labels=data.labels,
        words=data.vocabulary.symbols,
        split=last,
    )
    common.finish(session, fitted.result, fitted.result.arrays.params, draw)


if __name__ == "__main__":
    common.launch(main)
