"""A language model writes on: from a prompt, by the flags of sampling."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import vocabulary
from dlfx.data.vocabulary import Vocabulary
from dlfx.models.sequence.gpt import GPT
from dlfx.ops import decoding
from dlfx.training import checkpoints, rundir
from dlfx.types import Array, Key, UserError
from experiments.common import FLAGS, group
from experiments.texts import Texts

with group("Writing"):
    flags.DEFINE_string("prompt", "", "have the finished run in --workdir write on from this text, and train nothing")
    flags.DEFINE_integer("samples", 3, "texts to write", lower_bound=1)
    flags.DEFINE_integer("sample_tokens", 300, "tokens of each, at most what fits the context", lower_bound=1)
    flags.DEFINE_float("temperature", 0.8, "of sampling; 0: always the most probable token", lower_bound=0.0)
    flags.DEFINE_integer("top_k", 0, "draw only from so many tokens, the most probable ones; 0: all", lower_bound=0)
    flags.DEFINE_float("top_p", 1.0, "draw only from the smallest set of this probability", 0.0001, 1.0)

VOCABULARY = "vocabulary.json"  # in the run directory
MODEL = ("size", "context", "layers", "heads", "width", "dropout", "bias", "positions", "remat")  # flags


def keep(path: Path, corpus: Texts) -> None:
    """Writes the vocabulary of a run next to its checkpoints, so that it can write later."""
    with rundir.explain_os_errors(path):
        vocabulary.save(corpus.vocabulary, path / VOCABULARY)


def main(make_model: Any) -> None:
    """Writes on from `--prompt` with what a finished run in `--workdir` has learned.

    Args:
      make_model: number of tokens to the model of the flags.

    Raises:
      UserError: there is no finished run, or the prompt has a symbol that the vocabulary lacks.
    """
    path = Path(FLAGS.workdir).expanduser()
    summary = rundir.summary_of(path) if FLAGS.workdir and path.is_dir() else None
    if not summary or summary["experiment"] != "lm":
        raise UserError(f"--prompt needs a finished run of experiments.lm in --workdir; {path} is none")
    told = rundir.parse_flags((path / "flags.txt").read_text())
    for name in MODEL:
        FLAGS[name].value = FLAGS[name].parser.parse(told[name])
    known = vocabulary.read(path / VOCABULARY)
    model = make_model(known.size)
    arrays = checkpoints.load_state(path / "checkpoints", summary["steps"])
    template = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    names = checkpoints.leaf_names(template)
    leaves = [jnp.asarray(arrays[name]) for name in names]
    if int(told["num_seeds"]) > 1:  # the first member writes
        leaves = [leaf[0] for leaf in leaves]
    params = jax.tree.unflatten(jax.tree.structure(template), leaves)
    for text in write(model, params, known, FLAGS.prompt, jax.random.key(FLAGS.seed)):
        print(f"{text}\n{'-' * 80}")


def write(model: GPT, variables: Any, known: Vocabulary, prompt: str, key: Key) -> list[str]:
    """Texts that begin with the prompt, as many as `--samples` says.

    Raises:
      UserError: a symbol of the prompt is unknown, or the prompt fills the context.
    """
    tokens = known.encode(prompt)
    room = model.context - len(tokens)
    if room < 1 or not len(tokens):
        raise UserError(
            f"a prompt has from 1 to {model.context - 1} tokens, which the model can see at once; got {len(tokens)}"
        )
    count = min(FLAGS.sample_tokens, room)

    @jax.jit
    def sampled(variables: Any, prompt: Array, key: Key) -> Array:
        def step(state: Any, last: Array) -> tuple[Any, Array]:
            cache, positions = state
            # All sequences are equally long, so that one position serves for all.
            logits, cache = model.apply(variables, last[:, None], cache, positions[0], method="decode")
            return (cache, positions + 1), logits[:, 0]

        many = jnp.broadcast_to(prompt, (FLAGS.samples, len(prompt)))
        cache = model.apply(variables, FLAGS.samples, len(prompt) + count, method="start")
        if len(prompt) > 1:
            _, cache = model.apply(variables, many[:, :-1], cache, 0, method="decode")
        state = cache, jnp.full(FLAGS.samples, len(prompt) - 1)
        options = {"temperature": FLAGS.temperature, "top_k": FLAGS.top_k or None, "top_p": FLAGS.top_p}
        return decoding.sample(step, state, many[:, -1], key, count, **options).tokens

    written = np.asarray(sampled(variables, jnp.asarray(tokens), key))
    return [prompt + known.decode(row) for row in written]
