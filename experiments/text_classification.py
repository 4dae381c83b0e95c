"""Trains a classifier of texts: TextCNN, a recurrent network of one or two directions, or a Transformer.

python -m experiments.text_classification --flagfile=experiments/flagfiles/text_classification/sentiment_textcnn.flags
python -m experiments.text_classification --text_file=labels.tsv --model=bilstm      # a line each: label TAB text
python -m experiments.text_classification --text_file=labels.tsv --vectors=vectors.txt --channels=both
python -m experiments.text_classification --init_from=DIR     # the encoder of a run of experiments.seq_autoencoder
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import labelled_files, vocabulary
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
from experiments import common, labelled, sentence_encoders, sequences
from experiments import text_classification_figures as pictures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

Types = dict[str, Any]  # dtype and param_dtype


def _recurrent(cell: str, bidirectional: bool, types: Types) -> RecurrentEncoder:
    dropout = FLAGS.dropout if FLAGS.layers > 1 else 0.0
    return RecurrentEncoder(
        Recurrent(
            cell,
            FLAGS.hidden,
            FLAGS.layers,
            bidirectional=bidirectional,
            reverse=FLAGS.reverse,
            dropout=dropout,
            **types,
        )
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
    flags.DEFINE_string(
        "init_from",
        "",
        "a finished run of experiments.seq_autoencoder, whose word vectors and encoder to begin with; it overrides "
        "--model, --features, --hidden, --layers, --reverse and the words",
    )
    flags.DEFINE_string("vectors", "", "word vectors to begin with, in the text format of word2vec or GloVe")
    flags.DEFINE_enum(
        "channels", "trained", list(CHANNELS), "whether word vectors are trained, or there are two of each"
    )
    flags.DEFINE_integer("features", 64, "numbers in a word vector, unless --vectors says", lower_bound=1)
    flags.DEFINE_list("windows", ["3", "4", "5"], "of textcnn: words that a filter sees")
    flags.DEFINE_integer("maps", 100, "of textcnn: filters of each window", lower_bound=1)
    flags.DEFINE_integer("hidden", 64, "units of each direction, or the width of a Transformer", lower_bound=1)
    flags.DEFINE_integer("layers", 1, "of the recurrent network or Transformer", lower_bound=1)
    flags.DEFINE_bool("reverse", False, "recurrent networks of one direction read from the end")
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


def load(known: Vocabulary | None = None) -> Texts:
    """The texts of the flags; only splits that hold some. Words are those of the training texts if none are known."""
    labels, pairs = labelled.read(FLAGS.text_file, FLAGS.examples)
    texts = {part: [text for text, _ in rows] for part, rows in pairs.items()}
    words = known or vocabulary.words(texts["train"], ("<pad>", "<unk>"), min_count=FLAGS.min_count)
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
    if FLAGS.init_from:
        if FLAGS.vectors:
            raise UserError("--init_from has word vectors of its own; leave --vectors out")
        sentence_encoders.take_form(_beginning())
    of = Path(FLAGS.text_file).stem if FLAGS.text_file else "reviews"
    with common.begin("text_classification", f"{FLAGS.model}-{of}") as session:
        run(session)


def _beginning() -> Path:
    return Path(FLAGS.init_from).expanduser()


def run(session: common.Session) -> None:
    """One invocation: texts, model, learner, training, figures."""
    sequences.check_batch(session)
    known, variables = sentence_encoders.load(_beginning()) if FLAGS.init_from else (None, None)
    with session.clock.phase("data"):
        data = load(known)
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
    monitor = f"{next(iter(splits))}_accuracy"
    fitted = sequences.fit(session, make_learner(session, model), stream, splits, monitor, variables)
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
