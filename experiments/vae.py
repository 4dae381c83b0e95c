"""Trains a variational autoencoder, or one with discrete codes (VQ-VAE), on images.

python -m experiments.vae --flagfile=experiments/flagfiles/vae/digits_plane.flags
python -m experiments.vae --dataset=tfds:mnist --data_dir=DIR --binarize --epochs=20 --eval_samples=5000
python -m experiments.vae --kind=vqvae --codebook=32
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import batches, sources
from dlfx.learners import vae, vqvae
from dlfx.losses import elbo
from dlfx.models.generative import vae as networks
from dlfx.models.generative.vqvae import VQVAE
from dlfx.training import evaluation, figures, loop, mesh, rundir
from dlfx.types import Array, Batch, Key, Learner, State, UserError
from experiments import classifiers, common, images, sample_evaluation, snapshots, vae_figures
from experiments.common import FLAGS, group
from experiments.optimizers import optimizer

with group("Model"):
    flags.DEFINE_enum("kind", "vae", ["vae", "vqvae"], "what the latents are: a Gaussian vector, or a grid of codes")
    flags.DEFINE_enum("architecture", "mlp", ["mlp", "conv"], "of a VAE's networks; a VQ-VAE's are convolutional")
    flags.DEFINE_list("hidden", ["200", "200"], "widths of dense layers of the encoder; the decoder's are the reverse")
    flags.DEFINE_list("widths", ["32", "64"], "channels of the convolutions; each halves the sides")
    flags.DEFINE_integer("blocks", 1, "residual blocks after each halving", lower_bound=0)
    flags.DEFINE_integer("latent", 8, "dimensions of a VAE's latents")
    flags.DEFINE_bool("conditional", False, "encoder and decoder of a VAE are told the label")
    flags.DEFINE_enum("likelihood", "bernoulli", list(elbo.LIKELIHOODS), "of pixels given the latents")
    flags.DEFINE_bool("binarize", False, "draw black and white pixels from greys, anew at every step (bernoulli)")
    flags.DEFINE_float("variance", 0.0, "of pixels (gaussian); 0: learned, one for all", lower_bound=0.0)
with group("Bound of a VAE"):
    flags.DEFINE_float("beta", 1.0, "weight of the divergence")
    flags.DEFINE_float("warmup_epochs", 0.0, "epochs over which that weight rises from 0", lower_bound=0.0)
    flags.DEFINE_float("free_bits", 0.0, "nats of each latent that cost nothing more")
    flags.DEFINE_integer("samples", 1, "draws of the latents for an image; more: the importance-weighted bound")
    flags.DEFINE_integer("eval_samples", 0, "draws of the bound iwae_loss in the end; 0: none", lower_bound=0)
    flags.DEFINE_integer("eval_images", 1000, "first test images that it is for; 0: all", lower_bound=0)
with group("Evaluation"):
    flags.DEFINE_string(
        "classifier", "", "a run of experiments.cnn, or weights of Inception-v3: judges samples at the end"
    )
    flags.DEFINE_integer("judged", 5000, "samples that it judges", lower_bound=10)
with group("Codes of a VQ-VAE"):
    flags.DEFINE_integer("codebook", 64, "how many codes there are")
    flags.DEFINE_integer("code_width", 16, "dimensions of a code's vector")
    flags.DEFINE_float("commitment", 0.25, "weight of the distance of vectors from their codes")
    flags.DEFINE_float("code_decay", 0.99, "of the moving averages that codes are; 0: trained by gradient")
    flags.DEFINE_float("code_restart", 0.1, "uses in a batch below which a code begins anew; 0: never")
    flags.DEFINE_integer("prior_hidden", 128, "width of the prior over codes", lower_bound=1)
FLAGS.set_default("image_size", 0)
FLAGS.set_default("epochs", 200)
FLAGS.set_default("learning_rate", 0.003)
FLAGS.set_default("schedule", "cosine")
FLAGS.set_default("steps_per_call", 11)
FLAGS.set_default("eval_every", 220)

ONLY_OF = {
    "vae": ("architecture", "latent", "conditional", "beta", "warmup_epochs", "free_bits", "samples", "eval_samples"),
    "vqvae": ("codebook", "code_width", "commitment", "code_decay", "code_restart", "prior_hidden"),
}
ACTIVE = 0.01  # variance of its mean over images above which a latent is in use: Burda et al. 2015, section 5.2


class Kind(NamedTuple):
    """What differs between the two kinds.

    Attributes:
      learner: trains it.
      sums: (state, batch with `row`) to named sums over the images of a batch.
      metrics: those sums, over a whole split, to metrics.
      samples: (params or codebook with params, n, key) to n images `[n, H, W, C]` in [0, 1], from the prior.
      draw: (directory, host state of one member, test images, labels) draws its figures.
      evidence: like `sums`, of the importance-weighted bound with many draws; None without one.
    """

    learner: Learner
    sums: Callable[[State, Batch], dict[str, Array]]
    metrics: Callable[[evaluation.Sums], dict[str, np.ndarray]]
    samples: Callable[[State, int, Key], Array]
    draw: Callable[[Path, State, np.ndarray, np.ndarray], None]
    evidence: Callable[[State, Batch], dict[str, Array]] | None = None


def sizes(name: str) -> tuple[int, ...]:
    """The positive integers of a list flag."""
    words: list[str] = getattr(FLAGS, name)
    if not words or not all(word.isdigit() and int(word) > 0 for word in words):
        raise UserError(f"--{name}={','.join(words)} must be positive integers, such as 200,100")
    return tuple(map(int, words))


def row_keys(rows: Array) -> Key:
    """The keys `[B]` of the randomness of images in evaluation, by their rows in the split: the same in every run."""
    return jax.vmap(lambda row: jax.random.fold_in(jax.random.key(0), row))(rows)


def seen(pixels: Array, rows: Array) -> Array:
    """Test images as the model is shown them: if binarized, with one draw of pixels that stays."""
    if not FLAGS.binarize:
        return pixels
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(row_keys(rows))
    return jax.vmap(lambda key, image: elbo.binarize(jax.random.bits(key, image.shape, jnp.uint16), image))(
        keys, pixels
    )


def shown(outputs: Array) -> Array:
    """Means of pixels, from what a decoder gives."""
    return jax.nn.sigmoid(outputs) if FLAGS.likelihood == "bernoulli" else outputs


def make_vae(session: common.Session, train: sources.Source, shape: tuple[int, int, int], steps: int) -> Kind:
    """The VAE of the flags, for images of that shape."""
    warmup = round(FLAGS.warmup_epochs * (train.size // FLAGS.batch_size))
    if warmup > steps:
        raise UserError(f"--warmup_epochs={FLAGS.warmup_epochs:g} are {warmup} steps, more than the run's {steps}")
    types = {"dtype": session.dtype, "param_dtype": session.param_dtype}
    hidden, latent, likelihood = sizes("hidden"), FLAGS.latent, FLAGS.likelihood
    encoder: Any = networks.DenseEncoder(hidden, **types)
    decoder: Any = networks.DenseDecoder(shape, hidden[::-1], **types)
    if FLAGS.architecture == "conv":
        widths, blocks = sizes("widths"), FLAGS.blocks
        encoder = networks.ConvEncoder(widths, blocks, hidden, **types)
        decoder = networks.ConvDecoder(shape, widths, blocks, hidden[::-1], **types)
    classes = train.num_classes if FLAGS.conditional else 0
    model = networks.VAE(encoder, decoder, latent, classes, FLAGS.variance or None, **types)
    learner = vae.vae(
        model,
        optimizer(steps),
        latent,
        likelihood=likelihood,
        samples=FLAGS.samples,
        beta=FLAGS.beta,
        warmup_steps=warmup,
        free_bits=FLAGS.free_bits,
        binarize=FLAGS.binarize,
        axis_name=session.axis_name,
    )

    def sums(state: vae.State, batch: Batch) -> dict[str, Array]:
        mask = batch["mask"]
        noise = vae.row_noise(row_keys(batch["row"]), FLAGS.samples, latent, session.param_dtype)
        pixels = seen(batch["image"], batch["row"])
        found = vae.bound(model, state.params, pixels, batch["label"], noise, likelihood)
        return {
            "loss": -mask @ found.value,
            "reconstruction": -mask @ found.log_likelihood.mean(-1),
            "kl": mask @ found.kl.sum(-1),
            "mean": mask @ found.mean,
            "square": mask @ found.mean**2,
            "count": mask.sum(),
        }

    def metrics(sums: evaluation.Sums) -> dict[str, np.ndarray]:
        count = sums["count"][..., None]
        spread = sums["square"] / count - (sums["mean"] / count) ** 2
        active = (spread > ACTIVE).sum(-1)
        return {**evaluation.means(sums, ("loss", "reconstruction", "kl")), "active_units": active}

    def evidence(state: vae.State, batch: Batch) -> dict[str, Array]:
        pixels, keys, mask = seen(batch["image"], batch["row"]), row_keys(batch["row"]), batch["mask"]
        found = vae.log_evidence(model, state.params, pixels, batch["label"], keys, likelihood, FLAGS.eval_samples)
        return {"iwae_loss": -mask @ found, "count": mask.sum()}

    def decode(params: Any, latents: Array, labels: Array) -> Array:
        return shown(model.apply({"params": params}, latents, labels, method="decode")[0])

    def samples(state: vae.State, size: int, key: Key) -> Array:
        labels = jnp.arange(size) % train.num_classes
        return decode(state.params, jax.random.normal(key, (size, latent), session.param_dtype), labels)

    def draw(directory: Path, state: vae.State, pixels: np.ndarray, labels: np.ndarray) -> None:
        encode = jax.jit(lambda x, y: model.apply({"params": state.params}, x, y, method="encode"))
        coder = vae_figures.Coder(encode, jax.jit(lambda z, y: decode(state.params, z, y)), latent, classes)
        vae_figures.draw_vae(directory, coder, pixels, labels)

    return Kind(learner, sums, metrics, samples, draw, evidence if FLAGS.eval_samples else None)


def make_vqvae(session: common.Session, train: sources.Source, shape: tuple[int, int, int], steps: int) -> Kind:
    """The VQ-VAE of the flags, for images of that shape."""
    widths, codes, width = sizes("widths"), FLAGS.codebook, FLAGS.code_width
    model = VQVAE(
        shape,
        codes,
        width,
        widths,
        FLAGS.blocks,
        FLAGS.prior_hidden,
        FLAGS.variance or None,
        dtype=session.dtype,
        param_dtype=session.param_dtype,
    )
    learner = vqvae.vqvae(
        model,
        optimizer(steps),
        codes,
        width,
        likelihood=FLAGS.likelihood,
        commitment=FLAGS.commitment,
        decay=FLAGS.code_decay,
        restart=FLAGS.code_restart,
        binarize=FLAGS.binarize,
        axis_name=session.axis_name,
    )
    grid = tuple(-(-side // 2 ** len(widths)) for side in shape[:2])

    def sums(state: vqvae.State, batch: Batch) -> dict[str, Array]:
        mask = batch["mask"]
        pixels = seen(batch["image"], batch["row"])
        found = vqvae.code(model, state.params, state.codebook, pixels, FLAGS.likelihood)
        chosen = jax.nn.one_hot(found.codes, codes, dtype=mask.dtype).sum((1, 2))
        return {
            "loss": -mask @ (found.log_likelihood + found.log_prior),
            "reconstruction": -mask @ found.log_likelihood,
            "prior": -mask @ found.log_prior,
            "commitment": mask @ found.distance,
            "usage": mask @ chosen,
            "count": mask.sum(),
        }

    def metrics(sums: evaluation.Sums) -> dict[str, np.ndarray]:
        perplexity = np.asarray(vqvae.perplexity(jnp.asarray(sums["usage"])))
        means = evaluation.means(sums, ("loss", "reconstruction", "prior", "commitment"))
        return {**means, "perplexity": perplexity, "codes_used": (sums["usage"] > 0).sum(-1)}

    def decode(state: vqvae.State, codes: Array) -> Array:
        return shown(model.apply({"params": state.params}, state.codebook[codes], method="decode")[0])

    def samples(state: vqvae.State, size: int, key: Key) -> Array:
        return decode(state, vqvae.sample(model, state.params, (size, grid[0], grid[1]), key))

    def draw(directory: Path, state: vqvae.State, pixels: np.ndarray, labels: np.ndarray) -> None:
        state = jax.tree.map(jnp.asarray, state)

        @jax.jit
        def there_and_back(x: Array) -> tuple[Array, Array]:
            found = vqvae.code(model, state.params, state.codebook, x, FLAGS.likelihood).codes
            return found, decode(state, found)

        vae_figures.draw_vqvae(directory, there_and_back, pixels, codes)

    return Kind(learner, sums, metrics, samples, draw)


MAKE = {"vae": make_vae, "vqvae": make_vqvae}


def numbered(
    session: common.Session, program: mesh.Program, source: sources.Source, size: int, prepare: images.Prepare
) -> tuple[Any, int]:
    """The stream over a split once, each image with its `row` there, and the number of its batches."""
    rows = -(-min(size, source.size) // program.mesh.size) * program.mesh.size
    share = images.share()
    with session.clock.phase("data"):
        stream, count = batches.evaluation_stream(source, rows, prepare, FLAGS.data_placement, **share)
    mine = batches.process_slice(rows, **share)

    def host(seed: int, i: int) -> Batch:
        return {**stream.host(seed, i), "row": np.arange(i * rows, (i + 1) * rows, dtype=np.int32)[mine]}

    return stream._replace(host=host), count


def judgement(
    session: common.Session, train: sources.Source, test: sources.Source, prepare: images.Prepare, shape: Any
) -> sample_evaluation.Judge:
    """What judges samples against the test images, by the features of the classifier of the flags."""
    with session.clock.phase("data"):
        classifier = classifiers.load(FLAGS.classifier, shape, train.num_classes)
        known, held = (sample_evaluation.pixels(source, prepare) for source in (train, test))
        return sample_evaluation.of_images(known[0], *held, classifier)


def main(_: Any) -> None:
    with common.begin("vae", f"{FLAGS.kind}-{images.label()}") as session:
        run(session)


def run(session: common.Session) -> None:
    """One invocation: data, model, learner, program, training, figures."""
    for owner, names in ONLY_OF.items():
        for name in names:
            if owner != FLAGS.kind and FLAGS[name].value != FLAGS[name].default:
                raise UserError(f"--{name} is of --kind={owner}; this is --kind={FLAGS.kind}")
    train, test = images.load(session)
    prepare = images.preparation(session)
    stream = images.training_stream(session, train, prepare)
    steps = images.steps(train)
    first = jax.eval_shape(prepare, jax.ShapeDtypeStruct((1, *test.shape), jnp.float32))
    kind = MAKE[FLAGS.kind](session, train, first.shape[1:], steps)
    with session.clock.phase("program"):
        program = mesh.PROGRAMS[FLAGS.parallel](kind.learner, stream, session.mesh, session.seeds)
    sum_test = evaluation.evaluator(program, kind.sums, *numbered(session, program, test, 500, prepare))
    judge = judgement(session, train, test, prepare, first.shape[1:]) if FLAGS.classifier else None
    noise, album = jax.random.key(0), session.path / "snapshots"

    @jax.jit
    def sampled(state: Any) -> Array:
        return kind.samples(jax.tree.map(lambda x: x[0], state) if program.population else state, 64, noise)

    def sheet(state: Any) -> np.ndarray:
        pixels = np.asarray(sampled(state).addressable_data(0), np.float32)
        return figures.mosaic(pixels, 8, max(1, 64 // pixels.shape[1]))

    def evaluate(state: Any) -> loop.Splits:
        pixels = sheet(state)
        if session.run:
            snapshots.write(album, int(np.max(state.step.addressable_data(0))), pixels)
        return {"test": kind.metrics(sum_test(state))}

    if not common.open_directory(session):
        return
    result = common.train(session, program, stream, common.schedule(steps, "test_loss"), evaluate)
    if kind.evidence:
        some = sources.subset(test, np.arange(min(FLAGS.eval_images or test.size, test.size)))
        sum_some = evaluation.evaluator(program, kind.evidence, *numbered(session, program, some, 100, prepare))
        with session.clock.phase("evidence"):
            found = evaluation.means(sum_some(result.state), ("iwae_loss",))["iwae_loss"]
        result = result._replace(metrics={**result.metrics, "test_iwae_loss": rundir.spread(found)})
    if judge:
        many = jax.jit(lambda state: kind.samples(state, FLAGS.judged, noise))
        members = [result.state]
        if program.population:
            members = [jax.tree.map(lambda x, i=i: x[i], result.state) for i in range(len(session.seeds))]
        scores = [judge(np.asarray(many(member), np.float32), None) for member in members]
        told = {f"samples_{name}": np.array([score[name] for score in scores]) for name in scores[0]}
        spreads = {name: rundir.spread(of if program.population else of[0]) for name, of in told.items()}
        result = result._replace(metrics={**result.metrics, **spreads})

    pixels = sheet(result.state)

    def draw(directory: Path) -> None:
        member = result.arrays
        if program.population:
            member = jax.tree.map(lambda x: x[0], member)
        figures.picture(directory / "samples.png", pixels)
        snapshots.gather(album, directory / "samples.gif", result.step)
        chosen = test.read(np.arange(min(test.size, 2000)))
        rows = jnp.arange(len(chosen["label"]))
        kind.draw(directory, member, np.asarray(seen(prepare(jnp.asarray(chosen["image"])), rows)), chosen["label"])

    common.finish(session, result, result.arrays.params, draw)


if __name__ == "__main__":
    common.launch(main)
