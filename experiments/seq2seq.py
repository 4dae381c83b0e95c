"""Trains a model that turns one sequence into another: a recurrent encoder and decoder, or the Transformer.

python -m experiments.seq2seq --flagfile=experiments/flagfiles/seq2seq/addition_transformer.flags
python -m experiments.seq2seq --pairs_file=pairs.txt --model=additive      # source TAB target, a line each
python -m experiments.seq2seq --compare=DIR,DIR --workdir=DIR              # exact match by length, of finished runs
"""

import functools
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import sequences as padded_sequences
from dlfx.learners.likelihood import likelihood
from dlfx.metrics import bleu
from dlfx.models.sequence.seq2seq import Seq2Seq
from dlfx.models.sequence.transformer import Transformer
from dlfx.nn.recurrent import GATES
from dlfx.ops import decoding
from dlfx.training import rundir
from dlfx.types import Array, Batch, Key, Learner, UserError
from experiments import common, pairs, seq2seq_figures, sequences
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

ATTENTION = {"vector": "none", "additive": "additive", "dot": "dot", "general": "general"}
Model = Seq2Seq | Transformer

with group("Sequence to sequence"):
    flags.DEFINE_enum(
        "model",
        "additive",
        [*ATTENTION, "transformer"],
        "a recurrent network with one vector between encoder and decoder, or with one of three attentions; or without "
        "recurrence",
    )
    flags.DEFINE_enum("cell", "lstm", list(GATES), "of recurrent models")
    flags.DEFINE_bool("bidirectional", False, "the encoder of recurrent models reads from both ends")
    flags.DEFINE_integer("layers", 1, "of encoder and decoder each", lower_bound=1)
    flags.DEFINE_integer("width", 128, "of each layer", lower_bound=1)
    flags.DEFINE_integer("features", 64, "of embeddings, in recurrent models", lower_bound=1)
    flags.DEFINE_integer("heads", 4, "of the Transformer's attention", lower_bound=1)
    flags.DEFINE_float("dropout", 0.0, "of the model", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_float("label_smoothing", 0.0, "probability that is spread over all tokens", 0.0, 0.999)
    flags.DEFINE_integer("beam", 1, "translations kept in the search for the best of the pictures and BLEU", 1)
    flags.DEFINE_float("length_penalty", 0.6, "of the beam search; 0 prefers short translations", lower_bound=0.0)
    flags.DEFINE_list("compare", [], "directories of finished runs, to draw into --workdir; trains nothing")
FLAGS.set_default("batch_size", 128)
FLAGS.set_default("log_every", 100)
FLAGS.set_default("eval_every", 1000)
FLAGS.set_default("checkpoint_every", 1000)


def make_model(session: common.Session, data: pairs.Pairs) -> Model:
    """The model of the flags."""
    sizes = {"layers": FLAGS.layers, "width": FLAGS.width, "dropout": FLAGS.dropout}
    sizes |= {"dtype": session.dtype, "param_dtype": session.param_dtype}
    if FLAGS.model != "transformer":
        return Seq2Seq(
            data.target.size,
            data.source.size,
            ATTENTION[FLAGS.model],
            FLAGS.cell,
            features=FLAGS.features,
            bidirectional=FLAGS.bidirectional,
            **sizes,
        )
    if FLAGS.width % FLAGS.heads:
        raise UserError(f"--heads={FLAGS.heads} does not divide --width={FLAGS.width}")
    return Transformer(
        data.target.size,
        data.source.size,
        shared_embeddings=False,
        heads=FLAGS.heads,
        hidden=4 * FLAGS.width,
        norm_first=True,  # trains at rates and without the warm-up that the norm last needs
        **sizes,
    )


def apply(model: Model, variables: Any, batch: Batch, bos: int, **options: Any) -> Any:
    """Logits `[B, T, vocabulary]` of every token of the targets, each from those before it."""
    given = jnp.pad(batch["target"][:, :-1], ((0, 0), (1, 0)), constant_values=bos)
    return model.apply(variables, batch["source"], given, batch["source_lengths"], **options)


def there(batch: Batch) -> Array:
    """Which tokens of the targets `[B, T]` count."""
    return jnp.arange(batch["target"].shape[1]) < batch["target_lengths"][:, None]


def make_learner(session: common.Session, model: Any, bos: int) -> Learner:
    """Maximum likelihood of every token, given the true ones before it."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["source"], batch["target"], batch["source_lengths"])

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        logits = apply(model, variables, batch, bos, train=True, rngs={"dropout": key})
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"])
        if FLAGS.label_smoothing:  # the cross-entropy with labels of which so much is spread evenly
            right = jnp.take_along_axis(logits, batch["target"][..., None], -1)[..., 0]
            losses += FLAGS.label_smoothing * (right - logits.mean(-1))
        return {"loss": (losses * there(batch)).sum(), "count": there(batch).sum(dtype=losses.dtype)}, {}

    return likelihood(init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def decode(model: Model, variables: Any, batch: Batch, data: pairs.Pairs, beam: int) -> Array:
    """The model's own targets `[B, T]`, greedy or the best of a beam, 0 behind their `<eos>`."""
    source, lengths, size = batch["source"], batch["source_lengths"], data.lengths["target"]

    def step(state: Any, tokens: Array) -> tuple[Any, Array]:
        if isinstance(model, Seq2Seq):
            logits, known = model.apply(variables, tokens[:, None], state, method="decode")
            return known, logits[:, 0]
        cache, position = state  # the same position in all rows
        logits, cache = model.apply(variables, tokens[:, None], cache, position[0], method="decode")
        return (cache, position + 1), logits[:, 0]

    if isinstance(model, Seq2Seq):
        state = model.apply(variables, source, lengths, method="start")
    else:
        state = model.apply(variables, source, size, lengths, method="start"), jnp.zeros(len(source), jnp.int32)
    first, end = jnp.full(len(source), data.target.special["<bos>"]), data.target.special["<eos>"]
    if beam == 1:
        return decoding.greedy(step, state, first, size, end).tokens
    return decoding.beam_search(step, state, first, size, beam, end, alpha=FLAGS.length_penalty).tokens[:, 0]


def translate(model: Model, variables: Any, data: pairs.Pairs, split: str) -> list[list[str]]:
    """What the model makes of the sources of a split, in tokens of the target."""
    fields = data.fields(data.splits[split])
    stream, batches = padded_sequences.evaluation_stream(fields, 128, data.lengths)
    compiled = jax.jit(lambda variables, batch: decode(model, variables, batch, data, FLAGS.beam))
    rows = np.concatenate([compiled(variables, stream.host(0, i)) for i in range(batches)])
    silent = {data.target.special[token] for token in ("<pad>", "<bos>", "<eos>")}
    found = [[data.target.symbols[i] for i in row if i not in silent] for row in rows[: len(data.splits[split])]]
    return [tokens[::-1] for tokens in found] if FLAGS.turn_target else found


def bleu_score(found: list[list[str]], wanted: list[list[str]]) -> float:
    """BLEU of a corpus, from 0 to 100, over the given tokens; sacrebleu's where it is installed."""
    if importlib.util.find_spec("sacrebleu") is None:
        return 100 * bleu.corpus_bleu(found, [[reference] for reference in wanted], smoothing="exp").score
    import sacrebleu

    texts = [[" ".join(tokens) for tokens in side] for side in (found, wanted)]
    return float(sacrebleu.corpus_bleu(texts[0], [texts[1]], tokenize="none", force=True).score)


def main(_: Any) -> None:
    if FLAGS.compare:
        seq2seq_figures.compare()
        return
    with common.begin("seq2seq", f"{FLAGS.model}-{pairs.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: pairs, model, learner, training, translations, figures."""
    sequences.check_batch(session)
    data = pairs.load(session)
    model = make_model(session, data)
    bos, unk = data.target.special["<bos>"], data.target.special.get("<unk>", -1)

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        logits = apply(model, state.variables, batch, bos)
        counted = there(batch) * batch["mask"][:, None]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["target"]) * counted
        found = decode(model, state.variables, batch, data, 1)
        # An <unk> is never right, not even where the target has a token that the vocabulary lacks.
        exact = ((found == batch["target"]) & (batch["target"] != unk)).all(-1)
        exact_sum, number = (exact * batch["mask"]).sum(), batch["mask"].sum()
        return {"loss": losses.sum(), "count": counted.sum(), "exact": exact_sum, "pairs": number}

    def metrics(sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"loss": sums["loss"] / sums["count"], "exact_match": sums["exact"] / sums["pairs"]}

    rows = -(-128 // session.mesh.size) * session.mesh.size
    splits = {
        split: sequences.Split(
            *padded_sequences.evaluation_stream(data.fields(held), rows, data.lengths, **sequences.share()),
            sums,
            metrics,
        )
        for split, held in data.splits.items()
    }
    monitor = f"{next(iter(splits))}_loss"
    fitted = sequences.fit(session, make_learner(session, model, bos), data.stream, splits, monitor)
    if fitted is None:
        return
    result, last = fitted.result, list(splits)[-1]
    wanted = [pairs.tokens_of(target, data.target.kind) for _, target in data.splits[last]]
    found = translate(model, fitted.state.variables, data, last)
    about: dict[str, Any] = {"by_length": seq2seq_figures.by_length(data, last, found, wanted)}
    if FLAGS.pairs_file:
        members = range(FLAGS.num_seeds) if FLAGS.num_seeds > 1 else ()
        others = [jax.tree.map(lambda x, k=k: x[k], result.arrays.variables) for k in members][1:]
        scores = [bleu_score(found, wanted)]
        scores += [bleu_score(translate(model, variables, data, last), wanted) for variables in others]
        score = rundir.spread(np.array(scores) if others else np.array(scores[0]))
        result = result._replace(metrics=result.metrics | {f"{last}_bleu": score})
    draw = functools.partial(
        seq2seq_figures.draw, model=model, variables=fitted.state.variables, data=data, split=last, found=found
    )
    common.finish(session, result, result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
