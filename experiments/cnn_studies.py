"""Two experiments on convolutional networks, over several seeds: what depth costs, and what helps on few examples.

python -m experiments.cnn_studies                     # both
python -m experiments.cnn_studies degradation         # one

`degradation`: plain networks of 20 and 56 layers against residual ones, on the digits: the deeper plain one has the
higher training error, the deeper residual one has not (He et al. 2015, figure 1 and section 4.2). `ablation`:
augmentation, dropout and the optimizer, each with and without, on 20 training images a class.
"""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlfx.data import augment, batches, sources
from dlfx.learners.supervised import State, predict, supervised
from dlfx.losses.classification import softmax_cross_entropy
from dlfx.models.classification import MODELS
from dlfx.training import figures
from dlfx.training.progress import progress
from dlfx.types import Array, Stream
from experiments import studies
from experiments.studies import Found, Study

DEPTHS = {"plain20": "#4477aa", "plain56": "#ee6677", "resnet20": "#88bbdd", "resnet56": "#228833"}
TIPS = ("augmentation", "dropout", "Adam")
NETWORK = partial(MODELS["conv_blocks"], pattern="1x16p,1x32p;128", grid=None)


def degradation(seeds: int, epochs: int = 20, width: float = 0.5, batch_size: int = 64) -> Found:
    """Errors of each network by epoch, `[seeds, epochs]`, and the gradient of its layers before the first step."""
    train, test = sources.digits()
    prepare = partial(batches.preprocess, mean=train.mean, std=train.std, size=8, resize="pad")
    stream = batches.training_stream(train, batch_size, prepare)
    per_epoch = train.size // batch_size
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, per_epoch // 2, epochs * per_epoch)
    shown = progress(0, len(DEPTHS) * seeds * epochs * per_epoch)
    found: Found = {"epochs": epochs, "width": width, "networks": {}}
    done = 0
    for name in DEPTHS:
        model = MODELS[name](num_classes=10, width=width)
        rule = optax.chain(optax.add_decayed_weights(1e-4, kernels), optax.sgd(rate, 0.9))
        init, step = _compiled(supervised(model, rule), stream)
        whole = {split: _everything(source, prepare) for split, source in (("train", train), ("test", test))}
        told: dict[str, Any] = {"train_error": [], "final_train_error": [], "final_test_error": [], "gradients": []}
        for seed in range(seeds):
            state = init(jax.random.key(seed), stream.arrays, stream.host(seed, 0))
            told["gradients"].append(_gradients(model, state, *whole["train"]))
            missed = np.zeros((epochs, per_epoch))
            for i in range(epochs * per_epoch):
                state, metrics = step(state, stream.arrays, stream.host(seed, i))
                missed[divmod(i, per_epoch)] = 1 - float(metrics["accuracy"])
                done += 1
                shown.update(done, {"error": missed[i // per_epoch, : i % per_epoch + 1].mean()})
            told["train_error"].append(missed.mean(1).tolist())
            for split, (images, labels) in whole.items():
                told[f"final_{split}_error"].append(_error(model, state, images, labels))
        found["networks"][name] = told
    shown.close()
    return found


def kernels(params: Any) -> Any:
    """Which parameters decay: those that are no bias, scale or offset."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def _compiled(learner: Any, stream: Stream) -> tuple[Any, Any]:
    """The learner's two functions of (key or state, the stream's arrays, what travelled), compiled once."""

    def init(key: Array, arrays: Any, travelled: Any) -> State:
        return learner.init(key, stream.fetch(arrays, travelled))

    def step(state: State, arrays: Any, travelled: Any) -> tuple[State, Any]:
        return learner.step(state, stream.fetch(arrays, travelled))

    return jax.jit(init), jax.jit(step, donate_argnums=0)


def _everything(source: sources.Source, prepare: Callable[[Array], Array]) -> tuple[Array, Array]:
    """All images of a source, as a network takes them, and their labels."""
    examples = sources.read_all(source)
    return prepare(jnp.asarray(examples["image"])), jnp.asarray(examples["label"])


@partial(jax.jit, static_argnums=0)
def _wrong(model: Any, state: State, images: Array, labels: Array) -> Array:
    return predict(model, state, images)[0].argmax(-1) != labels


def _error(model: Any, state: State, images: Array, labels: Array) -> float:
    """The share of images that a trained network takes for another class."""
    return float(_wrong(model, state, images, labels).mean())


@partial(jax.jit, static_argnums=0)
def _gradient(model: Any, state: State, images: Array, labels: Array) -> Any:
    def loss(params: Any) -> Array:
        variables = {"params": params, **state.extra}
        (logits, _), _ = model.apply(variables, images, train=True, mutable=list(state.extra))
        return softmax_cross_entropy(logits, labels).mean()

    return jax.grad(loss)(state.params)


def _gradients(model: Any, state: State, images: Array, labels: Array, rows: int = 256) -> list[float]:
    """The norm of the gradient of each convolution's kernel, relative to the kernel's, from the first to the last."""
    gradient = _gradient(model, state, images[:rows], labels[:rows])
    norms = {}
    for (path, slope), kernel in zip(jax.tree.leaves_with_path(gradient), jax.tree.leaves(state.params), strict=True):
        names = [key.key for key in path]
        if kernel.ndim == 4:
            stage, block = (int(part) for part in names[0].removeprefix("layer").split(".")) if names[1:-1] else (0, 0)
            norms[stage, block, names[-2]] = float(jnp.linalg.norm(slope) / jnp.linalg.norm(kernel))
    return [norms[place] for place in sorted(norms)]


def draw_degradation(found: Found, path: Path) -> None:
    """Training error by epoch with its range, the errors in the end, and gradients by depth."""
    figure = figures.new_figure(15.0, 4.4)
    left, middle, right = figure.subplots(1, 3)
    for name, told in found["networks"].items():
        color, errors = DEPTHS[name], 100 * np.array(told["train_error"])
        x = np.arange(1, errors.shape[1] + 1)
        left.plot(x, errors.mean(0), color=color, label=name, linewidth=1.8)
        left.fill_between(x, errors.min(0), errors.max(0), color=color, alpha=0.18, linewidth=0)
        gradients = np.array(told["gradients"])
        right.plot(np.linspace(0, 1, gradients.shape[1]), gradients.mean(0), color=color, label=name, linewidth=1.4)
    left.set(xlabel="epoch", ylabel="training error, %", title="error on the batches of an epoch", yscale="log")
    names = list(found["networks"])
    for offset, (split, shade) in enumerate((("train", 1.0), ("test", 0.45))):
        errors = 100 * np.array([found["networks"][name][f"final_{split}_error"] for name in names])
        place = np.arange(len(names)) + 0.4 * offset - 0.2
        colors = [DEPTHS[name] for name in names]
        middle.bar(place, errors.mean(1), 0.38, color=colors, alpha=shade, yerr=_deviation(errors, 1), capsize=3)
    middle.set_xticks(range(len(names)), names)
    middle.set(ylabel="error, %", title="in the end: training (dark) and test (light)")
    right.set(xlabel="depth of the convolution, first to last", ylabel="|gradient| / |kernel|", yscale="log")
    right.set_title("before the first step: batch norm lets none vanish")
    for axes in (left, middle, right):
        axes.grid(alpha=0.3)
    left.legend()
    seeds = len(next(iter(found["networks"].values()))["train_error"])
    figure.suptitle(f"digits 8x8, width {found['width']:g}, {seeds} seeds: depth alone costs, shortcuts pay it back")
    figures.save(figure, path)


def tell_degradation(found: Found) -> list[str]:
    """A line a network."""
    lines = []
    for name, told in found["networks"].items():
        last = 100 * np.array(told["train_error"])[:, -1]
        ends = [_spread(100 * np.array(told[f"final_{split}_error"])) for split in ("train", "test")]
        lines.append(
            f"{name}: training error {_spread(last)} % over the last epoch, {ends[0]} % after it; test {ends[1]} %"
        )
    return lines


def ablation(seeds: int, steps: int = 600, per_class: int = 20, batch_size: int = 50) -> Found:
    """Test accuracies `[seeds]` of all combinations; each seed has training images of its own, drawn at random."""
    train, test = sources.digits()
    prepare = partial(batches.preprocess, mean=train.mean, std=train.std, size=16, resize="bilinear")
    streams = [batches.training_stream(_few(train, seed, per_class), batch_size, prepare) for seed in range(seeds)]
    images, labels = _everything(test, prepare)
    shift = augment.parse(["crop:2"])
    combinations = list(itertools.product((False, True), repeat=len(TIPS)))
    shown = progress(0, len(combinations) * seeds * steps)
    found: Found = {"seeds": seeds, "per_class": per_class, "steps": steps, "accuracy": {}}
    done = 0
    for augmented, dropped, adaptive in combinations:
        model = NETWORK(num_classes=10, dropout=0.5 if dropped else 0.0)
        rule = optax.adam(1e-3) if adaptive else optax.sgd(0.1)
        init, step = _compiled(supervised(model, rule, augment=shift if augmented else None), streams[0])
        accuracies = []
        for seed, stream in enumerate(streams):
            state = init(jax.random.key(seed), stream.arrays, stream.host(seed, 0))
            for i in range(steps):
                state, metrics = step(state, stream.arrays, stream.host(seed, i))
                done += 1
                if i % 20 == 19 or i == steps - 1:
                    shown.update(done, {"loss": float(metrics["loss"])})
            accuracies.append(1 - _error(model, state, images, labels))
        found["accuracy"][_label((augmented, dropped, adaptive))] = accuracies
    shown.close()
    return found


def _few(train: sources.Source, seed: int, per_class: int) -> sources.Source:
    """So many examples of each class, drawn at random."""
    labels, random = sources.read_all(train)["label"], np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(train.num_classes)]
    return sources.subset(train, np.concatenate(chosen))


def _label(which: tuple[bool, ...]) -> str:
    return " + ".join(tip for tip, on in zip(TIPS, which, strict=True) if on) or "none of them"


def effects(found: Found) -> dict[str, np.ndarray]:
    """What each of the three adds, seed by seed `[seeds]`: the mean over the four settings of the others."""
    accuracy = {label: np.array(values) for label, values in found["accuracy"].items()}
    gains = {}
    for index, tip in enumerate(TIPS):
        others = itertools.product((False, True), repeat=len(TIPS) - 1)
        pairs = [[(*rest[:index], on, *rest[index:]) for on in (True, False)] for rest in others]
        gains[tip] = np.mean([accuracy[_label(on)] - accuracy[_label(off)] for on, off in pairs], 0)
    return gains


def draw_ablation(found: Found, path: Path) -> None:
    """Accuracies of all combinations, and what each of the three adds."""
    figure = figures.new_figure(12.5, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    ranked = sorted(found["accuracy"].items(), key=lambda item: np.mean(item[1]))
    for row, (label, values) in enumerate(ranked):
        points = 100 * np.array(values)
        left.barh(row, points.mean(), color="#4477aa", alpha=0.55, xerr=_deviation(points), capsize=3)
        left.plot(points, np.full(len(points), row), ".", color="black", markersize=4)
        left.text(0.02, row, label, transform=left.get_yaxis_transform(), va="center", fontsize=9)
    every = 100 * np.concatenate([values for _, values in ranked])
    left.set(xlim=(max(0.0, every.min() - 6), 100), yticks=[], xlabel="test accuracy, %; a point a seed")
    for row, gain in enumerate(effects(found).values()):
        right.barh(row, 100 * gain.mean(), color="#228833", alpha=0.6, xerr=_deviation(100 * gain), capsize=3)
        right.plot(100 * gain, np.full(len(gain), row), ".", color="black", markersize=4)
    right.axvline(0, color="black", linewidth=0.8)
    right.set_yticks(range(len(TIPS)), [tip if tip != "Adam" else "Adam for SGD" for tip in TIPS])
    right.set(xlabel="points gained, mean over the settings of the others")
    for axes in (left, right):
        axes.grid(alpha=0.3, axis="x")
    figure.suptitle(f"{found['per_class']} digits a class, {found['steps']} steps, {found['seeds']} seeds")
    figures.save(figure, path)


def tell_ablation(found: Found) -> list[str]:
    """A line a combination, then one for each of the three."""
    lines = [f"{label}: {_spread(100 * np.array(values))} %" for label, values in found["accuracy"].items()]
    return lines + [f"{tip} adds {_spread(100 * gain)} points" for tip, gain in effects(found).items()]


def _deviation(values: np.ndarray, axis: int = 0) -> Any:
    return values.std(axis, ddof=1)


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} +- {_deviation(values):.2f}"


STUDIES: dict[str, Study] = {
    "degradation": (degradation, draw_degradation, tell_degradation),
    "ablation": (ablation, draw_ablation, tell_ablation),
}
SEEDS = {"degradation": 3, "ablation": 8}


def main() -> None:
    """Runs the studies named on the command line."""
    studies.run("cnn_studies", __doc__, STUDIES, SEEDS)


if __name__ == "__main__":
    main()
