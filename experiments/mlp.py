"""Trains a multilayer perceptron by back-propagation written out by hand.

python -m experiments.mlp --flagfile=experiments/flagfiles/mlp/digits_minibatch.flags
python -m experiments.mlp --dataset=xor --hidden=4 --activation=tanh --descent=batch --optimizer=sgd --learning_rate=1
python -m experiments.mlp --hidden=128,64 --activation=relu --init=he --gradient=autodiff
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import sources
from dlfx.learners.backprop import GRADIENTS, State, backprop
from dlfx.metrics import classification
from dlfx.ops.backprop import ACTIVATIONS, LOSSES, OUTPUTS, Network, batch_variance, gradient, network, square_norms
from dlfx.training import evaluation, figures, loop, mesh
from dlfx.types import UserError
from experiments import common, images
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

DESCENTS = ["minibatch", "batch", "stochastic"]

with group("Network and descent"):
    flags.DEFINE_list("hidden", ["64"], "units of the hidden layers; empty: none")
    flags.DEFINE_string("activation", "tanh", f"of the hidden layers: {', '.join(ACTIVATIONS)}")
    flags.DEFINE_string("loss", "cross_entropy", f"one of {', '.join(LOSSES)}")
    flags.DEFINE_string("output", "", f"activation of the outputs, by default that of the loss: {', '.join(OUTPUTS)}")
    flags.DEFINE_string("init", "xavier", "of kernels: xavier, he or normal:STD")
    flags.DEFINE_enum(
        "descent", "minibatch", DESCENTS, "examples in a step: --batch_size, the whole training set, or one"
    )
    flags.DEFINE_enum("gradient", "hand", GRADIENTS, "the backward pass: written out, or by jax.grad")
FLAGS.set_default("image_size", 0)


def xor() -> sources.Source:
    """The four points of exclusive or, as images of 1x2 pixels, 0 or 1; no line separates its classes."""
    points = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32).reshape(4, 1, 2, 1)
    return sources.from_arrays("xor", points, np.array([0, 1, 1, 0]), 2)._replace(mean=0.0, std=1.0)


def widths() -> list[int]:
    """The hidden layers of the flags.

    Raises:
      UserError: for one that is no whole number above 0.
    """
    for text in FLAGS.hidden:
        if not (text.strip().isdecimal() and int(text)):
            raise UserError(f"--hidden={','.join(FLAGS.hidden)}: {text!r} is no width; whole numbers above 0 are")
    return [int(text) for text in FLAGS.hidden]


def load(session: common.Session) -> tuple[sources.Source, sources.Source]:
    """The (train, test) sources of the flags; sets `--batch_size` to what `--descent` means by it."""
    with session.clock.phase("data"):
        train, test = (xor(), xor()) if FLAGS.dataset == "xor" else sources.load(FLAGS.dataset, FLAGS.data_dir)
    if FLAGS.descent != "minibatch":
        FLAGS["batch_size"].value = train.size if FLAGS.descent == "batch" else 1
    mesh.check_batch(FLAGS.batch_size, session.mesh)
    return train, test


def main(_: Any) -> None:
    with common.begin("mlp", f"{FLAGS.descent}-{images.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: data, network, learner, program, training, figures."""
    hidden = widths()
    train, test = load(session)
    prepare = images.preparation(session, train.mean, train.std)
    stream = images.training_stream(session, train, prepare)
    steps = images.steps(train)
    side = FLAGS.image_size
    shape = (side or train.shape[0], side or train.shape[1], train.shape[2])
    net = network(
        [int(np.prod(shape)), *hidden, train.num_classes],
        FLAGS.activation,
        FLAGS.loss,
        FLAGS.output,
        FLAGS.init,
        session.dtype,
        session.param_dtype,
    )
    learner = backprop(net, optimizer(steps), gradient=FLAGS.gradient, axis_name=session.axis_name)
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)
    splits = {"test": test, "whole": train}
    evaluators = images.evaluators(session, program, functools.partial(sums, net), splits, prepare)

    def evaluate(state: Any) -> loop.Splits:
        found = {name: sums_of(state) for name, sums_of in evaluators.items()}
        metrics = {name: evaluation.means(of, ("loss", "accuracy")) for name, of in found.items()}
        return {**metrics, "whole": metrics["whole"] | variation(found["whole"], FLAGS.batch_size)}

    if not common.open_directory(session):
        return
    result = common.train(session, program, stream, common.schedule(steps, "test_accuracy"), evaluate)

    counts = evaluators["test"](result.state)["confusion"]  # by all processes; the rest is for the first one alone
    gradients = [evaluators["whole"](state)["gradient"] for state in (program.view(program.init()), result.state)]
    params = result.arrays.params
    if program.population:
        counts, gradients, params = jax.tree.map(lambda x: x[0], (counts, gradients, params))

    def draw(directory: Path) -> None:
        names = [str(i) for i in range(test.num_classes)]
        title = f"test accuracy {np.trace(counts) / counts.sum():.2%}, {int(counts.sum())} examples"
        figures.confusion(directory / "confusion.png", counts, names, title)
        draw_gradients(directory / "gradients.png", gradients, train.size)
        if FLAGS.dataset == "xor":
            draw_plane(directory / "plane.png", net, params)
        else:
            weights = params[0].kernel.T.astype(np.float32)[:64].reshape(-1, *shape)
            pictures = weights if shape[2] in (1, 3) else weights[..., :1]
            titles = [str(unit) for unit in range(len(pictures))]
            figures.image_grid(directory / "weights.png", pictures, titles, "weights of the first layer, unit by unit")

    common.finish(session, result, result.arrays.params, draw)


def sums(net: Network, state: State, batch: Any) -> dict[str, Any]:
    """What a batch adds to the metrics of its split: those of a classifier, the gradient, and its squared norms."""
    labels, mask = batch["label"], batch["mask"]
    trace = net.forward(state.params, batch["image"])
    deltas = [delta * mask[:, None] for delta in net.deltas(state.params, trace, labels)]
    return {
        **classification.sums(trace.before[-1], labels, mask),
        "loss": jnp.where(mask > 0, net.losses(trace, labels), 0).sum(),
        "square_norm": square_norms(trace, deltas).sum(),
        "gradient": gradient(trace, deltas),
    }


def variation(found: evaluation.Sums, batch_size: int) -> dict[str, np.ndarray]:
    """The norm of the gradient of the whole set, and the variance around it of the gradients of batches.

    Args:
      found: of the training set, as `sums` has it; with a leading axis of members for a population.
      batch_size: examples in a batch, no example twice.
    """
    count = found["count"].astype(np.float64)
    flat = [leaf.reshape(*count.shape, -1) for leaf in jax.tree.leaves(found["gradient"])]
    square = ((np.concatenate(flat, -1) / count[..., None]) ** 2).sum(-1)
    variance = batch_variance(found["square_norm"] / count, square, int(count.max()), batch_size)
    return {"grad_norm": np.sqrt(square), "gradient_variance": np.maximum(variance, 0)}


def draw_gradients(path: Path, gradients: list[Any], size: int) -> None:
    """The norm of the gradient of every kernel, before and after training."""
    figure = figures.new_figure(5.2, 3.6)
    axes = figure.subplots()
    for label, layers in zip(("before training", "after"), gradients, strict=True):
        norms = [np.linalg.norm(layer.kernel / size) for layer in layers]
        axes.plot(range(1, len(norms) + 1), norms, marker="o", label=label)
    axes.set(yscale="log", xlabel="layer", xticks=range(1, len(gradients[0]) + 1), ylabel="|dL/dw| over the whole set")
    axes.set_title("gradient by layer")
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def draw_plane(path: Path, net: Network, params: Any) -> None:
    """What the network makes of the plane of exclusive or: the score of class 1 over that of class 0."""
    ticks = np.linspace(-0.5, 1.5, 101)
    x, y = np.meshgrid(ticks, ticks)
    scores = np.asarray(jax.jit(net.forward)(params, np.stack([x.ravel(), y.ravel()], -1)).before[-1])
    margin = (scores[:, 1] - scores[:, 0]).reshape(x.shape)
    figure = figures.new_figure(4.8, 4.2)
    axes = figure.subplots()
    limit = np.abs(margin).max() or 1.0
    colors = axes.contourf(x, y, margin, np.linspace(-limit, limit, 21), cmap="RdBu")
    figure.colorbar(colors, label="score of 1 less score of 0", format="%.1f")
    if margin.min() < 0 < margin.max():
        axes.contour(x, y, margin, [0.0], colors="black", linewidths=1)
    for first, second in np.ndindex(2, 2):
        axes.plot(first, second, "s" if first ^ second else "o", color="black", markersize=9, markerfacecolor="white")
        axes.annotate(f"{first ^ second}", (first, second), ha="center", va="center", fontsize=7)
    axes.set(xlabel="first input", ylabel="second input", title="exclusive or")
    figures.save(figure, path)


if __name__ == "__main__":
    common.launch(main)
