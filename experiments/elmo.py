"""Trains ELMo's language model in both directions on a text of words, which it reads letter by letter.

python -m experiments.elmo --flagfile=experiments/flagfiles/elmo/prose.flags
python -m experiments.elmo --text_file=input.txt --ask=play,bank --workdir=DIR
python -m experiments.tagging --task=entities --elmo=DIR         # its vectors at work

It learns on windows at random places, of --context words and the one after, and is evaluated on windows side by side;
each begins without a past or, backward, a future. An empty word stands between two sentences.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import corpora, text, vocabulary
from dlfx.data.vocabulary import SPECIAL, Vocabulary, split_words
from dlfx.learners.likelihood import likelihood
from dlfx.types import Array, Batch, Key, Stream, UserError
from experiments import common, elmo_figures, elmo_weights, sequences, texts
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("ELMo"):
    flags.DEFINE_integer("context", 32, "words of a window", lower_bound=1)
    flags.DEFINE_integer("width", 128, "of a word's vector and of every LSTM", lower_bound=1)
    flags.DEFINE_integer("layers", 2, "LSTMs of each direction", lower_bound=1)
    flags.DEFINE_float("dropout", 0.1, "of what goes into LSTMs and the softmax", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_integer("letter_features", 16, "numbers in the embedding of a letter", lower_bound=1)
    flags.DEFINE_list("filters", ["1:16", "2:32", "3:64", "4:64"], "convolutions over letters, width:filters")
    flags.DEFINE_integer("highways", 2, "highway layers over the convolutions", lower_bound=0)
    flags.DEFINE_integer("longest_word", 20, "letters of a word that are looked at", lower_bound=1)
    flags.DEFINE_list("ask", ["set", "call", "return"], "words whose meanings in context are drawn")
FLAGS.set_default("tokens", "words")
FLAGS.set_default("vocabulary_size", 4096)


class Words(NamedTuple):
    """A text as numbers of its words.

    Attributes:
      corpus: it came from.
      every: all words that occur, of all splits; number 0 is the boundary of sentences.
      known: the words that can be predicted, those of training.
      alphabet: the letters of training.
      letters: of every word `[W, C]`.
      targets: the number in `known` of every word `[W]`.
      numbers: split to `[n]`, only splits that hold some.
    """

    corpus: corpora.Corpus
    every: Vocabulary
    known: Vocabulary
    alphabet: Vocabulary
    letters: np.ndarray
    targets: np.ndarray
    numbers: dict[str, np.ndarray]


def load() -> Words:
    """The text of the flags."""
    if FLAGS.tokens != "words":
        raise UserError(f"--tokens={FLAGS.tokens} is not for ELMo, which reads words")
    corpus = texts.read()
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    split = {
        part: [split_words(sentence) for document in documents for sentence in corpora.sentences(document)]
        for part, documents in parts.items()
    }
    split = {part: rows for part, rows in split.items() if rows}
    if "train" not in split or len(split) < 2:
        raise UserError("there is no text to train and to evaluate on; --fractions must keep some for both")
    every = vocabulary.words([row for rows in split.values() for row in rows], ("<pad>",))
    known = vocabulary.words(split["train"], ("<unk>", "<eos>"), FLAGS.vocabulary_size)
    alphabet = vocabulary.characters({word for row in split["train"] for word in row}, SPECIAL)
    targets = known.encode(every.symbols)
    targets[0] = known.special["<eos>"]
    numbers = {
        part: np.concatenate([np.zeros(1, np.int32), *(np.append(every.encode(row), np.int32(0)) for row in rows)])
        for part, rows in split.items()
    }
    letters = elmo_weights.spelled(every.symbols[1:], alphabet, FLAGS.longest_word)
    return Words(corpus, every, known, alphabet, letters, targets, numbers)


def with_letters(stream: Stream, data: Words) -> Stream:
    """A stream of windows of words, with `letters [B, T + 1, C]` and `targets [B, T + 1]` in place of `tokens`."""

    def fetch(arrays: Any, batch: Batch) -> Batch:
        text, tables = arrays
        batch = dict(stream.fetch(text, batch))
        tokens = batch.pop("tokens")
        return {name: jnp.take(table, tokens, 0) for name, table in tables.items()} | batch

    return stream._replace(
        arrays=(stream.arrays, {"letters": text.compact(data.letters), "targets": data.targets}), fetch=fetch
    )


def main(_: Any) -> None:
    with common.begin("elmo", texts.label()) as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: text, model, learner, training, figures."""
    sequences.check_batch(session)
    elmo_weights.filters(FLAGS.filters)
    with session.clock.phase("data"):
        data = load()
    model = elmo_weights.make_model(
        session.flags, data.alphabet.size, data.known.size, dtype=session.dtype, param_dtype=session.param_dtype
    )
    losses = functools.partial(model.apply, method="losses")

    def init(key: Key, batch: Batch) -> Any:
        return model.init(key, batch["letters"], batch["targets"], method="losses")

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        found = losses(variables, batch["letters"], batch["targets"], train=True, rngs={"dropout": key})
        forward, backward = (nats.sum() for nats in found)
        return {"loss": (forward + backward) / 2, "count": jnp.asarray(found[0].size, forward.dtype)}, {}

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        # The backward model's targets are the window's words but the last: one for each of the forward model's.
        forward, backward = losses(state.variables, batch["letters"], batch["targets"])
        found = {"forward": forward, "backward": backward, "count": jnp.ones_like(forward)}
        return {name: (nats * batch["mask"]).sum() for name, nats in found.items()}

    def metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        forward, backward = (sums[name] / sums["count"] for name in ("forward", "backward"))
        return {
            "loss": (forward + backward) / 2,
            "forward_perplexity": np.exp(forward),
            "backward_perplexity": np.exp(backward),
        }

    stream = text.window_stream(data.numbers["train"], FLAGS.batch_size, FLAGS.context, **sequences.share())
    rows = -(-64 // session.mesh.size) * session.mesh.size
    splits = {}
    for part, numbers in data.numbers.items():
        if part != "train":
            whole, count = text.evaluation_stream(numbers, rows, FLAGS.context, **sequences.share())
            splits[part] = sequences.Split(with_letters(whole, data), count, sums, metrics)
    learner = likelihood(
        init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name
    )
    first = next(iter(splits))
    fitted = sequences.fit(session, learner, with_letters(stream, data), splits, f"{first}_loss")
    if fitted is None:
        return
    if session.run:
        elmo_weights.keep(session.path, data.known, data.alphabet)
    draw = functools.partial(
        elmo_figures.draw,
        model=model,
        variables=fitted.state.variables,
        letters=data.letters,
        words=data.every.symbols,
        numbers=data.numbers[first],
        ask=FLAGS.ask,
        split=first,
    )
    about = {
        "corpus": data.corpus.name,
        "corpus_sha256": data.corpus.sha256,
        "vocabulary": data.known.size,
        "unknown": {part: float(np.mean(data.targets[row] == 0)) for part, row in data.numbers.items()},
    }
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
