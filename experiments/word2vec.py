"""Learns vectors of words from the words around them: skip-gram or CBOW, by negative sampling or down a Huffman tree.

python -m experiments.word2vec --flagfile=experiments/flagfiles/word2vec/skipgram_negative.flags
python -m experiments.word2vec --text_file=text8 --subsample=1e-4 --model=cbow --output=tree --steps=100000
python -m experiments.word2vec --words=file,string --analogies=questions-words.txt
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import sequences as ragged_sequences
from dlfx.data import vocabulary, word_contexts
from dlfx.data.corpora import existing
from dlfx.data.sequences import Ragged
from dlfx.data.vocabulary import Vocabulary
from dlfx.learners.row_sgd import row_sgd
from dlfx.losses.embedding import negative_sampling
from dlfx.metrics import word_vectors
from dlfx.models.sequence import word2vec
from dlfx.types import Array, Batch, Learner, Stream, UserError
from experiments import common, sequences, texts, word2vec_figures
from experiments.common import FLAGS, group

with group("word2vec"):
    flags.DEFINE_enum("model", "skipgram", ["skipgram", "cbow"], "each word around by itself, or the mean of them")
    flags.DEFINE_enum("output", "negative", ["negative", "tree"], "negative sampling, or hierarchical softmax")
    flags.DEFINE_integer("width", 100, "of the vectors", lower_bound=1)
    flags.DEFINE_integer("window", 5, "the largest distance of a word around", lower_bound=1)
    flags.DEFINE_integer("negatives", 5, "noise words of --output=negative", lower_bound=1)
    flags.DEFINE_float("noise_power", 0.75, "of a word's count in the distribution of the noise", lower_bound=0.0)
    flags.DEFINE_float(
        "subsample", 1e-3, "words that are a larger part of the text are thinned out; 0: none", lower_bound=0.0
    )
    flags.DEFINE_integer("min_count", 5, "rarer words are left out of the text", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.025, "of SGD at the start; it falls linearly to 0", lower_bound=0.0)
    flags.DEFINE_float(
        "most", 16.0, "times its mean gradient in a batch: the furthest that a vector moves", lower_bound=0.0
    )
    flags.DEFINE_list("words", [], "whose neighbours to show; by default the commonest of five letters and more")
    flags.DEFINE_string("analogies", "", "a file of questions, four words a line, to answer at the end")
FLAGS.set_default("batch_size", 256)
FLAGS.set_default("steps", 20_000)
FLAGS.set_default("tokens", "words")
FLAGS.set_default("log_every", 1000)
FLAGS.set_default("eval_every", 5000)
FLAGS.set_default("checkpoint_every", 5000)
FLAGS.set_default("steps_per_call", 100)


class Text(NamedTuple):
    """A corpus as sentences of numbered words.

    Attributes:
      words: numbered by how common they are.
      counts: how often each occurs in the training text `[V]`.
      splits: split to its sentences; only splits that hold something.
    """

    words: Vocabulary
    counts: np.ndarray
    splits: dict[str, Ragged]


def sentences(documents: tuple[str, ...]) -> list[list[str]]:
    """The words of each paragraph in small letters, without numbers and punctuation."""
    return [
        [word for word in vocabulary.split_words(paragraph) if word[0].isalpha()]
        for document in documents
        for paragraph in document.lower().split("\n\n")
    ]


def read() -> Text:
    """The corpus of the flags, without its rare words."""
    if FLAGS.tokens != "words":
        raise UserError(f"--tokens={FLAGS.tokens} is not possible here; word2vec is of words")
    corpus = texts.read()
    parts = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    lists = {split: sentences(documents) for split, documents in parts.items() if documents}
    words = vocabulary.words(lists["train"], (), FLAGS.vocabulary_size, FLAGS.min_count)
    if words.size < 2:
        raise UserError(f"fewer than two words occur --min_count={FLAGS.min_count} times in the training text")
    known = set(words.symbols)
    splits = {
        split: ragged_sequences.encoded(words, [[word for word in sentence if word in known] for sentence in listed])
        for split, listed in lists.items()
    }
    return Text(words, np.bincount(splits["train"].values, minlength=words.size), splits)


def scored(stream: Stream, counts: np.ndarray) -> Stream:
    """The stream with what each centre is scored against: `outputs [B, M]`, and their `signs`, 0 for filling.

    Like the authors' program, the words around predict the centre, by whose window they are around: the pairs of words
    are those of the paper, in which the centre predicts the words around.
    """
    if FLAGS.output == "negative":

        def noise(_: Any, batch: Batch) -> Batch:
            centre, drawn = batch["centre"][:, None], batch["noise"]
            signs = jnp.where(drawn == centre, 0, -1)
            outputs, signs = jnp.concatenate([centre, drawn], 1), jnp.pad(signs, ((0, 0), (1, 0)), constant_values=1)
            return {**batch, "outputs": outputs, "signs": signs}

        return stream._replace(fetch=noise)

    def way(tree: dict[str, Array], batch: Batch) -> Batch:
        return {**batch, "outputs": tree["nodes"][batch["centre"]], "signs": tree["signs"][batch["centre"]]}

    return stream._replace(arrays=word2vec.huffman(counts)._asdict(), fetch=way)


def rows(batch: Batch) -> dict[str, tuple[Array, Array]]:
    """The rows of both tables that a batch reads."""
    real = batch["real"]
    losses = real.max(1) if FLAGS.model == "cbow" else real.sum(1)
    return {
        "input": (batch["contexts"], real),
        "output": (batch["outputs"], (batch["signs"] != 0) * losses[:, None]),
    }


def objective(values: dict[str, Array], batch: Batch, dtype: Any) -> dict[str, Array]:
    """The loss of every pair of words, or with CBOW of every centre, summed."""
    inputs, real, signs = values["input"].astype(dtype), batch["real"], batch["signs"][:, None]
    if FLAGS.model == "cbow":
        inputs, real = word2vec.context_mean(inputs, real), real.max(1, keepdims=True)
    scores = word2vec.scores(inputs, values["output"].astype(dtype))
    if FLAGS.output == "negative":
        losses = negative_sampling(scores[..., 0], scores[..., 1:], signs[..., 1:] != 0)
    else:
        losses = -word2vec.log_probability(scores, signs)
    return {"loss": (losses * real).sum(), "count": real.sum()}


def make_learner(session: common.Session, words: int) -> Learner:
    """SGD with a rate that falls linearly to nearly 0, on the vectors that a batch reads."""
    outputs = words if FLAGS.output == "negative" else words - 1
    return row_sgd(
        lambda key, _: word2vec.init(key, words, outputs, FLAGS.width, session.param_dtype),
        rows,
        functools.partial(objective, dtype=session.dtype),
        optax.linear_schedule(FLAGS.learning_rate, 1e-4 * FLAGS.learning_rate, FLAGS.steps),
        most=FLAGS.most,
        axis_name=session.axis_name,
    )


def chosen_words(words: Vocabulary) -> np.ndarray:
    """The numbers of the words of `--words`."""
    for word in FLAGS.words:
        if word not in words.symbols:
            raise UserError(f"--words: {word!r} is not among the {words.size} words of the vocabulary")
    listed = FLAGS.words or [word for word in words.symbols if len(word) > 4][:12] or words.symbols[:12]
    return words.encode(listed)


def questions(words: Vocabulary) -> np.ndarray:
    """The analogies of `--analogies` whose words are all known `[n, 4]`; lines that begin with `:` are headings.

    Raises:
      UserError: for a line of not four words, and if no question is left.
    """
    found, known = [], set(words.symbols)
    for number, line in enumerate(existing(FLAGS.analogies).read_text().lower().splitlines(), 1):
        parts = line.split()
        if parts and not line.startswith(":"):
            if len(parts) != 4:
                raise UserError(f"--analogies={FLAGS.analogies}: line {number} has {len(parts)} words, not 4")
            if known.issuperset(parts):
                found.append(words.encode(parts))
    if not found:
        raise UserError(f"--analogies={FLAGS.analogies} has no question whose four words are in the vocabulary")
    return np.stack(found)


def main(_: Any) -> None:
    with common.begin("word2vec", f"{FLAGS.model}-{FLAGS.output}-{texts.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: text, learner, training, vectors, figures."""
    sequences.check_batch(session)
    if FLAGS.accumulate != 1:
        raise UserError("--accumulate is not of word2vec: a batch needs little memory, as it reads few rows")
    with session.clock.phase("data"):
        text = read()
    asked = chosen_words(text.words)
    analogies = questions(text.words) if FLAGS.analogies else None
    settings = word_contexts.Settings(
        FLAGS.window,
        word_contexts.keep_probabilities(text.counts, FLAGS.subsample),
        word_contexts.noise_distribution(text.counts, FLAGS.noise_power),
        FLAGS.negatives if FLAGS.output == "negative" else 0,
    )
    stream, _ = word_contexts.training_stream(text.splits["train"], settings, FLAGS.batch_size, **sequences.share())
    share = 1024 // session.mesh.size * session.mesh.size

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        values = {name: state.params[name][index] for name, (index, _) in rows(batch).items()}
        return objective(values, batch, session.dtype)

    def evaluated(part: Ragged) -> sequences.Split:
        stream, batches = word_contexts.evaluation_stream(part, settings, share, **sequences.share())
        return sequences.Split(scored(stream, text.counts), batches, sums, sequences.means("loss"))

    splits = {split: evaluated(part) for split, part in text.splits.items() if split != "train"}
    if not splits:
        raise UserError("there is no text to evaluate on; --fractions must keep some for validation or test")
    learner = make_learner(session, text.words.size)
    fitted = sequences.fit(session, learner, scored(stream, text.counts), splits, f"{next(iter(splits))}_loss")
    if fitted is None:
        return
    vectors = np.asarray(fitted.state.params["input"], np.float32)
    if session.run:
        keep(session.path / "vectors.txt", text.words, vectors)
        if analogies is not None:
            right = (word_vectors.analogies(vectors, analogies[:, :3]) == analogies[:, 3]).sum()
            print(f"analogies: {right} of {len(analogies)} right ({right / len(analogies):.1%})")
    draw = functools.partial(word2vec_figures.draw, words=text.words.symbols, vectors=vectors, asked=asked)
    common.finish(session, fitted.result, fitted.result.arrays.params, draw)


def keep(path: Path, words: Vocabulary, vectors: np.ndarray) -> None:
    """Writes the vectors as the authors' program does: a line of V and D, then a word and its D numbers a line."""
    lines = (f"{word} {' '.join(f'{x:.6g}' for x in row)}" for word, row in zip(words.symbols, vectors, strict=True))
    path.write_text("\n".join([f"{words.size} {vectors.shape[1]}", *lines]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    common.launch(main)
