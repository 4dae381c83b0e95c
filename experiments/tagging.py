"""Trains a tagger: Chinese word segmentation with BMES tags, or named entities with BIO tags; with a CRF or a softmax.

python -m experiments.tagging --flagfile=experiments/flagfiles/tagging/segmentation_crf.flags
python -m experiments.tagging --flagfile=experiments/flagfiles/tagging/entities_softmax.flags
python -m experiments.tagging --task=entities --text_file=train.conll     # a line each: word and tag
python -m experiments.tagging --task=entities --examples=50 --elmo=DIR    # with what a biLM learned without tags
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import sequences as batches
from dlfx.learners.likelihood import likelihood
from dlfx.metrics.span_counts import f1, span_counts
from dlfx.models.sequence.tagger import Tagger
from dlfx.types import Array, Batch, Key, Learner, UserError
from experiments import common, elmo_weights, sequences, tagged
from experiments import tagging_figures as pictures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Tagger"):
    flags.DEFINE_enum("output", "crf", ["crf", "softmax"], "one distribution of all tags, or one of each")
    flags.DEFINE_integer("features", 64, "numbers in the embedding of a token", lower_bound=1)
    flags.DEFINE_integer("hidden", 64, "units of each direction of the LSTM", lower_bound=1)
    flags.DEFINE_integer("layers", 1, "of the LSTM", lower_bound=1)
    flags.DEFINE_float("dropout", 0.5, "around the LSTM", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_float(
        "word_dropout", 0.05, "share of tokens that are unknown in training", lower_bound=0.0, upper_bound=1.0
    )
    flags.DEFINE_string(
        "elmo", "", "of entities: a finished run of experiments.elmo; a mix of its layers is one more part of a word"
    )
    flags.DEFINE_bool("mix_norm", False, "with --elmo: layers are normalised before they are mixed")


def make_model(session: common.Session, data: tagged.Sentences) -> Tagger:
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
        mix_norm=FLAGS.mix_norm,
        dtype=session.dtype,
        param_dtype=session.param_dtype,
    )


def make_learner(session: common.Session, model: Any) -> Learner:
    """Maximum likelihood of the tags."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["tokens"], batch["lengths"], batch.get("letters"), batch.get("context"))

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        given = batch["tokens"], batch["lengths"], batch["tags"], batch.get("letters"), batch.get("context")
        nats = model.apply(variables, *given, train=True, rngs={"dropout": key}, method="loss")
        return {"loss": nats.sum(), "count": batch["lengths"].sum().astype(nats.dtype)}, {}

    return likelihood(init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def make_sums(model: Any, names: Sequence[str], scheme: str) -> Callable[[Any, Batch], dict[str, Array]]:
    """What a batch adds to the metrics of its split."""

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        tokens, lengths, tags = batch["tokens"], batch["lengths"], batch["tags"]
        known = batch.get("letters"), batch.get("context")
        nats = model.apply(state.variables, tokens, lengths, tags, *known, method="loss")
        best = model.apply(state.variables, tokens, lengths, *known, method="decode")
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
    if FLAGS.elmo and tagged.TASKS[FLAGS.task].tokens != "word":
        raise UserError(f"--elmo reads words; the tokens of --task={FLAGS.task} are characters")
    with session.clock.phase("data"):
        data = tagged.load()
        reader = None
        if FLAGS.elmo:
            types = {"dtype": session.dtype, "param_dtype": session.param_dtype}
            reader = elmo_weights.load(Path(FLAGS.elmo).expanduser(), **types)
    model: Any = make_model(session, data)
    lengths = batches.longest(*data.fields.values())
    stream = batches.training_stream(data.fields["train"], FLAGS.batch_size, lengths, **sequences.share())
    stream = tagged.with_words(stream, data, reader)
    scheme = tagged.TASKS[FLAGS.task].scheme
    rows = -(-128 // session.mesh.size) * session.mesh.size
    splits = {}
    for part, fields in data.fields.items():
        if part != "train":
            whole, count = batches.evaluation_stream(fields, rows, lengths, **sequences.share())
            sums = make_sums(model, data.tags, scheme)
            splits[part] = sequences.Split(tagged.with_words(whole, data, reader), count, sums, metrics)
    fitted = sequences.fit(session, make_learner(session, model), stream, splits, f"{next(iter(splits))}_f1")
    if fitted is None:
        return
    last = list(splits)[-1]
    every, _ = batches.evaluation_stream(data.fields[last], len(data.sentences[last]), lengths)
    shown = tagged.with_words(every, data, reader)

    def decode(batch: Batch) -> Array:
        batch = shown.fetch(shown.arrays, batch)
        given = batch["tokens"], batch["lengths"], batch.get("letters"), batch.get("context")
        return model.apply(fitted.state.variables, *given, method="decode")

    draw = functools.partial(
        pictures.draw,
        decode=jax.jit(decode),
        params=fitted.state.params,
        batch=shown.host(0, 0),
        sentences=data.sentences[last],
        names=data.tags,
        known=set(data.vocabulary.symbols),
        scheme=scheme,
        split=last,
    )
    about = {"elmo_sha256": reader.sha256} if reader else {}
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
