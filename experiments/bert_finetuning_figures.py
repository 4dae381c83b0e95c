"""The pictures of experiments.bert_finetuning: what is mistaken for what, tagged sentences, and answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dlfx.data.vocabulary import Vocabulary, split_words
from dlfx.metrics.answers import answer_match
from dlfx.metrics.spans import span_scores
from dlfx.training import figures
from dlfx.types import Batch
from experiments import bert_tasks
from experiments.bert_tasks import TASKS
from experiments.common import FLAGS
from experiments.tagging_figures import examples as tagged_examples
from experiments.text_figures import Text, texts

CHUNK = 64  # examples in one call
SHOWN = 10  # in a picture
WORDS = 60  # of a text that is shown
RIGHT, WRONG, PLAIN = "#c7e9c0", "#fcae91", "#ffffff"


def draw(
    directory: Path,
    model: Any,
    variables: Any,
    batch: Batch,
    examples: Sequence[Any],
    names: tuple[str, ...],
    known: Vocabulary,
    split: str,
) -> None:
    """All pictures of one split, a batch of all its examples."""
    DRAW[FLAGS.task](directory, _outputs(model, variables, batch), batch, examples, names, known, split)


def _outputs(model: Any, variables: Any, batch: Batch) -> Any:
    """What the model says of all examples, for spans the answers, as NumPy arrays."""
    n = len(batch["tokens"])

    @jax.jit
    def said(variables: Any, batch: Batch) -> Any:
        logits = TASKS[FLAGS.task].outputs(model, variables, batch)
        return bert_tasks.answers(logits, batch) if FLAGS.task == "spans" else logits

    index = [np.arange(i, i + CHUNK) % n for i in range(0, n, CHUNK)]
    found = [said(variables, {name: x[rows] for name, x in batch.items()}) for rows in index]
    return jax.tree.map(lambda *parts: np.concatenate([np.asarray(x) for x in parts])[:n], *found)


def _classified(
    directory: Path, logits: np.ndarray, batch: Batch, examples: Any, names: Any, known: Vocabulary, split: str
) -> None:
    true, said = batch["label"], logits.argmax(-1)
    counts = np.zeros((len(names), len(names)), np.int64)
    np.add.at(counts, (true, said), 1)
    title = f"{split}: {(true == said).mean():.2%} of {len(true)} texts right"
    figures.confusion(directory / "confusion.png", counts, names, title)
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    shown = []
    for k in _some(said != true):
        words = split_words(examples[k][0])[:WORDS]
        caption = f"true: {names[true[k]]}, said: {names[said[k]]} with {shares[k, said[k]]:.2f}"
        shown.append(Text(caption, words, [RIGHT if said[k] == true[k] else WRONG] * len(words)))
    texts(directory / "examples.png", shown, title)


def _tagged(
    directory: Path, logits: np.ndarray, batch: Batch, examples: Any, names: Any, known: Vocabulary, split: str
) -> None:
    lengths = batch["tags_lengths"]
    sentences = [(words[:n], tags[:n]) for (words, tags), n in zip(examples, lengths, strict=True)]
    predicted = [[names[k] for k in row[:n]] for row, n in zip(logits.argmax(-1), lengths, strict=True)]
    scores = span_scores(predicted, [tags for _, tags in sentences])
    counts = np.zeros((len(names), len(names)), np.int64)
    for ours, (_, theirs) in zip(predicted, sentences, strict=True):
        np.add.at(counts, ([names.index(tag) for tag in theirs], [names.index(tag) for tag in ours]), 1)
    figures.confusion(directory / "confusion.png", counts, names, f"{split}: tags")
    title = f"{split}: F1 {scores.f1:.2%} of {scores.true} entities"
    tagged_examples(directory, sentences, predicted, set(known.symbols), "BIO", title)


def _answered(
    directory: Path,
    said: tuple[np.ndarray, np.ndarray],
    batch: Batch,
    examples: Any,
    names: Any,
    known: Any,
    split: str,
) -> None:
    found = []
    for k, example in enumerate(examples):
        word = bert_tasks.pieces(known, example.passage)[1]
        found.append(tuple(int(word[end[k] - batch["passage"][k]]) for end in said))
    told = [" ".join(e.passage[i : j + 1]) for e, (i, j) in zip(examples, found, strict=True)]
    scores = np.array([answer_match(ours, e.answer) for ours, e in zip(told, examples, strict=True)])
    shown = []
    for k in _some(scores[:, 0] < 1):
        example, (i, j) = examples[k], found[k]
        true, ours = range(example.first, example.last + 1), range(i, j + 1)
        places = range(min(len(example.passage), WORDS))
        colors = [RIGHT if p in true else WRONG if p in ours else PLAIN for p in places]
        caption = f"{' '.join(example.question)}   said: {told[k]}"
        shown.append(Text(caption, example.passage[:WORDS], colors))
    exact, f1 = scores.mean(0)
    title = f"{split}: {exact:.2%} of {len(scores)} answers right by their words, F1 {f1:.2%}"
    texts(directory / "answers.png", shown, f"{title}\ngreen: the answer; red: what was said and is not of it")


def _some(wrong: np.ndarray) -> list[int]:
    """Half mistakes, as far as there are, and the rest not."""
    mistakes = np.flatnonzero(wrong).tolist()[: SHOWN // 2]
    return [*mistakes, *np.flatnonzero(~wrong).tolist()[: SHOWN - len(mistakes)]]


DRAW: dict[str, Callable[..., None]] = {"classify": _classified, "tags": _tagged, "spans": _answered}
