"""The pictures of experiments.seq2seq."""

import warnings
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dlfx.data import sequences as padded_sequences
from dlfx.models.sequence.seq2seq import Seq2Seq
from dlfx.training import figures, rundir
from dlfx.types import UserError
from experiments.common import FLAGS
from experiments.pairs import Pairs, tokens_of

MAPS = 6  # attention maps
LINES = 30  # translations in the picture
NAMES = {"vector": "one vector", **{kind: f"{kind} attention" for kind in ("additive", "dot", "general")}}
# Fonts that have Chinese, of which a machine may have one.
FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "SimHei", "PingFang SC")


def by_length(data: Pairs, split: str, found: list[list[str]], wanted: list[list[str]]) -> dict[str, list[int]]:
    """How many pairs there are of every length of the source, in tokens, and how many of them came out exactly."""
    lengths = np.array([len(tokens_of(source, data.source.kind)) for source, _ in data.splits[split]])
    exact = np.array([a == b for a, b in zip(found, wanted, strict=True)])
    every = np.unique(lengths)
    return {
        "length": every.tolist(),
        "pairs": [int((lengths == n).sum()) for n in every],
        "exact": [int(exact[lengths == n].sum()) for n in every],
    }


def draw(directory: Path, model: Any, variables: Any, data: Pairs, split: str, found: list[list[str]]) -> None:
    """Translations, exact match by length, and where the model looked."""
    held, join = data.splits[split], "" if data.target.kind == "characters" else " "
    lines = [(source, join.join(tokens), target) for (source, target), tokens in zip(held, found, strict=True)]
    directory.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{source}\t{mine}\t{target}\n" for source, mine, target in lines)
    (directory / "translations.txt").write_text("source\tmodel\ttarget\n" + text, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # translations.txt has what no font here can draw
        spread = np.linspace(0, len(lines) - 1, min(LINES, len(lines))).astype(int)
        translations(directory / "translations.png", [lines[i] for i in spread])
        wanted = [tokens_of(target, data.target.kind) for _, target in held]
        name = f"{split}, {len(held):,} pairs"
        exact_by_length(directory / "by_length.png", {name: by_length(data, split, found, wanted)}, data.name)
        if FLAGS.model != "vector":
            shown = [(held[i][0], found[i]) for i in spread]
            attention_maps(directory / "attention.png", model, variables, data, shown)


def font() -> list[str]:
    """The families that text is drawn in."""
    from matplotlib import font_manager

    known = {entry.name for entry in font_manager.fontManager.ttflist}
    return [*(name for name in FONTS if name in known)][:1] + ["DejaVu Sans"]


def translations(path: Path, lines: list[tuple[str, str, str]]) -> None:
    """What was given, what the model made of it, and what it should be; mistakes in red."""
    lines = [tuple(text if len(text) <= 50 else f"{text[:49]}..." for text in line) for line in lines]  # type: ignore
    figure = figures.new_figure(13.0, 0.24 * len(lines) + 0.8)
    axes = figure.subplots()
    axes.set(xlim=(0, 3), ylim=(len(lines), -1))
    axes.axis("off")
    for row, line in enumerate([("source", "model", "target"), *lines], -1):
        for column, text in enumerate(line):
            color = "#cc3311" if row >= 0 and column == 1 and line[1] != line[2] else "black"
            weight = "bold" if row < 0 else "normal"
            axes.text(
                column, row + 0.5, text.replace("$", r"\$"), color=color, weight=weight, fontsize=9, family=font()
            )
    figures.save(figure, path)


def exact_by_length(path: Path, runs: dict[str, dict[str, list[int]]], title: str) -> None:
    """Exact match by the length of the source, a curve for each run."""
    figure = figures.new_figure(6.4, 4.0)
    axes = figure.subplots()
    for name, counts in runs.items():
        share = np.array(counts["exact"]) / np.array(counts["pairs"])
        whole = sum(counts["exact"]) / sum(counts["pairs"])
        axes.plot(counts["length"], share, marker=".", label=f"{name}: {whole:.2%}")
    axes.set(xlabel="tokens of the source", ylabel="exact match", title=title, ylim=(-0.03, 1.03))
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def attention_maps(path: Path, model: Any, variables: Any, data: Pairs, shown: list[tuple[str, list[str]]]) -> None:
    """Where each token of the model's own target looks: of a Transformer the mean over heads in the last layer."""
    held = sorted(shown, key=lambda pair: -len(pair[0]))[:MAPS]
    # By number: as a text, an <unk> of characters would be read as five of them.
    numbers = {symbol: i for i, symbol in enumerate(data.target.symbols)}
    written = [[*(tokens[::-1] if FLAGS.turn_target else tokens), "<eos>"] for _, tokens in held]
    targets = padded_sequences.ragged(np.array([numbers[symbol] for symbol in tokens]) for tokens in written)
    fields = {**data.fields([(source, "") for source, _ in held]), "target": targets}
    batch = padded_sequences.batch_of(fields, np.arange(len(held)), data.lengths)
    given = jnp.pad(batch["target"][:, :-1], ((0, 0), (1, 0)), constant_values=data.target.special["<bos>"])
    _, kept = model.apply(variables, batch["source"], given, batch["source_lengths"], mutable="intermediates")
    if isinstance(model, Seq2Seq):
        weights, what = kept["intermediates"]["weights"][0], FLAGS.model
    else:
        layers = kept["intermediates"]["decoder"]["blocks"]["cross_attention"]["weights"][0]
        weights, what = layers[-1].mean(1), "last layer, mean over heads"
    figure = figures.new_figure(13.0, 8.0)
    figure.suptitle(f"attention of what the model writes (down) to what it is given (across): {what}")
    grid = figure.subplots(2, -(-len(held) // 2), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, row, map_TS in zip(grid.flat, range(len(held)), np.asarray(weights, np.float32), strict=False):
        rows, columns = int(batch["target_lengths"][row]), int(batch["source_lengths"][row])
        axes.axis("on")
        axes.imshow(map_TS[:rows, :columns], cmap="Blues", vmin=0, vmax=1)
        down = ["end" if s == "<eos>" else s for s in (data.target.symbols[i] for i in batch["target"][row, :rows])]
        across = [data.source.symbols[i].replace(" ", "_") for i in batch["source"][row, :columns]]
        down = [symbol.replace(" ", "_").replace("$", r"\$") for symbol in down]
        across = [symbol.replace("$", r"\$") for symbol in across]
        rotation = 60 if data.source.kind == "words" else 0
        axes.set_xticks(range(columns), across, rotation=rotation, family=font(), fontsize=8)
        axes.set_yticks(range(rows), down, family=font(), fontsize=8)
    figures.save(figure, path)


def compare() -> None:
    """Draws exact match by length of the finished runs `--compare` into `--workdir`.

    Raises:
      UserError: no `--workdir`, a directory without a finished run of this experiment.
    """
    if not FLAGS.workdir:
        raise UserError("--compare needs --workdir=DIR, where the picture goes")
    runs = {}
    for run in FLAGS.compare:
        path = Path(run).expanduser()
        summary = rundir.summary_of(path) if path.is_dir() else None
        if not summary or "by_length" not in summary:
            raise UserError(f"{path} holds no finished run of experiments.seq2seq")
        told = summary["flags"]
        name = NAMES.get(told["model"], told["model"])
        runs[f"{name} ({path.name})" if name in runs else name] = summary["by_length"]
        title = Path(told["pairs_file"]).name or told["task"]
    path = Path(FLAGS.workdir).expanduser() / "exact_by_length.png"
    exact_by_length(path, runs, title)
    print(f"picture: {path}")
