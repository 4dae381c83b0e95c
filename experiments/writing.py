"""A language model writes on: from a prompt, by the flags of sampling."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data.vocabulary import Vocabulary
from dlfx.ops import decoding
from dlfx.types import Array, Key, UserError
from experiments import lm_weights
from experiments.common import FLAGS, group
from experiments.lm_models import LanguageModel

with group("Writing"):
    flags.DEFINE_string(
        "prompt", "", "have the finished run in --workdir, or the model of --init_from, write on, and train nothing"
    )
    flags.DEFINE_integer("samples", 3, "texts to write", lower_bound=1)
    flags.DEFINE_integer("sample_tokens", 300, "tokens of each", lower_bound=1)
    flags.DEFINE_float("temperature", 0.8, "of sampling; 0: always the most probable token", lower_bound=0.0)
    flags.DEFINE_integer("top_k", 0, "draw only from so many tokens, the most probable ones; 0: all", lower_bound=0)
    flags.DEFINE_float("top_p", 1.0, "draw only from the smallest set of this probability", 0.0001, 1.0)


def main(make_model: Any) -> None:
    """Writes on from `--prompt` as the finished run in `--workdir` would, or else the model of `--init_from`.

    Args:
      make_model: number of tokens to the model of the flags.

    Raises:
      UserError: there is none, or the prompt has a symbol that the vocabulary lacks.
    """
    where = FLAGS.workdir or FLAGS.init_from
    if not where:
        raise UserError("--prompt needs a finished run of experiments.lm in --workdir, or a model in --init_from")
    path = Path(where).expanduser()
    lm_weights.take_form(path)
    known, variables = lm_weights.load(path)
    model = make_model(known.size)
    for text in write(model, jax.device_put(variables), known, FLAGS.prompt, jax.random.key(FLAGS.seed)):
        print(f"{text}\n{'-' * 80}")


def write(model: LanguageModel, variables: Any, known: Vocabulary, prompt: str, key: Key) -> list[str]:
    """Texts that begin with the prompt, as many as `--samples` says.

    Whenever the context of a GPT is full, it goes on from the last half of it.

    Raises:
      UserError: a symbol of the prompt is unknown, or the prompt fills the context.
    """
    tokens = known.encode(prompt)
    if not len(tokens):
        raise UserError("a prompt has at least 1 token")
    if model.context and len(tokens) >= model.context:
        raise UserError(f"a prompt has from 1 to {model.context - 1} tokens, fewer than the context; got {len(tokens)}")
    written = jnp.broadcast_to(jnp.asarray(tokens), (FLAGS.samples, len(tokens)))
    end = len(tokens) + FLAGS.sample_tokens
    while written.shape[1] < end:
        full = model.context is not None and written.shape[1] >= model.context
        seen = written[:, -((model.context or 0) // 2 or 1) :] if full else written
        # To the end of the context if need be, so that all calls but the first are one program.
        new = _continue(model, variables, seen, jax.random.fold_in(key, written.shape[1]))
        written = jnp.concatenate([written, new], 1)
    return [prompt + known.decode(row) for row in np.asarray(written)[:, len(tokens) : end]]


def _continue(model: LanguageModel, variables: Any, seen: Array, key: Key) -> Array:
    """`[N, P]` tokens to the next ones, `--sample_tokens` or the `context - P` that fill the context."""
    choice = (FLAGS.temperature, FLAGS.top_k or None, FLAGS.top_p)
    room = FLAGS.sample_tokens
    if model.context is not None:
        room = min(model.context - seen.shape[1], room)
    return _sampled(model, choice, room, variables, seen, key)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _sampled(model: LanguageModel, choice: tuple[Any, ...], room: int, variables: Any, seen: Array, key: Key) -> Array:
    state = model.read(variables, seen[:, :-1], seen.shape[1] + room)
    temperature, top_k, top_p = choice
    step = functools.partial(model.step, variables)
    return decoding.sample(
        step, state, seen[:, -1], key, room, temperature=temperature, top_k=top_k, top_p=top_p
    ).tokens
