"""Trains a network to turn images into others: pix2pix from pairs, or CycleGAN from two sets without any.

python -m experiments.image_to_image --flagfile=experiments/flagfiles/image_to_image/noise.flags
python -m experiments.image_to_image --method=pix2pix --task=edges
python -m experiments.image_to_image --dataset=digits --target=faces --image_size=24
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import pairs, sources
from dlfx.learners.cyclegan import cyclegan
from dlfx.learners.pix2pix import pix2pix
from dlfx.losses.adversarial import GAMES, PROBABILITIES
from dlfx.models.generative.translation import PatchCritic, ResNetGenerator, UNet
from dlfx.training import evaluation, figures, loop, mesh, processes, rundir
from dlfx.types import Array, Learner, UserError
from experiments import common, images, players, snapshots
from experiments.common import FLAGS, group

SHOWN = 8  # images in a picture

with group("Translation"):
    flags.DEFINE_enum("method", "cyclegan", ["pix2pix", "cyclegan"], "with pairs, or without")
    flags.DEFINE_enum("task", "noise", list(pairs.TASKS), "what the pairs are that are made of the images")
    flags.DEFINE_string("target", "", "the data set to translate --dataset into, instead of --task; without pairs")
    flags.DEFINE_enum("generator", "auto", ["auto", "unet", "resnet"], "auto: unet for pix2pix, resnet for cyclegan")
    flags.DEFINE_integer("features", 16, "channels of the generators' widest images", lower_bound=1)
    flags.DEFINE_integer("blocks", 3, "residual blocks of a resnet, or levels of a unet", lower_bound=1)
    flags.DEFINE_integer("critic_features", 32, "channels of the critics' first layer", lower_bound=1)
    flags.DEFINE_integer("critic_layers", 1, "layers of stride 2 of the critics: the size of their patches", 0)
    flags.DEFINE_enum("game", "auto", ["auto", *GAMES], "auto: non_saturating for pix2pix, least_squares for cyclegan")
    flags.DEFINE_float("distance_weight", 100.0, "pix2pix: weight of the distance to the true image", lower_bound=0.0)
    flags.DEFINE_float("cycle_weight", 10.0, "CycleGAN: weight of the way there and back", lower_bound=0.0)
    flags.DEFINE_float("identity_weight", 5.0, "CycleGAN: weight of leaving the other set alone", lower_bound=0.0)
    flags.DEFINE_integer("buffer_size", 50, "CycleGAN: earlier images that a critic goes on seeing", lower_bound=0)
    flags.DEFINE_float("learning_rate", 2e-4, "of both players, falling to 0 over the second half", lower_bound=0.0)
FLAGS.set_default("image_size", 16)
FLAGS.set_default("batch_size", 16)
FLAGS.set_default("epochs", 20)


class Sides(NamedTuple):
    """What is translated: images `[n, H, W, C]` in [0, 1], row i of a with row i of b where there are pairs."""

    train_a: np.ndarray
    train_b: np.ndarray
    test_a: np.ndarray
    test_b: np.ndarray
    paired: bool  # whether the test images are pairs


def main(_: Any) -> None:
    what = FLAGS.target.replace(":", "-").replace("/", "-") or FLAGS.task
    with common.begin("image_to_image", f"{FLAGS.method}-{images.label()}-{what}") as session:
        run(session)


def sides(session: common.Session) -> Sides:
    """The images of the flags. Without pairs the two training sets are made of different halves of the images."""
    if FLAGS.target and FLAGS.method == "pix2pix":
        raise UserError(f"pix2pix needs pairs; {FLAGS.dataset} and {FLAGS.target} have none: use --method=cyclegan")
    train, test = images.load(session)
    prepare = jax.jit(images.preparation(session))

    def pixels(source: sources.Source) -> np.ndarray:
        chunks = np.array_split(np.arange(source.size), -(-source.size // 1024))
        return np.concatenate([np.asarray(prepare(source.read(chunk)["image"]), np.float32) for chunk in chunks])

    with session.clock.phase("data"):
        if FLAGS.target:
            others = sources.load(FLAGS.target, FLAGS.data_dir)
            return Sides(pixels(train), pixels(others[0]), pixels(test), pixels(others[1]), False)
        make = pairs.TASKS[FLAGS.task]
        (train_a, train_b), test_pairs = make(pixels(train), 0), make(pixels(test), 1)
        if FLAGS.method == "cyclegan":
            train_a, train_b = train_a[::2], train_b[1::2]
        return Sides(train_a, train_b, *test_pairs, True)


def make_generator(session: common.Session, channels: int) -> Any:
    """A generator of the flags."""
    types = {"dtype": session.dtype, "param_dtype": session.param_dtype}
    name = FLAGS.generator if FLAGS.generator != "auto" else "unet" if FLAGS.method == "pix2pix" else "resnet"
    if name == "unet":
        return UNet(channels, FLAGS.features, FLAGS.blocks, **types)
    return ResNetGenerator(channels, FLAGS.features, FLAGS.blocks, **types)


def game() -> str:
    """The game of the flags."""
    if FLAGS.game != "auto":
        return FLAGS.game
    return "non_saturating" if FLAGS.method == "pix2pix" else "least_squares"


def make_learner(session: common.Session, steps: int, channels: tuple[int, int]) -> tuple[Learner, Any, Any]:
    """(the learner of the flags, its generator from a to b, the one back or None)."""
    critic: Any = PatchCritic(
        FLAGS.critic_features, FLAGS.critic_layers, dtype=session.dtype, param_dtype=session.param_dtype
    )
    half = steps // 2
    rate = optax.join_schedules(
        [optax.constant_schedule(FLAGS.learning_rate), optax.linear_schedule(FLAGS.learning_rate, 0.0, steps - half)],
        [half],
    )
    optimizers = optax.adam(rate, b1=0.5), optax.adam(rate, b1=0.5)
    there: Any = make_generator(session, channels[1])
    if FLAGS.method == "pix2pix":
        learner = pix2pix(
            there,
            critic,
            *optimizers,
            distance_weight=FLAGS.distance_weight,
            game=game(),
            axis_name=session.axis_name,
        )
        return learner, there, None
    back: Any = make_generator(session, channels[0])
    learner = cyclegan(
        there,
        back,
        critic,
        *optimizers,
        cycle_weight=FLAGS.cycle_weight,
        identity_weight=FLAGS.identity_weight if channels[0] == channels[1] else 0.0,
        buffer_size=FLAGS.buffer_size,
        game=game(),
        axis_name=session.axis_name,
    )
    return learner, there, back


def run(session: common.Session) -> None:
    """One invocation: images, networks, program, training, figures."""
    data = sides(session)
    test_a, test_b = data.test_a, data.test_b
    paired, share = FLAGS.method == "pix2pix", images.share()
    stream = pairs.training_stream(data.train_a, data.train_b, FLAGS.batch_size, paired, session.param_dtype, **share)
    steps = FLAGS.steps or FLAGS.epochs * (min(len(data.train_a), len(data.train_b)) // FLAGS.batch_size)
    learner, there, back = make_learner(session, steps, (test_a.shape[-1], test_b.shape[-1]))
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, stream, session.mesh, session.seeds)

    def translations(params: Any, batch: Any) -> dict[str, Array]:
        """Images on the scale [-1, 1]: b of a, and for CycleGAN a of b, and a there and back."""
        if back is None:
            return {"b": there.apply({"params": params}, batch["a"])}
        made = there.apply({"params": params["ab"]}, batch["a"])
        returned = back.apply({"params": params["ba"]}, jnp.concatenate([batch["b"], made]))
        return {"b": made, "a": returned[: len(made)], "cycle": returned[len(made) :]}

    def sums(state: Any, batch: Any) -> dict[str, Array]:
        made = translations(state.generator.params, batch)

        def error(x: Array, y: Array) -> Array:  # on the scale [0, 1]
            return (jnp.abs(x - y).mean((1, 2, 3)) / 2 * batch["mask"]).sum()

        found = {"count": batch["mask"].sum()}
        if data.paired:
            found |= {"error": error(made["b"], batch["b"]), "copy_error": error(batch["a"], batch["b"])}
        if back is not None:
            found |= {"cycle_error": error(made["cycle"], batch["a"])}
            found |= {"back_error": error(made["a"], batch["a"])} if data.paired else {}
        return found

    rows = -(-min(256, len(test_a), len(test_b)) // session.mesh.size) * session.mesh.size
    stream_of_test = pairs.evaluation_stream(test_a, test_b, rows, session.param_dtype, **share)
    sums_of = evaluation.evaluator(program, sums, *stream_of_test)
    few = {"a": 2 * jnp.asarray(test_a[:SHOWN]) - 1, "b": 2 * jnp.asarray(test_b[:SHOWN]) - 1}
    show = jax.jit(translations)

    def member(state: Any) -> Any:
        params = state.generator.params
        return jax.tree.map(lambda x: x[0], params) if program.population else params

    def evaluate(state: Any) -> loop.Splits:
        found = sums_of(state)
        if processes.is_main():
            pixels = sheet(test_a, test_b, show(member(state), few), data.paired)
            snapshots.write(session.path / "figures" / "translations", int(np.max(state.step)), pixels)
        return {"test": evaluation.means(found, tuple(name for name in found if name != "count"))}

    if not common.open_directory(session):
        return
    monitor = "test_error" if data.paired else "test_cycle_error"
    result = common.train(session, program, stream, common.schedule(steps, monitor), evaluate)
    made = show(member(result.arrays), few)
    draw = functools.partial(draw_figures, session=session, last=result.step, data=data, made=made)
    common.finish(session, result, result.arrays.generator.params, draw)
    if data.paired and np.mean(values(result, "test_error")) >= np.mean(values(result, "test_copy_error")):
        print("warning: no better than to leave the images as they are")


def values(result: loop.Result, name: str) -> np.ndarray:
    """A metric of the last step, `[seeds]`."""
    found = result.metrics[name]
    return np.asarray(found["values"] if isinstance(found, dict) else [found])


def sheet(test_a: np.ndarray, test_b: np.ndarray, made: dict[str, Any], paired: bool) -> np.ndarray:
    """Rows of test images as one picture: a, made of a, (the true b,) (there and back, b, made of b)."""

    def lines(x: Any) -> np.ndarray:
        x = (np.asarray(x, np.float32) + 1) / 2
        return np.repeat(x, 3 // x.shape[-1], -1)

    def true(x: np.ndarray) -> np.ndarray:
        return lines(2 * x[:SHOWN] - 1)

    rows = [true(test_a), lines(made["b"])] + ([true(test_b)] if paired else [])
    if "cycle" in made:
        rows += [lines(made["cycle"]), true(test_b), lines(made["a"])]
    return figures.mosaic(np.concatenate(rows), len(rows[0]), max(1, 64 // test_a.shape[1]))


def draw_figures(directory: Path, session: common.Session, last: int, data: Sides, made: dict[str, Any]) -> None:
    """The translations of some test images with what each row is, how they came about, and both players' curves."""
    snapshots.gather(directory / "translations", directory / "translations.gif", last)
    rows = rundir.read_metrics(session.path)
    players.curves(directory / "players.png", rows, session.seeds, game() in PROBABILITIES)
    pixels = sheet(data.test_a, data.test_b, made, data.paired)
    names = ["input a", "made of a"] + (["true b"] if data.paired else [])
    names += ["there and back", "input b", "made of b"] if "cycle" in made else []
    figure = figures.new_figure(pixels.shape[1] / 90 + 1.8, pixels.shape[0] / 90 + 0.4)
    axes = figure.subplots()
    axes.imshow(pixels)
    middle = (np.arange(len(names)) + 0.5) * pixels.shape[0] / len(names)
    axes.set(yticks=middle, yticklabels=names, xticks=[], title=f"test images after {last} steps")
    figures.save(figure, directory / "translations.png")


if __name__ == "__main__":
    common.launch(main)
