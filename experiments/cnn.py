"""Trains a convolutional network to classify images.

python -m experiments.cnn --flagfile=experiments/flagfiles/cnn/lenet5_digits.flags
python -m experiments.cnn --dataset=tfds:mnist --data_dir=DIR --model=lenet5 --epochs=10
python -m experiments.cnn --model=resnet18 --init_from=resnet18.safetensors --freeze='(?!fc)'
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import augment, sources
from dlfx.learners import supervised
from dlfx.metrics import classification
from dlfx.models.classification import AUX_WEIGHT, MODELS
from dlfx.nn.freezing import with_fixed_norms
from dlfx.training import evaluation, figures, loop, mesh
from dlfx.types import Array, Key, UserError
from experiments import classifier_figures, common, finetuning, images
from experiments.common import FLAGS, group
from experiments.model_options import OPTIONS, model_options
from experiments.optimizers import optimizer

with group("Data"):
    flags.DEFINE_list("augment", [], "of training images, in order: flip, crop:PIXELS, noise:STD, cutout:SIZE")
    flags.DEFINE_enum(
        "augment_on", "device", ["device", "host"], "inside the step, or ahead of it in threads of the host"
    )
    flags.DEFINE_float("valid_fraction", 0.0, "part of the training set kept for validation", 0.0, 0.5)
with group("Model and training"):
    flags.DEFINE_string("model", "lenet5", f"one of {', '.join(MODELS)}")
    flags.DEFINE_enum(
        "shortcut", "", ["", "A", "B", "C"], "of a ResNet: zero-padded, projected where shapes differ, or always"
    )
    flags.DEFINE_string(
        "pattern", "", "of conv_blocks, such as 2x32p,2x64p;128: [M convolutions + pooling] x N + K dense"
    )
    flags.DEFINE_float("width", 1.0, "a factor on all channels of the model", lower_bound=0.001)
    flags.DEFINE_float("dropout", -1.0, "of the model; -1: its own", lower_bound=-1.0, upper_bound=0.999)
    flags.DEFINE_bool("aux_heads", False, "train the auxiliary heads too, with the weight that was published for them")
    flags.DEFINE_float("label_smoothing", 0.0, "probability spread over all classes", 0.0, 0.999)


def make_model(session: common.Session, num_classes: int) -> Any:
    """The model of the flags."""
    options = model_options(FLAGS.model, {name: FLAGS[name].value for name in OPTIONS})
    return MODELS[FLAGS.model](
        num_classes=num_classes,
        dtype=session.dtype,
        param_dtype=session.param_dtype,
        axis_name=session.axis_name,
        **options,
    )


def main(_: Any) -> None:
    with common.begin("cnn", f"{FLAGS.model}-{images.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: data, model, learner, program, training, figures."""
    augmentation = augment.parse(FLAGS.augment)
    on_host = augmentation if FLAGS.augment_on == "host" else None
    train, test = images.load(session)
    splits = {"test": test}
    if FLAGS.valid_fraction:
        train, splits["valid"] = sources.split_validation(train, FLAGS.valid_fraction)
    prepare = images.preparation(session, train.mean, train.std)
    stream = images.training_stream(session, train, prepare, on_host=on_host)
    steps = images.steps(train)

    model = make_model(session, train.num_classes)

    def draw(key: Key, pixels: Array) -> Any:
        return model.init(key, prepare(pixels), train=False)

    try:
        pixels = jax.ShapeDtypeStruct((1, *train.shape), jnp.float32)
        params = jax.eval_shape(draw, jax.random.key(0), pixels)["params"]
    except UserError as error:  # the model met its first image here
        raise UserError(f"{error}; --image_size={FLAGS.image_size} with --resize brings them to a size") from error
    frozen = finetuning.frozen_names(params) if FLAGS.freeze else frozenset()
    learner = supervised.supervised(
        with_fixed_norms(model, frozen.__contains__) if frozen else model,
        optimizer(steps),
        smoothing=FLAGS.label_smoothing,
        aux_weight=AUX_WEIGHT[FLAGS.model] if FLAGS.aux_heads else 0.0,
        frozen=functools.partial(finetuning.frozen_mask, frozen=frozen) if frozen else None,
        augment=None if on_host else augmentation,
        axis_name=session.axis_name,
    )
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)
    program = finetuning.begin_with_file(session, program, train.num_classes)

    def sums(state: supervised.State, batch: Any) -> dict[str, jax.Array]:
        logits, _ = supervised.predict(model, state, batch["image"])
        return classification.sums(logits, batch["label"], batch["mask"])

    evaluators = images.evaluators(session, program, sums, splits, prepare)

    def evaluate(state: Any) -> loop.Splits:
        return {name: evaluation.means(sums_of(state), ("loss", "accuracy")) for name, sums_of in evaluators.items()}

    if not common.open_directory(session):
        return
    monitor = "valid_accuracy" if FLAGS.valid_fraction else "test_accuracy"
    result = common.train(session, program, stream, common.schedule(steps, monitor), evaluate)

    counts = evaluators["test"](result.state)["confusion"]  # by all processes; the rest is for the first one alone
    member = result.arrays
    if program.population:
        counts, member = counts[0], jax.tree.map(lambda x: x[0], member)
    draw = functools.partial(draw_figures, model=model, state=member, test=test, prepare=prepare, counts=counts)
    common.finish(session, result, result.arrays.params, draw)


def draw_figures(
    directory: Path, model: Any, state: supervised.State, test: sources.Source, prepare: Any, counts: np.ndarray
) -> None:
    """The confusion matrix, the most confident mistakes, the first filters, and the feature maps of one image."""
    names = [str(i) for i in range(test.num_classes)]
    accuracy = np.trace(counts) / counts.sum()
    figures.confusion(
        directory / "confusion.png", counts, names, f"test accuracy {accuracy:.2%}, {int(counts.sum())} images"
    )

    examples = sources.read_all(test)
    pixels, labels = examples["image"], examples["label"]
    order: list[str] = []  # of the features in the network; jit gives them in the order of their names

    @jax.jit
    def predict(state: supervised.State, image: np.ndarray) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, features = supervised.predict(model, state, prepare(image))
        order[:] = features
        return logits, features

    chunks = [np.arange(i, i + 256) % len(pixels) for i in range(0, len(pixels), 256)]
    logits = np.concatenate([predict(state, pixels[chunk])[0] for chunk in chunks])[: len(pixels)]
    probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    predicted = probability.argmax(-1)
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-probability[wrong, predicted[wrong]])][:16]
    if len(worst):
        said = [f"{labels[i]} as {predicted[i]}, {probability[i, predicted[i]]:.0%}" for i in worst]
        title = f"the most confident of {len(wrong)} mistakes: true as predicted"
        figures.image_grid(directory / "mistakes.png", pixels[worst], said, title)

    classifier_figures.filters(directory / "filters.png", state.params, pixels.shape[-1])
    _, features = predict(state, pixels[chunks[0]])
    maps = {name: np.asarray(features[name][0]) for name in order}
    classifier_figures.feature_maps(directory / "features.png", pixels[0], labels[0], maps)


if __name__ == "__main__":
    common.launch(main)
