"""Pretrains a deep classifier layer by layer as stacked autoencoders, then trains it whole; or only trains it whole.

python -m experiments.pretraining --flagfile=experiments/flagfiles/pretraining/digits_sigmoid.flags
python -m experiments.pretraining --flagfile=experiments/flagfiles/pretraining/digits_sigmoid_random.flags
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import sources
from dlfx.learners import autoencoder, layerwise
from dlfx.losses.classification import softmax_cross_entropy
from dlfx.metrics import classification
from dlfx.models.generative.autoencoder import ACTIVATIONS, INITIALIZERS, StackedAutoencoder
from dlfx.training import evaluation, figures, loop, mesh, rundir
from dlfx.types import UserError, unknown
from experiments import autoencoder_figures as pictures
from experiments import common, images, seeds
from experiments.common import FLAGS, group
from experiments.optimizers import OPTIMIZERS, optimizer

with group("Pretraining"):
    flags.DEFINE_list("widths", ["100"] * 6, "of the layers")
    flags.DEFINE_enum("activation", "sigmoid", list(ACTIVATIONS), "of the layers")
    flags.DEFINE_bool("normalize", False, "batch norm before every activation")
    flags.DEFINE_enum("initializer", "xavier", list(INITIALIZERS), "of the weights; uniform: up to 1/sqrt(inputs)")
    flags.DEFINE_integer(
        "pretrain_steps", 220, "for each layer, before the --steps or --epochs of all; 0: none", lower_bound=0
    )
    flags.DEFINE_string("pretrain_optimizer", "adam", f"one of {', '.join(OPTIMIZERS)}")
    flags.DEFINE_float("pretrain_learning_rate", 5e-3, "constant", lower_bound=0.0)
    flags.DEFINE_enum("loss", "bernoulli", list(autoencoder.LOSSES), "of a layer's autoencoder, summed over its inputs")
    flags.DEFINE_float("corruption", 0.0, "of a layer's input: the part masked, or the noise's deviation; in [0, 1)")
    flags.DEFINE_enum("corruption_kind", "masking", list(autoencoder.CORRUPTIONS), "how it is corrupted")
FLAGS.set_default("image_size", 0)


def main(_: Any) -> None:
    how = "pretrained" if FLAGS.pretrain_steps else "random"
    with common.begin("pretraining", f"{FLAGS.activation}-{how}-{images.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: data, model, learner, program, training, figures."""
    try:
        widths = [int(text) for text in FLAGS.widths]
    except ValueError:
        widths = []
    if not widths:
        raise UserError(f"--widths={','.join(FLAGS.widths)} must be at least one whole number, such as 100,100")
    if FLAGS.pretrain_steps and FLAGS.loss == "bernoulli" and FLAGS.activation != "sigmoid":
        raise UserError(f"--loss=bernoulli needs --activation=sigmoid, not {FLAGS.activation}; --loss=squared does not")
    if FLAGS.pretrain_optimizer not in OPTIMIZERS:
        raise unknown("optimizer", FLAGS.pretrain_optimizer, OPTIMIZERS)
    train, test = images.load(session)
    prepare = images.preparation(session)
    stream = images.training_stream(session, train, prepare)
    size, last = FLAGS.image_size, images.steps(train)
    before = len(widths) * FLAGS.pretrain_steps
    model = StackedAutoencoder(
        (size, size, train.shape[-1]) if size else train.shape,
        tuple(widths),
        train.num_classes,
        activation=FLAGS.activation,
        normalize=FLAGS.normalize,
        initializer=FLAGS.initializer,
        dtype=session.dtype,
        param_dtype=session.param_dtype,
        axis_name=session.axis_name,
    )
    learner = layerwise.layerwise(
        model,
        optimizer(last),
        OPTIMIZERS[FLAGS.pretrain_optimizer](FLAGS.pretrain_learning_rate),
        depth=len(widths),
        pretrain_steps=FLAGS.pretrain_steps,
        loss=FLAGS.loss,
        corruption=FLAGS.corruption_kind,
        amount=FLAGS.corruption,
        axis_name=session.axis_name,
    )
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)

    def sums(state: layerwise.State, batch: Any) -> dict[str, jax.Array]:
        logits, _ = layerwise.predict(model, state, batch["image"])
        return classification.sums(logits, batch["label"], batch["mask"])

    evaluators = images.evaluators(session, program, sums, {"test": test}, prepare)

    def evaluate(state: Any) -> loop.Splits:
        return {name: evaluation.means(sums_of(state), ("loss", "accuracy")) for name, sums_of in evaluators.items()}

    if not common.open_directory(session):
        return
    result = common.train(session, program, stream, common.schedule(before + last, "test_accuracy"), evaluate)
    initial, pretrained = program.host(program.init()).pretrained, result.arrays.pretrained
    if not program.population:
        initial, pretrained = jax.tree.map(lambda x: x[None], (initial, pretrained))
    draw = functools.partial(
        draw_figures,
        session=session,
        model=model,
        initial=initial,
        pretrained=pretrained,
        train=train,
        test=test,
        prepare=prepare,
    )
    common.finish(session, result, result.arrays.params, draw)


def draw_figures(
    directory: Path,
    session: common.Session,
    model: StackedAutoencoder,
    initial: Any,
    pretrained: Any,
    train: sources.Source,
    test: sources.Source,
    prepare: Any,
) -> None:
    """Learning curves with their stages, gradients layer by layer, and what each code still knows of an image."""
    depth = len(model.widths)
    stage_curves(directory / "stages.png", rundir.read_metrics(session.path), session.seeds, depth)

    model = model.clone(axis_name=None)
    known, labels = pictures.prepared(train, prepare, most=512)
    starts = {"random": initial} | ({"pretrained": pretrained} if FLAGS.pretrain_steps else {})
    norms = {name: gradient_norms(model, variables, known, labels) for name, variables in starts.items()}
    gradient_curves(directory / "gradients.png", norms)

    if FLAGS.pretrain_steps:
        pixels, classes = pictures.prepared(test, prepare)
        variables = jax.tree.map(lambda x: x[0], pretrained)
        mean = functools.partial(autoencoder.mean, FLAGS.loss)

        @jax.jit
        def view(image: jax.Array) -> dict[str, jax.Array]:
            codes = [model.apply(variables, image, n, method="encode") for n in range(1, depth + 1)]
            backs: list[Any] = [
                model.apply(variables, code, n, mean, method="decode") for n, code in enumerate(codes, 1)
            ]
            return {f"code {n}: {model.widths[n - 1]}": back for n, back in enumerate(backs, 1)}

        backs = pictures.in_parts(view, pixels)
        some = pictures.one_of_each(classes)
        rows = {"original": pixels[some]}
        rows |= {f"{name}\nerror {np.square(back - pixels).mean():.4f}": back[some] for name, back in backs.items()}
        title = "decoded from each code after pretraining, and the squared error of a pixel"
        pictures.image_rows(directory / "reconstructions.png", rows, title)


def gradient_norms(model: StackedAutoencoder, variables: Any, pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The norm of the mean loss's gradient by member and layer, `[N, L + 1]`, for variables with a leading axis N."""
    names = [*(f"layer_{n}" for n in range(len(model.widths))), "output"]

    def member(variables: Any) -> jax.Array:
        extra = {name: value for name, value in variables.items() if name != "params"}

        def loss(params: Any) -> jax.Array:
            (logits, _), _ = model.apply({"params": params, **extra}, pixels, train=True, mutable=list(extra))
            return softmax_cross_entropy(logits, jnp.asarray(labels)).mean()

        gradient = jax.grad(loss)(variables["params"])
        squares = [sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(gradient[name])) for name in names]
        return jnp.sqrt(jnp.stack(squares))

    return np.asarray(jax.jit(jax.vmap(member))(variables))


def gradient_curves(path: Path, norms: dict[str, np.ndarray]) -> None:
    """Norms `[N, L + 1]` by layer: a dot for each seed, a line through their geometric means."""
    figure = figures.new_figure(6.4, 4.0)
    axes = figure.subplots()
    for (name, values), color in zip(norms.items(), ("#4477aa", "#ee6677"), strict=False):
        xs = np.arange(1, values.shape[1] + 1)
        axes.plot(xs, np.exp(np.log(values + 1e-30).mean(0)), label=name, color=color, linewidth=1.6)
        for member in values:
            axes.plot(xs, member, ".", color=color, alpha=0.5)
    axes.set(
        yscale="log",
        xticks=xs,
        xticklabels=[*map(str, xs[:-1]), "output"],
        xlabel="layer",
        ylabel="norm of its gradient",
        title="gradient of the classification loss before its first step",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figures.save(figure, path)


def stage_curves(path: Path, rows: Any, members: tuple[int, ...], depth: int) -> None:
    """The training loss of every stage and the test accuracy: thin lines of seeds, a thick one of their mean."""
    figure = figures.new_figure(7.2, 5.6)
    top, bottom = figure.subplots(2, 1, sharex=True)
    steps, losses = seeds.by_seed(rows, "train", "loss", members)
    stages = seeds.by_seed(rows, "train", "stage", members)[1][0]
    for stage in range(depth + 1):
        here = stages == stage
        if not here.any():
            continue
        color = "black" if stage == depth else f"C{stage % 10}"
        top.plot(steps[here], losses[:, here].T, color=color, alpha=0.25, linewidth=0.6)
        label = "all layers" if stage == depth else f"layer {stage + 1}"
        top.plot(steps[here], losses[:, here].mean(0), color=color, linewidth=1.6, label=label)
    xs, accuracy = seeds.by_seed(rows, "test", "accuracy", members)
    bottom.plot(xs, accuracy.T, color=figures.COLORS["test"], alpha=0.3, linewidth=0.7)
    bottom.plot(xs, accuracy.mean(0), color=figures.COLORS["test"], marker=".", linewidth=1.6)
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
        for stage in range(1, depth + 1):
            if FLAGS.pretrain_steps:
                axes.axvline(stage * FLAGS.pretrain_steps, color="grey", linewidth=0.7, linestyle=":")
    top.set(yscale="log", ylabel="training loss in nats", title="the loss of what each stage trains")
    if FLAGS.loss == "squared" and FLAGS.pretrain_steps:
        top.set(ylabel="training loss")
    top.legend(fontsize=8, ncols=2)
    final = accuracy[:, -1]
    spread = f" +- {final.std(ddof=1):.2%} over {len(final)} seeds" if len(final) > 1 else ""
    bottom.set(xlabel="step", ylabel="test accuracy", ylim=(0, 1.02), title=f"in the end {final.mean():.2%}{spread}")
    figures.save(figure, path)


if __name__ == "__main__":
    common.launch(main)
