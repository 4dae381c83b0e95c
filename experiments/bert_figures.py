"""Pictures of a BERT: what it takes masked words for, and where its heads look."""

from pathlib import Path

import jax
import numpy as np

from dlfx.data.vocabulary import Vocabulary
from dlfx.models.sequence.bert import BERTForPretraining
from dlfx.training import figures
from dlfx.types import Batch
from experiments import text_figures

GUESSES = 3  # shown of each masked word
TOKENS = 24  # of the sentence whose attention is shown


def draw(
    directory: Path, model: BERTForPretraining, variables: dict, batch: Batch, known: Vocabulary, split: str
) -> None:
    """Draws `masked.png` and `attention.png` of a batch of a few pairs."""
    given = batch["tokens"], batch["token_types"], batch["lengths"]
    apply = jax.jit(lambda variables, *given: model.apply(variables, *given, mutable="intermediates"))
    (logits, pairs), kept = apply(variables, *given, batch["positions"])
    names = (*known.symbols, "[MASK]")
    texts = []
    for row in range(len(batch["tokens"])):
        texts.append(_masked(batch, row, np.asarray(logits[row], np.float32), np.asarray(pairs[row]), names))
    title = f"masked words of the {split} split: what stood there, and the {GUESSES} likeliest by the model"
    text_figures.texts(directory / "masked.png", texts, title + "\ngreen: the first is right; red: it is not")
    weights = kept["intermediates"]["bert"]["stack"]["blocks"]["attention"]["weights"][0]  # [L, B, H, T, T]
    shortest = int(np.argmin(batch["lengths"]))
    size = min(TOKENS, int(batch["lengths"][shortest]))
    words = [names[token] for token in batch["tokens"][shortest, :size]]
    attention(directory / "attention.png", np.asarray(weights[:, shortest, :, :size, :size], np.float32), words)


def _masked(batch: Batch, row: int, logits: np.ndarray, pair: np.ndarray, names: tuple[str, ...]) -> text_figures.Text:
    length = int(batch["lengths"][row])
    words = [names[token] for token in batch["tokens"][row, :length]]
    colors, below = ["white"] * length, [""] * length
    for k in np.nonzero(batch["weights"][row])[0]:
        place, target = int(batch["positions"][row, k]), int(batch["targets"][row, k])
        best = np.argsort(-logits[k])[:GUESSES]
        colors[place] = "#c5e8c5" if best[0] == target else "#f6c9c9"
        below[place] = f"{names[target]}: {' '.join(names[guess] for guess in best)}"
    true, told = ("another" if which else "the next" for which in (int(batch["not_next"][row]), int(pair.argmax())))
    return text_figures.Text(f"the second sentence is {true} one; told: {told}", words, colors, below)


def attention(path: Path, weights_LHTT: np.ndarray, words: list[str]) -> None:
    """The weights of every layer and head, the token that looks by row."""
    layers, heads = weights_LHTT.shape[:2]
    figure = figures.new_figure(3.2 * heads + 0.6, 3.2 * layers + 0.6)
    for k, axes in enumerate(figure.subplots(layers, heads, squeeze=False).flat):
        axes.imshow(weights_LHTT[k // heads, k % heads], cmap="Blues", vmin=0)
        shown = [word.replace("$", r"\$") for word in words]
        axes.set_xticks(range(len(words)), shown, fontsize=6, rotation=90)
        axes.set_yticks(range(len(words)), shown, fontsize=6)
        axes.set_title(f"layer {k // heads + 1}, head {k % heads + 1}", fontsize=9)
    figures.save(figure, path)
