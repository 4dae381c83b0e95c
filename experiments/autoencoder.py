"""Trains an autoencoder of images: plain, denoising, sparse, contractive or convolutional.

python -m experiments.autoencoder --flagfile=experiments/flagfiles/autoencoder/digits_denoising.flags
python -m experiments.autoencoder --kind=sparse --code_size=64 --epochs=100
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import sources
from dlfx.learners import autoencoder
from dlfx.models.generative.autoencoder import ACTIVATIONS, Autoencoder, ConvolutionalAutoencoder
from dlfx.training import evaluation, figures, loop, mesh
from dlfx.types import UserError, unknown
from experiments import autoencoder_figures as pictures
from experiments import common, images
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

# What --kind sets where the flags leave it open (-1).
KINDS: dict[str, dict[str, float]] = {
    "plain": {"corruption": 0.0, "sparsity": 0.0, "contraction": 0.0},
    "denoising": {"corruption": 0.3, "sparsity": 0.0, "contraction": 0.0},
    "sparse": {"corruption": 0.0, "sparsity": 3.0, "contraction": 0.0},
    "contractive": {"corruption": 0.0, "sparsity": 0.0, "contraction": 0.1},
    "convolutional": {"corruption": 0.0, "sparsity": 0.0, "contraction": 0.0},
}

with group("Autoencoder"):
    flags.DEFINE_string("kind", "plain", f"one of {', '.join(KINDS)}; it sets the flags left at -1")
    flags.DEFINE_integer("code_size", 32, "numbers in the code", lower_bound=1)
    flags.DEFINE_list("hidden", [], "widths of the dense layers between image and code")
    flags.DEFINE_list("channels", ["16", "32"], "of the convolutions of kind=convolutional, each of stride 2")
    flags.DEFINE_enum("activation", "sigmoid", list(ACTIVATIONS), "of the hidden layers")
    flags.DEFINE_enum("code_activation", "sigmoid", list(ACTIVATIONS), "of the code")
    flags.DEFINE_bool("tied", False, "dense decoders use the encoder's kernels, transposed")
    flags.DEFINE_enum("loss", "bernoulli", list(autoencoder.LOSSES), "cross-entropy or squared error, over pixels")
    flags.DEFINE_float("corruption", -1.0, "of the input: the part masked, or the deviation of the noise; in [0, 1)")
    flags.DEFINE_enum("corruption_kind", "masking", list(autoencoder.CORRUPTIONS), "how the input is corrupted")
    flags.DEFINE_float("sparsity", -1.0, "weight of the penalty on active codes", lower_bound=-1.0)
    flags.DEFINE_enum(
        "sparsity_kind", "kl", list(autoencoder.SPARSITIES), "of mean activations, or their absolute values"
    )
    flags.DEFINE_float("sparsity_target", 0.05, "the mean activation that sparsity_kind=kl wants")
    flags.DEFINE_float("contraction", -1.0, "weight of the squared norm of the encoder's Jacobian", lower_bound=-1.0)
FLAGS.set_default("image_size", 0)


def widths(name: str) -> tuple[int, ...]:
    """The whole numbers of a flag that lists them."""
    texts = getattr(FLAGS, name)
    try:
        return tuple(int(text) for text in texts)
    except ValueError:
        raise UserError(f"--{name}={','.join(texts)} must be whole numbers, such as 64,32") from None


def chosen() -> dict[str, float]:
    """Amount of corruption and weights of the penalties, from `--kind` and the flags.

    Raises:
      UserError: for an unknown kind, and for what does not go together.
    """
    if FLAGS.kind not in KINDS:
        raise unknown("kind", FLAGS.kind, KINDS)
    told = {name: getattr(FLAGS, name) for name in KINDS[FLAGS.kind]}
    values = {name: value if told[name] == -1 else told[name] for name, value in KINDS[FLAGS.kind].items()}
    if values["sparsity"] and FLAGS.sparsity_kind == "kl" and FLAGS.code_activation != "sigmoid":
        raise UserError(f"--sparsity_kind=kl needs --code_activation=sigmoid, not {FLAGS.code_activation}; l1 does not")
    if FLAGS.kind == "convolutional" and (values["contraction"] or FLAGS.tied or FLAGS.hidden):
        raise UserError("--contraction, --tied and --hidden are of dense autoencoders, not of --kind=convolutional")
    return values


def make_model(session: common.Session, shape: tuple[int, int, int]) -> Any:
    """The model of the flags for images of a shape."""
    types = {"dtype": session.dtype, "param_dtype": session.param_dtype}
    ends = {"activation": FLAGS.activation, "code_activation": FLAGS.code_activation}
    if FLAGS.kind == "convolutional":
        return ConvolutionalAutoencoder(shape, FLAGS.code_size, widths("channels"), **ends, **types)
    return Autoencoder(shape, (*widths("hidden"), FLAGS.code_size), tied=FLAGS.tied, **ends, **types)


def main(_: Any) -> None:
    with common.begin("autoencoder", f"{FLAGS.kind}-{images.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: data, model, learner, program, training, figures."""
    values = chosen()
    train, test = images.load(session)
    prepare = images.preparation(session)
    stream = images.training_stream(session, train, prepare)
    steps = images.steps(train)
    size = FLAGS.image_size
    model = make_model(session, (size, size, train.shape[-1]) if size else train.shape)
    learner = autoencoder.autoencoder(
        model,
        optimizer(steps),
        loss=FLAGS.loss,
        corruption=FLAGS.corruption_kind,
        amount=values["corruption"],
        sparsity=FLAGS.sparsity_kind,
        sparsity_weight=values["sparsity"],
        sparsity_target=FLAGS.sparsity_target,
        contraction=values["contraction"],
        axis_name=session.axis_name,
    )
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)

    def sums(state: autoencoder.State, batch: Any) -> dict[str, jax.Array]:
        image, real = batch["image"], batch["mask"]
        outputs, shown, code = autoencoder.reconstruct(model, state, image, FLAGS.loss)
        return {
            "count": real.sum(),
            "loss": (autoencoder.reconstruction_loss(FLAGS.loss, outputs, image) * real).sum(),
            "pixel_error": (jnp.square(shown - image).mean((1, 2, 3)) * real).sum(),
            "activation": (code.mean(-1) * real).sum(),
        }

    evaluators = images.evaluators(session, program, sums, {"test": test}, prepare)
    names = ("loss", "pixel_error", "activation")

    def evaluate(state: Any) -> loop.Splits:
        return {name: evaluation.means(sums_of(state), names) for name, sums_of in evaluators.items()}

    if not common.open_directory(session):
        return
    result = common.train(session, program, stream, common.schedule(steps, "test_loss"), evaluate)
    member = jax.tree.map(lambda x: x[0], result.arrays) if program.population else result.arrays
    draw = functools.partial(
        draw_figures, model=model, state=member, train=train, test=test, prepare=prepare, amount=values["corruption"]
    )
    common.finish(session, result, result.arrays.params, draw)


def draw_figures(
    directory: Path,
    model: Any,
    state: autoencoder.State,
    train: sources.Source,
    test: sources.Source,
    prepare: Any,
    amount: float,
) -> None:
    """Reconstructions, the codes of the test images, the first layer's filters, and a convolution's features."""
    pixels, labels = pictures.prepared(test, prepare)
    known, _ = pictures.prepared(train, prepare)

    @jax.jit
    def view(image: jax.Array) -> tuple[jax.Array, jax.Array]:
        return autoencoder.reconstruct(model, state, image, FLAGS.loss)[1:]

    back, codes = pictures.in_parts(view, pixels)
    size, title = codes.shape[1], f"pixel error {np.square(back - pixels).mean():.4f}"
    if size < known[0].size:
        title += f"; {size} principal components: {pictures.principal_error(known, pixels, size):.4f}"
    rows = {"original": pixels, "reconstruction": back}
    if amount:
        key = jax.random.key(FLAGS.seed)
        given = np.asarray(autoencoder.corrupt(FLAGS.corruption_kind, amount, key, jnp.asarray(pixels)))
        back, _ = pictures.in_parts(view, given)
        rows |= {f"{FLAGS.corruption_kind} {amount:g}": given, "denoised": back}
        title += f"\nof corrupted images {np.square(given - pixels).mean():.4f}"
        title += f", denoised {np.square(back - pixels).mean():.4f}"
    some = pictures.one_of_each(labels)
    pictures.image_rows(directory / "reconstructions.png", {name: of[some] for name, of in rows.items()}, title)
    pictures.code_scatter(directory / "codes.png", codes, labels, f"codes of {len(codes)} test images")

    kernel = np.asarray(state.params["encoder_0"]["kernel"])
    pictures.filter_mosaic(directory / "filters.png", kernel, pixels.shape[1:], "filters of the first layer")
    if FLAGS.kind == "convolutional":
        features = model.apply({"params": state.params}, jnp.asarray(pixels[:1]), method="features")
        panels: list[Any] = []
        for name, value in features.items():
            row = [(value[0, ..., i], f"{name} {i}") for i in range(min(8, value.shape[-1]))]
            gaps = [(None, "")] * (8 - len(row))
            panels += [(None, "") if panels else (pixels[0].mean(-1), f"a {labels[0]}"), *row, *gaps]
        shown, titles = zip(*panels, strict=True)
        figures.image_grid(directory / "features.png", shown, titles, "feature maps of one test image", columns=9)


if __name__ == "__main__":
    common.launch(main)
