"""Language models of n-grams: counts of characters, or words, and how well they predict what they did not count.

python -m experiments.char_lm --flagfile=experiments/flagfiles/char_lm/prose.flags
python -m experiments.char_lm --text_file=input.txt --orders=2,4,8 --smoothing=add_k --k=0.01
python -m experiments.char_lm --prompt="The method"     # the samples go on from there

There is no training: a step of a run is an order, and the seed only draws the samples.
"""

import functools
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from dlfx.metrics import language
from dlfx.models.sequence import ngram
from dlfx.models.sequence.ngram import NGram
from dlfx.training import figures, loop
from dlfx.types import UserError
from experiments import common, text_figures, texts
from experiments.common import FLAGS, group
from experiments.texts import Texts

with group("n-grams"):
    flags.DEFINE_list("orders", ["1", "2", "3", "4", "5"], "how many tokens the n-grams have")
    flags.DEFINE_enum(
        "smoothing", "kneser_ney", ["kneser_ney", "add_k"], "where the probability of what was not seen is from"
    )
    flags.DEFINE_float("k", 1.0, "what --smoothing=add_k adds to every count; 1 is Laplace's rule", lower_bound=0.0)
    flags.DEFINE_string("prompt", "", "what all samples begin with")
    flags.DEFINE_integer("sample_tokens", 300, "tokens of the sample of each order", lower_bound=1)
CHECKED = 256  # contexts whose probabilities are summed


def orders() -> list[int]:
    """Those of the flags, rising."""
    try:
        found = sorted({int(order) for order in FLAGS.orders})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise UserError(f"--orders={','.join(FLAGS.orders)} must be whole numbers from 1 on, such as 1,2,3")
    return found


def count(corpus: Texts, order: int) -> NGram:
    """The model of the flags."""
    train = corpus.tokens["train"]
    if FLAGS.smoothing == "add_k":
        return ngram.fit_add_k(train, order, corpus.vocabulary.size, FLAGS.k)
    return ngram.fit_kneser_ney(train, order, corpus.vocabulary.size)


def measure(model: NGram, corpus: Texts, split: str) -> dict[str, float]:
    """How well a split is predicted, its first tokens as if it had just begun."""
    tokens = corpus.tokens[split]
    loss = float(-ngram.log_probs(model, tokens).sum())
    found = {"loss": loss / len(tokens), "perplexity": language.perplexity(loss, len(tokens))}
    if corpus.characters:
        found["bits_per_character"] = language.bits_per_character(loss, corpus.characters[split])
    return found


def largest_error(model: NGram, tokens: np.ndarray) -> float:
    """How far from 1 the probabilities of all tokens add up, after contexts of a text and after random ones."""
    random = np.random.default_rng(0)
    length = max(1, len(model.keys) - 1)
    ends = random.integers(0, max(1, len(tokens) - length), CHECKED)
    seen = tokens[np.minimum(ends[:, None] + np.arange(length), len(tokens) - 1)]
    contexts = np.concatenate([seen, random.integers(0, model.vocabulary, seen.shape)])
    return float(np.abs(ngram.probabilities(model, contexts).sum(1) - 1).max())


def main(_: Any) -> None:
    with common.begin("char_lm", f"{FLAGS.smoothing}-{texts.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: text, and for each order counts, figures and a sample."""
    listed = orders()
    if FLAGS.num_seeds > 1:
        raise UserError(f"--num_seeds={FLAGS.num_seeds} is not possible here: nothing is trained")
    if FLAGS.smoothing == "add_k" and not FLAGS.k:
        raise UserError("--k=0 leaves nothing for what was not seen; it must be more than 0")
    corpus = texts.load(session)
    prompt = corpus.vocabulary.encode(FLAGS.prompt)
    splits = [split for split in corpus.tokens if split != "train" and len(corpus.tokens[split])]
    if not splits:
        raise UserError("there is no text to evaluate on; --fractions must keep some for validation or test")
    if not common.open_directory(session):
        return
    if session.run:
        session.run.truncate(0)  # of a life that was cut off, everything is counted again
    found: dict[str, dict[str, list[float]]] = {}
    about: dict[str, Any] = {"orders": listed, "ngrams": [], "error_of_sums": []}
    samples = []
    began, largest = time.perf_counter(), None
    for order in listed:
        model = count(corpus, order)
        told = {split: measure(model, corpus, split) for split in ("train", *splits)}
        for split, metrics in told.items():
            for name, value in metrics.items():
                found.setdefault(split, {}).setdefault(name, []).append(value)
            if session.run:
                session.run.log(order, split, metrics)
        # Without those that end before the beginning, which are contexts only.
        about["ngrams"].append(int((model.keys[-1] % (model.vocabulary + 1) < model.vocabulary).sum()))
        about["error_of_sums"].append(largest_error(model, corpus.tokens[splits[0]]))
        random = np.random.Generator(np.random.Philox(key=[FLAGS.seed, order]))
        sample = ngram.sample(model, random, FLAGS.sample_tokens, prompt=prompt)[0]
        samples.append(f"[{order}] {FLAGS.prompt}{corpus.vocabulary.decode(sample)}")
        words = common.words({f"{split}_{name}": x for split in splits for name, x in told[split].items()})
        print(
            f"order {order}: {words}  {about['ngrams'][-1]:,} n-grams, "
            f"probabilities sum to 1 within {about['error_of_sums'][-1]:.1e}",
            flush=True,
        )
        largest = model
    seconds = time.perf_counter() - began
    by_order = [
        {f"{split}_{name}": x[i] for split in splits for name, x in found[split].items()} for i in range(len(listed))
    ]
    best = min(range(len(listed)), key=lambda i: by_order[i][f"{splits[0]}_loss"])
    result = loop.Result(
        None,
        largest,
        listed[-1],
        by_order[-1],
        {"metrics": by_order[best], "step": listed[best]},
        seconds,
        session.clock.elapsed(),
    )
    draw = functools.partial(draw_figures, found=found, about=about, corpus=corpus, samples=samples)
    about |= {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "vocabulary": corpus.vocabulary.size}
    assert largest is not None
    numbers = {"seen": largest.seen, "backoff": largest.backoff}
    common.finish(session, result, numbers, draw, about | {"by_order": found})


def draw_figures(
    directory: Path, found: dict[str, dict[str, list[float]]], about: dict[str, Any], corpus: Texts, samples: list[str]
) -> None:
    """Loss and perplexity by order, how many n-grams there are, and what they write."""
    (directory / "samples.txt").write_text(("\n" + "-" * 80 + "\n").join(samples) + "\n", encoding="utf-8")
    smoothing = f"add-k, k = {FLAGS.k:g}" if FLAGS.smoothing == "add_k" else "Kneser-Ney"
    text_figures.lines(directory / "samples.png", samples, f"samples by order, {smoothing}")
    figure = figures.new_figure(12.0, 3.8)
    figure.suptitle(f"{corpus.name} by {corpus.vocabulary.kind}, {len(corpus.tokens['train']):,} to count: {smoothing}")
    panels = figure.subplots(1, 3)
    measured = "bits_per_character" if "bits_per_character" in found["train"] else "loss"
    for axes, name in zip(panels, (measured, "perplexity"), strict=False):
        for split, values in found.items():
            axes.plot(about["orders"], values[name], marker=".", color=figures.COLORS[split], label=split)
        axes.set(xlabel="order", title=name.replace("_", " "))
        axes.legend()
    panels[0].set_ylim(bottom=0)
    panels[1].set_yscale("log", subs=[])
    panels[1].yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    panels[1].yaxis.set_major_formatter("{x:g}")
    panels[2].plot(about["orders"], about["ngrams"], marker=".", color="#555555")
    panels[2].set(xlabel="order", title="different n-grams to train on", yscale="log")
    for axes in panels:
        axes.set_xticks(about["orders"])
        axes.grid(alpha=0.3)
    figures.save(figure, directory / "by_order.png")


if __name__ == "__main__":
    common.launch(main)
