"""Fine-tunes a BERT to classify texts, to tag words, or to find answers in passages.

python -m experiments.bert --flagfile=experiments/flagfiles/bert/prose.flags --workdir=runs/prose
python -m experiments.bert_finetuning --flagfile=experiments/flagfiles/bert_finetuning/classify.flags \
  --init_from=runs/prose                     # and with --random_weights, to see what the pretraining is worth
python -m experiments.bert_finetuning --task=tags --init_from=bert-base-uncased --text_file=train.conll \
  --examples=100000 --optimizer=adamw --learning_rate=3e-5
python -m experiments.bert_finetuning --task=spans --init_from=bert-base-uncased --text_file=squad.json --context=384

Here `bert-base-uncased` is a directory with config.json, model.safetensors and tokenizer.json, as Hugging Face's
transformers saves. Without --text_file the examples are paragraphs of docstrings of Python's library to be told apart
by package, generated sentences with names, and gaps in docstrings. What is longer than --context is cut off.

Source: Devlin et al. 2018 (arXiv:1810.04805), sections 3.2 and 4, appendix A.3.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from dlfx.data import sequences as batches
from dlfx.data import vocabulary
from dlfx.data.vocabulary import SPECIAL
from dlfx.learners.likelihood import likelihood
from dlfx.models.sequence import partition
from dlfx.types import Array, Batch, Key, UserError
from experiments import bert_finetuning_figures, bert_models, bert_tasks, common, sequences
from experiments.bert_tasks import TASKS
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Beginning"):
    flags.DEFINE_string(
        "init_from",
        "",
        "a directory with a BERT of transformers, or a finished run of experiments.bert, to begin with; form and "
        "vocabulary are the model's, and --context, if given, may be shorter",
    )
    flags.DEFINE_bool("random_weights", False, "only form and vocabulary of --init_from, for comparison")


def main(_: Any) -> None:
    if FLAGS.init_from:
        bert_models.take_form(_beginning(), FLAGS.context if FLAGS["context"].present else 0)
    elif FLAGS.random_weights:
        raise UserError("--random_weights is for --init_from; without that, weights are random anyway")
    of = Path(FLAGS.text_file).stem if FLAGS.text_file else FLAGS.task
    how = "random" if FLAGS.random_weights or not FLAGS.init_from else "pretrained"
    with common.begin("bert_finetuning", f"{of}-{how}") as session:
        run(session)


def _beginning() -> Path:
    return Path(FLAGS.init_from).expanduser()


def run(session: common.Session) -> None:
    """One invocation: examples, model, learner, training, figures."""
    sequences.check_batch(session)
    task = TASKS[FLAGS.task]
    with session.clock.phase("data"):
        names, examples = bert_tasks.read()
        variables = None
        if FLAGS.init_from:
            known, tokens, params = bert_models.load(_beginning())
            if not FLAGS.random_weights:
                variables = {"params": {"bert": params, "out": None}}  # the head as drawn
        else:
            known = vocabulary.words(map(task.text, examples["train"]), SPECIAL)
            tokens = known.size
        fields = {part: task.numbers(known, rows, names) for part, rows in examples.items()}
        if FLAGS.task == "spans":  # nothing is learned from an answer that was cut off
            fields["train"] = batches.subset(fields["train"], np.flatnonzero(np.asarray(fields["train"]["start"]) >= 0))
    model = task.head(bert_models.make(session, tokens), len(names))

    def init(key: Key, batch: Batch) -> dict[str, Any]:
        return model.init(key, batch["tokens"], None, batch["lengths"])

    def objective(variables: Any, batch: Batch, key: Key) -> Any:
        logits = task.outputs(model, variables, batch, train=True, rngs={"dropout": key})
        rows = task.rows(logits, batch, names)
        return {name: rows[name].sum() for name in ("loss", "count")}, {}

    def sums(state: Any, batch: Batch) -> dict[str, Array]:
        rows = task.rows(task.outputs(model, state.variables, batch), batch, names)
        return {name: (value * batch["mask"]).sum() for name, value in rows.items()}

    lengths = batches.longest(*fields.values())
    stream = batches.training_stream(fields["train"], FLAGS.batch_size, lengths, **sequences.share())
    rows = -(-64 // session.mesh.size) * session.mesh.size
    splits = {
        part: sequences.Split(*batches.evaluation_stream(of, rows, lengths, **sequences.share()), sums, task.metrics)
        for part, of in fields.items()
        if part != "train"
    }
    learner = likelihood(
        init, objective, optimizer(FLAGS.steps), accumulate=FLAGS.accumulate, axis_name=session.axis_name
    )
    monitor = f"{next(iter(splits))}_{task.monitor}"
    fitted = sequences.fit(session, learner, stream, splits, monitor, variables, partition.transformer)
    if fitted is None:
        return
    last = list(splits)[-1]
    draw = functools.partial(
        bert_finetuning_figures.draw,
        model=model,
        variables=fitted.state.variables,
        batch=batches.batch_of(fields[last], np.arange(len(examples[last])), lengths),
        examples=examples[last],
        names=names,
        known=known,
        split=last,
    )
    about = {"examples": {part: batches.size_of(of) for part, of in fields.items()}, "vocabulary": known.size}
    common.finish(session, fitted.result, fitted.result.arrays.params, draw, about)


if __name__ == "__main__":
    common.launch(main)
