"""Trains a language model on text, by characters, words or byte pairs, and lets it write.

python -m experiments.lm --flagfile=experiments/flagfiles/lm/gpt_prose.flags
python -m experiments.lm --flagfile=experiments/flagfiles/lm/lstm_prose.flags
python -m experiments.lm --text_file=input.txt --fractions=0.9,0.1,0 --model=gpt --context=64
python -m experiments.lm --init_from=gpt2 --text_file=input.txt --context=128 --learning_rate=3e-5 --optimizer=adamw
python -m experiments.lm --workdir=DIR --prompt="The method"       # a finished run writes on
python -m experiments.lm --init_from=gpt2 --prompt="The method"    # GPT-2 does

Here `gpt2` is a directory with config.json, model.safetensors and tokenizer.json, as Hugging Face's transformers saves.

A GPT learns on windows at random places and is evaluated on windows side by side, both of `--context` tokens. A
recurrent model learns by truncated backpropagation through time, `--context` tokens at once, along --batch_size rows of
text whose states it carries on. It is evaluated on windows side by side too, of 512 tokens or --context if that is
more, each begun without a past: a little worse than along the whole text.
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
from dlfx.models.sequence import gpt, partition, recurrent_lm
from dlfx.types import Array, Batch, UserError
from experiments import common, finished, lm_figures, lm_models, lm_weights, sequences, texts, writing
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Language model"):
    flags.DEFINE_enum("model", "gpt", ["gpt", "lstm", "gru", "rnn"], "the kind of model")
    flags.DEFINE_enum(
        "size",
        "",
        ["", *gpt.SIZES, *recurrent_lm.SIZES],
        "a published size; it overrides --layers, --heads and --width, and of an LSTM --dropout too",
    )
    flags.DEFINE_integer("context", 64, "tokens that a GPT sees at once, and that a gradient goes back", lower_bound=1)
    flags.DEFINE_integer("layers", 4, "Transformer blocks, or recurrent layers", lower_bound=1)
    flags.DEFINE_integer("heads", 4, "of attention", lower_bound=1)
    flags.DEFINE_integer("width", 128, "of each layer", lower_bound=1)
    flags.DEFINE_bool("variational", False, "of recurrent models: dropout with one mask for all steps")
    flags.DEFINE_bool("tied", False, "of recurrent models: the output layer has the embeddings' weights, as GPT's has")
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


WINDOW = 512  # of recurrent models in evaluation: that one begins without a past is then of little account


def make_model(dtype: Any, param_dtype: Any, axis_name: str | None, vocabulary: int) -> lm_models.LanguageModel:
    """The model of the flags."""
    sizes: dict[str, dict[str, Any]] = gpt.SIZES if FLAGS.model == "gpt" else {}
    if FLAGS.model == "lstm":
        sizes = recurrent_lm.SIZES
    if FLAGS.size and FLAGS.size not in sizes:
        raise UserError(f"--size={FLAGS.size} is not one of --model={FLAGS.model}; it has {', '.join(sizes) or 'none'}")
    form: dict[str, Any] = {"layers": FLAGS.layers, "width": FLAGS.width, "dropout": FLAGS.dropout}
    form |= {"dtype": dtype, "param_dtype": param_dtype}
    if FLAGS.model != "gpt":
        form |= {"variational": FLAGS.variational, "tied": FLAGS.tied, **sizes.get(FLAGS.size, {})}
        model = recurrent_lm.RecurrentLM(vocabulary, FLAGS.model, **form)
        return lm_models.recurrent(model, FLAGS.batch_size, max(WINDOW, FLAGS.context), axis_name)
    form |= {"heads": FLAGS.heads, **sizes.get(FLAGS.size, {})}
    if form["width"] % form["heads"]:
        raise UserError(f"--heads={form['heads']} does not divide --width={form['width']}")
    return lm_models.gpt(
        gpt.GPT(
            vocabulary,
            FLAGS.context,
            **form,
            use_bias=FLAGS.bias,
            positions=FLAGS.positions,
            remat=FLAGS.remat,
            unroll=FLAGS.unroll,
        )
    )


def main(_: Any) -> None:
    if FLAGS.prompt:
        writing.main(functools.partial(make_model, jnp.float32, jnp.float32, None))
        return
    if FLAGS.init_from:
        lm_weights.take_form(_beginning(), FLAGS.context if FLAGS["context"].present else 0)
    with common.begin("lm", f"{FLAGS.model}-{texts.label()}") as session:
        run(session)


def _beginning() -> Path:
    return Path(FLAGS.init_from).expanduser()


def run(session: common.Session) -> None:
    """One invocation: text, model, learner, training, figures."""
    sequences.check_batch(session)
    if FLAGS.model != "gpt" and FLAGS.accumulate > 1:
        raise UserError("--accumulate is for --model=gpt: the states that others carry are of whole batches")
    known, variables = lm_weights.load(_beginning()) if FLAGS.init_from else (None, None)
    if variables and FLAGS.model != "gpt":
        variables["carry"] = None  # zeros, as drawn
    corpus = texts.load(session, known)
    model = make_model(session.dtype, session.param_dtype, session.axis_name, corpus.vocabulary.size)
    windows = corpus.tokens["train"], FLAGS.batch_size, FLAGS.context
    if model.context is None:
        stream, _ = text.contiguous_stream(*windows, **sequences.share())
    else:
        stream = text.window_stream(*windows, **sequences.share())
    learner = likelihood(
        model.init, model.objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name
    )

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        logits = model.logits(state.variables, batch["tokens"][:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["tokens"][:, 1:]) * batch["mask"]
        return {"loss": losses.sum(), "count": batch["mask"].sum()}

    def metrics(split: str, sums: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        loss = sums["loss"] / sums["count"]
        found = {"loss": loss, "perplexity": np.exp(loss)}
        if corpus.characters:
            found["bits_per_character"] = sums["loss"] / (corpus.characters[split] * math.log(2))
        return found

    rows = -(-lm_figures.rows(model.window) // session.mesh.size) * session.mesh.size
    splits = {
        split: sequences.Split(
            *text.evaluation_stream(tokens, rows, model.window, **sequences.share()),
            sums,
            functools.partial(metrics, split),
        )
        for split, tokens in corpus.tokens.items()
        if split != "train"
    }
    if not splits:
        raise UserError("there is no text to evaluate on; --fractions must keep some for validation or test")
    last = next(iter(splits))
    fitted = sequences.fit(session, learner, stream, splits, f"{last}_loss", variables, partition.transformer)
    if fitted is None:
        return
    if session.run:
        finished.keep(session.path, corpus.vocabulary)
    draw = functools.partial(lm_figures.draw, model=model, state=fitted.state, corpus=corpus, split=last)
    about = {"corpus": corpus.name, "corpus_sha256": corpus.sha256}
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
