"""Trains an autoencoder of sentences: an encoder reads one into a vector, from which a decoder writes it again.

python -m experiments.seq_autoencoder --flagfile=experiments/flagfiles/seq_autoencoder/prose.flags
python -m experiments.seq_autoencoder --text_file=mine.txt --tokens=words --vocabulary_size=4000 --noise=0.2
python -m experiments.seq_autoencoder --labelled=labels.tsv      # a line each: label TAB text

What the vectors, the codes, are good for is measured at the end: which training sentences are nearest to a test
sentence, by how many edits they differ, and with labels how often they share its label, and what a linear classifier
makes of the codes of a few sentences; next to the codes of the same network before training and to counts of words.
Training never sees a label.

Source: Sutskever, Vinyals and Le 2014 (arXiv:1409.3215), the network and the reversed input; Dai and Le 2015,
Semi-supervised Sequence Learning (arXiv:1511.01432), a sequence's autoencoder; Bowman et al. 2016, Generating Sentences
from a Continuous Space (arXiv:1511.06349), section 3.1, --word_dropout.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import sequences as batches
from dlfx.learners.likelihood import likelihood
from dlfx.models.sequence.seq2seq import Seq2Seq
from dlfx.nn.recurrent import GATES
from dlfx.ops import decoding
from dlfx.training import rundir
from dlfx.types import Array, Batch, Key, Learner, UserError
from experiments import codes, common, finished, sentences, sequences
from experiments import seq_autoencoder_figures as pictures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer
from experiments.sentences import Sentences

with group("Sequence autoencoder"):
    flags.DEFINE_enum("cell", "lstm", list(GATES), "of encoder and decoder")
    flags.DEFINE_bool("bidirectional", False, "the encoder reads from both ends")
    flags.DEFINE_integer("layers", 1, "of encoder and decoder each", lower_bound=1)
    flags.DEFINE_integer("width", 256, "of each layer; the code has as many numbers for each, with LSTMs twice", 1)
    flags.DEFINE_integer("features", 64, "of embeddings", lower_bound=1)
    flags.DEFINE_bool("reverse", True, "an encoder of one direction reads from behind, and ends at what comes first")
    flags.DEFINE_float("dropout", 0.0, "of embeddings, between layers and before the logits", 0.0, 0.999)
    flags.DEFINE_float(
        "word_dropout", 0.0, "part of the words that the decoder reads as <unk>, and must know", 0.0, 1.0
    )
    flags.DEFINE_float("noise", 0.0, "part of the words that the encoder reads as <unk>, to be denoised", 0.0, 0.999)
FLAGS.set_default("tokens", "words")
FLAGS.set_default("batch_size", 64)
FLAGS.set_default("log_every", 100)
FLAGS.set_default("eval_every", 1000)
FLAGS.set_default("checkpoint_every", 1000)
ROWS = 128  # of an evaluation


def make_model(session: common.Session, size: int) -> Seq2Seq:
    """The model of the flags."""
    return Seq2Seq(
        size,
        size,
        "none",
        FLAGS.cell,
        FLAGS.width,
        FLAGS.features,
        FLAGS.layers,
        FLAGS.bidirectional,
        FLAGS.dropout,
        dtype=session.dtype,
        param_dtype=session.param_dtype,
    )


def hidden(key: Key, tokens: Array, part: float, unk: int) -> Array:
    """The tokens, so large a part of them unknown."""
    return jnp.where(jax.random.bernoulli(key, part, tokens.shape), unk, tokens) if part else tokens


def shifted(target: Array, bos: int) -> Array:
    """What the decoder has read before it writes each token."""
    return jnp.pad(target[:, :-1], ((0, 0), (1, 0)), constant_values=bos)


def there(batch: Batch) -> Array:
    """Which tokens of the targets `[B, T]` count."""
    return jnp.arange(batch["target"].shape[1]) < batch["target_lengths"][:, None]


def make_learner(session: common.Session, model: Any, special: dict[str, int]) -> Learner:
    """Maximum likelihood of every token of a sentence, given those before it and the code of the whole."""
    unk = special.get("<unk>", -1)
    if unk < 0 and (FLAGS.noise or FLAGS.word_dropout):
        raise UserError(f"--noise and --word_dropout need a token <unk>, which --tokens={FLAGS.tokens} has not")

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["source"], batch["target"], batch["source_lengths"])

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        noise, word_dropout, dropout = jax.random.split(key, 3)
        source = hidden(noise, batch["source"], FLAGS.noise, unk)
        given = shifted(hidden(word_dropout, batch["target"], FLAGS.word_dropout, unk), special["<bos>"])
        logits = model.apply(variables, source, given, batch["source_lengths"], train=True, rngs={"dropout": dropout})
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
        return {"loss": (losses * there(batch)).sum(), "count": there(batch).sum(dtype=losses.dtype)}, {}

    return likelihood(init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def rewrite(model: Any, variables: Any, batch: Batch, special: dict[str, int]) -> Array:
    """What the decoder writes from the codes alone `[B, T]`, the likeliest token each time, 0 behind its `<eos>`."""

    def step(state: Any, tokens: Array) -> tuple[Any, Array]:
        logits, state = model.apply(variables, tokens[:, None], state, method="decode")
        return state, logits[:, 0]

    state = model.apply(variables, batch["source"], batch["source_lengths"], method="start")
    first = jnp.full(len(batch["source"]), special["<bos>"])
    return decoding.greedy(step, state, first, batch["target"].shape[1], special["<eos>"]).tokens


def encode(model: Any, variables: Any, batch: Batch) -> Array:
    """The codes `[B, D]`: all that the decoder learns of a sentence, the last states of every layer."""
    state = model.apply(variables, batch["source"], batch["source_lengths"], method="start").state
    return jnp.concatenate(jax.tree.leaves(state), -1).astype(jnp.float32)


def whole(function: Any, fields: batches.Fields, lengths: dict[str, int]) -> np.ndarray:
    """What a function of batches gives for all examples, `[n, ...]`."""
    stream, count = batches.evaluation_stream(fields, ROWS, lengths)
    return np.concatenate([np.asarray(function(stream.host(0, i))) for i in range(count)])[: batches.size_of(fields)]


def main(_: Any) -> None:
    with common.begin("seq_autoencoder", f"{FLAGS.cell}-{sentences.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: sentences, model, learner, training, what the codes are good for, figures."""
    sequences.check_batch(session)
    data = sentences.load(session)
    special = data.vocabulary.special
    reverse = FLAGS.reverse and not FLAGS.bidirectional
    fields = {split: sentences.fields(rows, special["<eos>"], reverse) for split, rows in data.rows.items()}
    lengths = batches.longest(*fields.values())
    model: Any = make_model(session, data.vocabulary.size)
    stream = batches.training_stream(fields["train"], FLAGS.batch_size, lengths, **sequences.share())
    unk = special.get("<unk>", -1)

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        target, counted = batch["target"], there(batch) * batch["mask"][:, None]
        logits = model.apply(
            state.variables, batch["source"], shifted(target, special["<bos>"]), batch["source_lengths"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, target) * counted
        # An <unk> is never right: it is not the word that was read.
        right = (rewrite(model, state.variables, batch, special) == target) & (target != unk)
        exact = (right.all(-1) * batch["mask"]).sum()
        found = {"loss": losses.sum(), "right": (right * counted).sum(), "count": counted.sum(), "exact": exact}
        return {**found, "sentences": batch["mask"].sum()}

    def metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            "loss": sums["loss"] / sums["count"],
            "token_accuracy": sums["right"] / sums["count"],
            "exact_match": sums["exact"] / sums["sentences"],
        }

    rows = -(-ROWS // session.mesh.size) * session.mesh.size
    splits = {
        split: sequences.Split(*batches.evaluation_stream(held, rows, lengths, **sequences.share()), sums, metrics)
        for split, held in fields.items()
        if split != "train"
    }
    learner = make_learner(session, model, special)
    fitted = sequences.fit(session, learner, stream, splits, f"{next(iter(splits))}_loss")
    if fitted is None:
        return
    if session.run:
        finished.keep(session.path, data.vocabulary)
    result, last = fitted.result, list(splits)[-1]
    encoder, writer = (
        jax.jit(functools.partial(of, model)) for of in (encode, functools.partial(rewrite, special=special))
    )
    with session.clock.phase("codes"):
        found = whole(functools.partial(writer, fitted.state.variables), fields[last], lengths)
        drawn = jax.jit(learner.init)(jax.random.key(FLAGS.seed), stream.host(FLAGS.seed, 0))

        def of(variables: Any) -> codes.Vectors:
            parts = (whole(functools.partial(encoder, variables), fields[split], lengths) for split in ("train", last))
            return codes.Vectors(*parts)

        vectors = {
            "code": of(fitted.state.variables),
            "untrained encoder": of(drawn.variables),
            **codes.counted(data, last),
        }
        neighbours = {name: codes.neighbours(each) for name, each in vectors.items()}
        about: dict[str, Any] = {
            "sentences": {split: len(listed) for split, listed in data.texts.items()},
            "sentences_sha256": data.sha256,
            "vocabulary": data.vocabulary.size,
            "code": vectors["code"].held.shape[1],
            "nearest_edits": {name: codes.nearest_edits(data, last, each) for name, each in neighbours.items()},
            "by_length": pictures.by_length(data, last, found),
        }
        if data.labels:
            about["same_label"] = {name: codes.same_label(data, last, each) for name, each in neighbours.items()}
            about["probe"] = {name: codes.probe(data, last, each) for name, each in vectors.items()}
        result = result._replace(metrics=result.metrics | _of_members(result, data, last, of))
    draw = functools.partial(
        pictures.draw, data=data, split=last, found=found, vectors=vectors, neighbours=neighbours, about=about
    )
    common.finish(session, result, result.arrays.params, draw, about)


def _of_members(result: Any, data: Sentences, split: str, of: Any) -> dict[str, Any]:
    """What the codes of every member of a population are good for."""
    states = [result.arrays.variables]
    if FLAGS.num_seeds > 1:
        states = [jax.tree.map(lambda x, k=k: x[k], result.arrays.variables) for k in range(FLAGS.num_seeds)]
    rows = []
    for vectors in map(of, states):
        near = codes.neighbours(vectors)
        rows.append({"nearest_edits": codes.nearest_edits(data, split, near)})
        if data.labels:
            rows[-1]["same_label"] = codes.same_label(data, split, near)
            rows[-1]["probe_accuracy"] = codes.probe(data, split, vectors)["accuracy"][-1]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {f"{split}_{name}": rundir.spread(x if len(x) > 1 else x[0]) for name, x in values.items()}


if __name__ == "__main__":
    common.launch(main)
