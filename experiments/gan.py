"""Trains a generative adversarial network, on images or on a density in the plane.

python -m experiments.gan --flagfile=experiments/flagfiles/gan/ring.flags
python -m experiments.gan --dataset=digits --architecture=dcgan --loss=wasserstein --gradient_penalty=10
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from dlfx.data import densities, sources
from dlfx.learners import gan
from dlfx.losses.adversarial import GAMES, PROBABILITIES
from dlfx.models.generative.gan import DCGANCritic, DCGANGenerator, MLPCritic, MLPGenerator
from dlfx.training import loop, mesh
from dlfx.types import Array, Stream, UserError
from experiments import classifiers, common, gan_figures, images, sample_evaluation, snapshots
from experiments.common import FLAGS, group

FLAGS.set_default("image_size", 0)
FLAGS["dataset"].help = f"{FLAGS['dataset'].help}; or a density: {', '.join(densities.DENSITIES)}"

with group("Game"):
    flags.DEFINE_enum("loss", "non_saturating", list(GAMES), "what the players minimise")
    flags.DEFINE_float("gradient_penalty", 0.0, "weight of the penalty at interpolates; 10 of WGAN-GP", lower_bound=0.0)
    flags.DEFINE_float("r1", 0.0, "gamma, weight of the penalty on real examples", lower_bound=0.0)
    flags.DEFINE_float("clip", 0.0, "clip the critic's weights to this bound; 0.01 of WGAN", lower_bound=0.0)
    flags.DEFINE_integer("critic_steps", 1, "turns of the critic for one of the generator", lower_bound=1)
    flags.DEFINE_float("ema", 0.0, "decay of the average of the generator's weights that is evaluated", 0.0, 0.99999)
    flags.DEFINE_float("generator_rate", 2e-4, "learning rate of the generator's Adam", lower_bound=0.0)
    flags.DEFINE_float("critic_rate", 2e-4, "learning rate of the critic's Adam", lower_bound=0.0)
    flags.DEFINE_float("b1", 0.5, "decay of Adam's mean of gradients", 0.0, 0.9999)
    flags.DEFINE_float("b2", 0.999, "decay of Adam's mean of their squares", 0.0, 0.99999)
    flags.DEFINE_enum("schedule", "constant", ["constant", "linear"], "of both learning rates; linear: down to 0")
with group("Networks"):
    flags.DEFINE_enum("architecture", "mlp", ["mlp", "dcgan"], "of both players; dcgan is for images")
    flags.DEFINE_integer("latent", 64, "dimension of z", lower_bound=1)
    flags.DEFINE_list("hidden", ["128", "128", "128"], "units of the layers of an mlp")
    flags.DEFINE_integer("features", 64, "channels of a dcgan beside the image", lower_bound=1)
    flags.DEFINE_bool("conditional", False, "both players are told the class")
    flags.DEFINE_bool("spectral", False, "spectral normalisation of the critic")
with group("Evaluation"):
    flags.DEFINE_integer("eval_samples", 10_000, "examples generated for an evaluation", lower_bound=10)
    flags.DEFINE_string("classifier", "", "a run of experiments.cnn (or weights of Inception-v3) that judges images")

EVALUATION = 0x6A09E667  # keeps the latents of evaluations apart from every other use of the seed


class Data(NamedTuple):
    """What the flags say is to be imitated."""

    stream: Stream
    steps: int
    shape: tuple[int, ...]  # of an example
    num_classes: int
    labels: np.ndarray  # of the test examples; of a density empty
    mixture: densities.Mixture | None
    train: sources.Source | None
    test: sources.Source | None


def main(_: Any) -> None:
    with common.begin("gan", f"{FLAGS.architecture}-{images.label()}-{FLAGS.loss}") as session:
        run(session)


def check_flags() -> None:
    """Refuses what does not go together."""
    density = FLAGS.dataset in densities.DENSITIES
    if FLAGS.gradient_penalty and FLAGS.clip:
        raise UserError("--gradient_penalty and --clip both bound the critic's slope; give one of them")
    if FLAGS.loss == "wasserstein" and not (FLAGS.gradient_penalty or FLAGS.clip or FLAGS.spectral):
        raise UserError("--loss=wasserstein needs a bounded critic: --gradient_penalty=10, --clip=0.01 or --spectral")
    for name in ("conditional", "classifier"):
        if density and getattr(FLAGS, name):
            raise UserError(f"--{name} is for images; --dataset={FLAGS.dataset} has no classes")
    if density and FLAGS.architecture == "dcgan":
        raise UserError(f"--architecture=dcgan is for images; --dataset={FLAGS.dataset} needs mlp")
    if density and not FLAGS.steps:
        raise UserError(f"--dataset={FLAGS.dataset} has no epochs; give --steps")


def load(session: common.Session) -> Data:
    """The data of the flags, images on the scale [-1, 1]."""
    if FLAGS.dataset in densities.DENSITIES:
        mesh.check_batch(FLAGS.batch_size, session.mesh)
        mixture, dtype = densities.make(FLAGS.dataset), session.param_dtype
        stream = densities.stream(mixture, FLAGS.batch_size * FLAGS.critic_steps, **images.share())
        stream = stream._replace(fetch=lambda _, points: {"image": points.astype(dtype)})
        return Data(stream, FLAGS.steps, (2,), 0, np.zeros(0, np.int32), mixture, None, None)
    train, test = images.load(session)
    if FLAGS.conditional and train.num_classes < 2:
        raise UserError(f"--conditional needs classes; --dataset={FLAGS.dataset} has one")
    stream = images.training_stream(session, train, images.preparation(session, 0.5, 0.5), FLAGS.critic_steps)
    size = FLAGS.image_size
    shape = (size, size, train.shape[2]) if size else train.shape
    labels = sources.read_all(test)["label"]
    steps = images.steps(train, FLAGS.critic_steps)
    return Data(stream, steps, shape, train.num_classes, labels, None, train, test)


def networks(session: common.Session, data: Data) -> tuple[Any, Any]:
    """(generator, critic) of the flags."""
    options: dict[str, Any] = {"dtype": session.dtype, "param_dtype": session.param_dtype}
    options["num_classes"] = data.num_classes if FLAGS.conditional else 0
    if FLAGS.architecture == "dcgan":
        if min(data.shape[:2]) < 8:
            raise UserError(f"a dcgan makes images of sides of at least 8; these are {data.shape[0]}x{data.shape[1]}")
        options["axis_name"] = session.axis_name
        free = not (FLAGS.spectral or FLAGS.gradient_penalty or FLAGS.r1)  # those three forbid batch norm
        generator = DCGANGenerator(data.shape, FLAGS.features, **options)  # type: ignore[arg-type]
        return generator, DCGANCritic(FLAGS.features, batch_norm=free, spectral=FLAGS.spectral, **options)
    try:
        hidden = tuple(int(width) for width in FLAGS.hidden)
    except ValueError:
        hidden = ()
    if not hidden or min(hidden) < 1:
        raise UserError(f"--hidden={','.join(FLAGS.hidden)} must be positive whole numbers, such as 128,128,128")
    bounded = data.mixture is None
    return MLPGenerator(data.shape, hidden, bounded, **options), MLPCritic(hidden, FLAGS.spectral, **options)


def optimizer(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam of the flags, over that many steps of its player."""
    schedule = optax.linear_schedule(rate, 0.0, steps) if FLAGS.schedule == "linear" else rate
    return optax.adam(schedule, FLAGS.b1, FLAGS.b2)


def run(session: common.Session) -> None:
    """One invocation: data, players, program, training, figures, and a word where it failed."""
    check_flags()
    data = load(session)
    generator, critic = networks(session, data)
    learner = gan.gan(
        generator,
        critic,
        GAMES[FLAGS.loss],
        optimizer(FLAGS.critic_rate, data.steps * FLAGS.critic_steps),
        optimizer(FLAGS.generator_rate, data.steps),
        latent=FLAGS.latent,
        conditional=FLAGS.conditional,
        penalty=FLAGS.gradient_penalty,
        gamma=FLAGS.r1,
        critic_steps=FLAGS.critic_steps,
        clip=FLAGS.clip,
        decay=FLAGS.ema,
        axis_name=session.axis_name,
    )
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](learner, data.stream, session.mesh, session.seeds)
    judge, training = judgement(session, data)
    make = maker(generator, data, program.population)
    key = jax.random.fold_in(jax.random.key(FLAGS.seed), EVALUATION)
    latents = np.asarray(jax.random.normal(key, (FLAGS.eval_samples, FLAGS.latent), session.param_dtype))
    labels = np.resize(data.labels, FLAGS.eval_samples) if FLAGS.conditional else None
    shown = gan_figures.sheet_labels(data.num_classes) if FLAGS.conditional else None

    def evaluate(state: Any) -> loop.Splits:
        examples = make(state, latents, labels)  # [N, n, ...]
        if session.run:
            step = int(np.ravel(np.asarray(state.step))[0])
            if data.mixture:
                frame = gan_figures.points_frame(examples, data.mixture)
            else:
                few = latents[: gan_figures.SHEET]
                frame = gan_figures.sheet(make(state, few, shown)[0], data.num_classes if FLAGS.conditional else 0)
            snapshots.write(session.path / "figures" / "samples", step, frame)
        scores = [judge(member, labels) for member in examples]
        found = {name: np.array([score[name] for score in scores]) for name in scores[0]}
        return {"eval": found if program.population else {name: value[0] for name, value in found.items()}}

    if not common.open_directory(session):
        return
    monitor = "quality" if data.mixture else "frechet_distance" if FLAGS.classifier else "pixel_distance"
    result = common.train(session, program, data.stream, common.schedule(data.steps, f"eval_{monitor}"), evaluate)
    params = {"generator": result.arrays.generator.params, "critic": result.arrays.critic.params}
    draw = functools.partial(
        gan_figures.draw,
        session=session,
        make=functools.partial(make, result.state),
        latents=latents,
        labels=labels,
        mixture=data.mixture,
        train=training,
        num_classes=data.num_classes,
        last=result.step,
        probabilities=probabilities(),
    )
    common.finish(session, result, params, draw)
    tell(session, result, data)


def probabilities() -> bool:
    """Whether D is a probability in this game."""
    return FLAGS.loss in PROBABILITIES


def judgement(
    session: common.Session, data: Data
) -> tuple[sample_evaluation.Judge, tuple[np.ndarray, np.ndarray] | None]:
    """What judges the examples, and of images those to train on with their labels."""
    if data.mixture:
        return sample_evaluation.of_density(data.mixture), None
    with session.clock.phase("data"):
        shape, classes = data.shape, data.num_classes
        judge = classifiers.load(FLAGS.classifier, shape, classes) if FLAGS.classifier else None  # type: ignore[arg-type]
        prepare = images.preparation(session)
        train, test = (sample_evaluation.pixels(source, prepare) for source in (data.train, data.test) if source)
        return sample_evaluation.of_images(train[0], *test, judge), train


Maker = Callable[[Any, np.ndarray, np.ndarray | None], np.ndarray]


def maker(generator: Any, data: Data, population: bool) -> Maker:
    """(state, latents `[n, latent]`, labels) to each member's examples `[N, n, ...]`, images in [0, 1]."""

    def one(state: Any, latents: Array, labels: Array | None) -> Array:
        examples = gan.sample(generator, state, latents, labels).astype(jnp.float32)
        return examples if data.mixture else (examples + 1) / 2

    compiled = jax.jit(jax.vmap(one, (0, None, None)) if population else one)

    def make(state: Any, latents: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        def rows(some: np.ndarray) -> np.ndarray:
            made = np.asarray(compiled(state, latents[some], None if labels is None else labels[some]))
            return np.moveaxis(made if population else made[None], 0, 1)

        return np.moveaxis(sample_evaluation.in_chunks(rows, np.arange(len(latents))), 1, 0)

    return make


def tell(session: common.Session, result: loop.Result, data: Data) -> None:
    """Prints what went wrong, and writes it to `warnings.txt`."""
    if session.run is None:
        return
    said = []
    last = gan_figures.last_training_row(session)
    for member, seed in enumerate(session.seeds):
        at = "" if len(session.seeds) == 1 else f"/seed{seed}"
        values = {
            name.removeprefix("eval_"): value["values"][member] if isinstance(value, dict) else value
            for name, value in result.metrics.items()
        }
        modes = len(data.mixture.centers) if data.mixture else 0
        d_real, d_fake = (last.get(f"{name}{at}", 0.5) for name in ("d_real", "d_fake"))
        for line in sample_evaluation.complaints(values, d_real, d_fake, probabilities(), modes):
            said.append(f"warning: {f'seed {seed}: ' if at else ''}{line}")
    file = session.path / "warnings.txt"
    file.unlink(missing_ok=True)
    if said:
        file.write_text("\n".join(said) + "\n")
        print("\n".join(said))


if __name__ == "__main__":
    common.launch(main)
