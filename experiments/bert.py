"""Pretrains a BERT: it tells masked tokens, and whether one sentence follows another.

python -m experiments.bert --flagfile=experiments/flagfiles/bert/prose.flags
python -m experiments.bert --text_file=input.txt --tokens=byte_pairs
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlfx.data import corpora, masking, vocabulary
from dlfx.data import sequences as batches
from dlfx.data.sequences import Ragged
from dlfx.data.vocabulary import SPECIAL, Vocabulary
from dlfx.learners.likelihood import likelihood
from dlfx.models.sequence import partition
from dlfx.models.sequence.bert import BERTForPretraining
from dlfx.types import Array, Batch, Key, UserError
from experiments import bert_figures, bert_models, common, finished, sequences, texts
from experiments.common import FLAGS
from experiments.optimizers import optimizer

FLAGS.set_default("tokens", "words")
FLAGS.set_default("vocabulary_size", 4096)


def sentences(documents: tuple[str, ...], known: Vocabulary) -> tuple[Ragged, np.ndarray]:
    """The sentences of documents that have tokens, and which document each is of."""
    rows = [
        (known.encode(sentence), k) for k, document in enumerate(documents) for sentence in corpora.sentences(document)
    ]
    rows = [(row, k) for row, k in rows if len(row)]
    return batches.ragged(row for row, _ in rows), np.array([k for _, k in rows], np.int32)


def make_vocabulary(documents: tuple[str, ...]) -> Vocabulary:
    """The vocabulary of the flags; `<bos>` is [CLS] and `<eos>` is [SEP], and the number after its last is [MASK]."""
    if FLAGS.tokens == "characters":
        raise UserError("--tokens=characters is not for BERT; it is words or byte_pairs")
    if FLAGS.tokens == "words":
        return vocabulary.words(documents, SPECIAL, FLAGS.vocabulary_size)
    return vocabulary.byte_pairs(documents, FLAGS.vocabulary_size, SPECIAL)


def inputs(batch: Batch) -> tuple[Array, ...]:
    """What the model sees of a batch."""
    return tuple(batch[name] for name in ("tokens", "token_types", "lengths", "positions"))


def rows(outputs: tuple[Array, Array], batch: Batch) -> dict[str, Array]:
    """What each pair adds to the metrics, `[B]`."""
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    words, pairs = outputs
    return {
        "masked_loss": (cross_entropy(words, batch["targets"]) * batch["weights"]).sum(1),
        "masked_accuracy": ((words.argmax(-1) == batch["targets"]) * batch["weights"]).sum(1),
        "masked": batch["weights"].sum(1),
        "next_loss": cross_entropy(pairs, batch["not_next"]),
        "next_accuracy": (pairs.argmax(-1) == batch["not_next"]).astype(jnp.float32),
    }


def main(_: Any) -> None:
    with common.begin("bert", texts.label()) as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: text, model, learner, training, figures."""
    sequences.check_batch(session)
    with session.clock.phase("data"):
        corpus = texts.read()
        known = make_vocabulary(corpus.train)
        parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
        data = {part: sentences(documents, known) for part, documents in parts.items() if documents}
    if len(data) < 2:
        raise UserError("there is no text to evaluate on; --fractions must keep some for validation or test")
    symbols = masking.Symbols(known.special["<bos>"], known.special["<eos>"], known.size, len(SPECIAL), known.size)
    model: Any = BERTForPretraining(bert_models.make(session, known.size + 1))

    def init(key: Key, batch: Batch) -> Any:
        return model.init(key, *inputs(batch))

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        found = rows(model.apply(variables, *inputs(batch), train=True, rngs={"dropout": key}), batch)
        # The mean over the masked tokens of a pair and then over pairs: a sum of both losses over one count.
        loss = found["masked_loss"] / jnp.maximum(found["masked"], 1) + found["next_loss"]
        return {"loss": loss.sum(), "count": jnp.float32(len(loss))}, {}

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        found = rows(model.apply(state.variables, *inputs(batch)), batch)
        return {"count": batch["mask"].sum()} | {name: (x * batch["mask"]).sum() for name, x in found.items()}

    def metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {name: sums[name] / sums["masked"] for name in ("masked_loss", "masked_accuracy")}
        found |= {name: sums[name] / sums["count"] for name in ("next_loss", "next_accuracy")}
        return {"loss": found["masked_loss"] + found["next_loss"], **found}

    stream = masking.training_stream(*data["train"], FLAGS.batch_size, FLAGS.context, symbols, **sequences.share())
    size = -(-64 // session.mesh.size) * session.mesh.size
    whole = {
        part: masking.evaluation_stream(*data[part], size, FLAGS.context, symbols, **sequences.share())
        for part in data
        if part != "train"
    }
    splits = {part: sequences.Split(*found, sums, metrics) for part, found in whole.items()}
    first = next(iter(splits))
    learner = likelihood(
        init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name
    )
    fitted = sequences.fit(session, learner, stream, splits, f"{first}_loss", partition=partition.transformer)
    if fitted is None:
        return
    if session.run:
        finished.keep(session.path, known)
    batch = jax.tree.map(lambda x: x[:8], whole[first][0].host(0, 0))
    draw = functools.partial(
        bert_figures.draw, model=model, variables=fitted.state.variables, batch=batch, known=known, split=first
    )
    about = {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "vocabulary": known.size}
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
