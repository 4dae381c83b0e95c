"""Trains a language model on text, by characters, words or byte pairs, and lets it write.

python -m experiments.lm --flagfile=experiments/flagfiles/lm/gpt_prose.flags
python -m experiments.lm --text_file=input.txt --fractions=0.9,0.1,0 --model=gpt --context=64
python -m experiments.lm --init_from=gpt2 --text_file=input.txt --context=128 --learning_rate=3e-5 --optimizer=adamw
python -m experiments.lm --workdir=DIR --prompt="The method"       # a finished run writes on
python -m experiments.lm --init_from=gpt2 --prompt="The method"    # GPT-2 does

Here `gpt2` is a directory with config.json, model.safetensors and tokenizer.json, as Hugging Face's transformers saves.
"""

import functools
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import text
from dlfx.learners.likelihood import likelihood
from dlfx.models.sequence import gpt
from dlfx.types import Array, Batch, Key, Learner, UserError
from experiments import common, lm_figures, lm_weights, sequences, texts, writing
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Language model"):
    flags.DEFINE_enum("size", "", ["", *gpt.SIZES], "a published size; it overrides --layers, --heads and --width")
    flags.DEFINE_integer("context", 64, "tokens that the model sees at once", lower_bound=1)
    flags.DEFINE_integer("layers", 4, "Transformer blocks", lower_bound=1)
    flags.DEFINE_integer("heads", 4, "of attention", lower_bound=1)
    flags.DEFINE_integer("width", 128, "of each layer", lower_bound=1)
    flags.DEFINE_float("dropout", 0.0, "of the model", lower_bound=0.0, upper_bound=0.999)
    flags.DEFINE_bool("bias", False, "in dense layers and norms")
    flags.DEFINE_enum("positions", "learned", ["learned", "sinusoidal", "rotary"], "how the model knows the order")
    flags.DEFINE_integer(
        "unroll", 1, "blocks in one turn of the loop over layers; all of them is fastest on CPU", lower_bound=1
    )
    flags.DEFINE_string(
        "init_from",
        "",
        "a directory with a GPT-2 of transformers, or a finished run of this experiment, whose weights to begin with; "
        "form and vocabulary are the model's, and --context, if given, may be shorter",
    )
    flags.DEFINE_bool("remat", False, "compute blocks again in the backward pass, to save memory")
FLAGS.set_default("log_every", 100)


def make_model(dtype: Any, param_dtype: Any, vocabulary: int) -> gpt.GPT:
    """The model of the flags."""
    size = gpt.SIZES[FLAGS.size] if FLAGS.size else {"layers": FLAGS.layers, "heads": FLAGS.heads, "width": FLAGS.width}
    if size["width"] % size["heads"]:
        raise UserError(f"--heads={size['heads']} does not divide --width={size['width']}")
    return gpt.GPT(
        vocabulary,
        FLAGS.context,
        **size,
        dropout=FLAGS.dropout,
        use_bias=FLAGS.bias,
        positions=FLAGS.positions,
        remat=FLAGS.remat,
        unroll=FLAGS.unroll,
        dtype=dtype,
        param_dtype=param_dtype,
    )


def make_learner(session: common.Session, model: gpt.GPT) -> Learner:
    """Maximum likelihood of every next token."""

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["tokens"][:, :-1])

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        tokens = batch["tokens"]
        logits = model.apply(variables, tokens[:, :-1], train=True, rngs={"dropout": key})
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return {"loss": losses.sum(), "count": jnp.asarray(losses.size, losses.dtype)}, {}

    return likelihood(init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name)


def main(_: Any) -> None:
    if FLAGS.prompt:
        writing.main(functools.partial(make_model, jnp.float32, jnp.float32))
        return
    if FLAGS.init_from:
        lm_weights.take_form(_beginning(), FLAGS.context if FLAGS["context"].present else 0)
    with common.begin("lm", f"gpt-{texts.label()}") as session:
        run(session)


def _beginning() -> Path:
    return Path(FLAGS.init_from).expanduser()


def run(session: common.Session) -> None:
    """One invocation: text, model, learner, training, figures."""
    sequences.check_batch(session)
    known, variables = lm_weights.load(_beginning()) if FLAGS.init_from else (None, None)
    corpus = texts.load(session, known)
    model = make_model(session.dtype, session.param_dtype, corpus.vocabulary.size)
    stream = text.window_stream(corpus.tokens["train"], FLAGS.batch_size, FLAGS.context, **sequences.share())

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        logits = model.apply(state.variables, batch["tokens"][:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["tokens"][:, 1:]) * batch["mask"]
        return {"loss": losses.sum(), "count": batch["mask"].sum()}

    def metrics(split: str, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        loss = sums["loss"] / sums["count"]
        bits = sums["loss"] / (corpus.characters[split] * math.log(2))
        return {"loss": loss, "perplexity": np.exp(loss), "bits_per_character": bits}

    rows = -(-lm_figures.rows(FLAGS.context) // session.mesh.size) * session.mesh.size
    splits = {
        split: sequences.Split(
            *text.evaluation_stream(tokens, rows, FLAGS.context, **sequences.share()),
            sums,
            functools.partial(metrics, split),
        )
        for split, tokens in corpus.tokens.items()
        if split != "train"
    }
    if not splits:
        raise UserError("there is no text to evaluate on; --fractions must keep some for validation or test")
    last = next(iter(splits))
    fitted = sequences.fit(session, make_learner(session, model), stream, splits, f"{last}_loss", variables)
    if fitted is None:
        return
    if session.run:
        lm_weights.keep(session.path, corpus)
    draw = functools.partial(lm_figures.draw, model=model, state=fitted.state, corpus=corpus, split=last)
    about = {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
