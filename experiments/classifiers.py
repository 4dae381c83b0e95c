"""Finished runs of experiments.cnn: what they trained, and that as a judge of generated images."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlfx.data import batches, sources
from dlfx.models.classification import MODELS, head_of
from dlfx.training import checkpoints, rundir
from dlfx.types import Array, UserError
from dlfx.weights.inception import load_inception_v3
from experiments.model_options import model_options

WEIGHTS = (".pth", ".pt", ".safetensors")
INCEPTION_SIZE = 299
FLAGS = ("dataset", "data_dir", "image_size", "resize", "model", "shortcut")  # of experiments.cnn

Images = Callable[[Array], Array]  # images to images, or to what is said of them
Shape = tuple[int, int, int]  # (H, W, C)


class Run(NamedTuple):
    """A finished run of `experiments.cnn`; of a population, its first member.

    Attributes:
      path: its directory.
      flags: name to text, as `flags.txt` holds them.
      accuracy: on the test images, in [0, 1].
      arrays: the variables by their paths, such as `params/c1/kernel`.
    """

    path: Path
    flags: dict[str, str]
    accuracy: float
    arrays: dict[str, np.ndarray]


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      model: the Linen module.
      variables: of it, float32.
      prepare: raw images to what the model takes, as in training.
      num_classes: the number of classes.
      name: what to call it, such as `lenet5-digits`.
      accuracy: on the test images of its own data, in [0, 1]; None where it is not known.
    """

    model: Any
    variables: Any
    prepare: Images
    num_classes: int
    name: str
    accuracy: float | None


class Classifier(NamedTuple):
    """A trained classifier as a judge.

    Attributes:
      features: images `[B, H, W, C]`, float in [0, 1] or uint8, to penultimate features `[B, D]` float32. Jitted.
      logits: the same images to `[B, num_classes]` float32. Jitted; called in one more jit, both share their work.
      num_classes: the number of classes.
      name: what to call it, such as `lenet5-digits`.
      accuracy: on the test images of its own data, in [0, 1]; None where it is not known.
    """

    features: Images
    logits: Images
    num_classes: int
    name: str
    accuracy: float | None


def load(directory: str, shape: Shape | None = None, num_classes: int | None = None) -> Classifier:
    """The classifier that a run of `experiments.cnn` trained, with the run's preparation of images.

    The last state of the run counts, and of a population its first member. It computes in float32, whatever the run's
    precision was.

    Args:
      directory: the run's; or a file of weights of Inception-v3, `.pth` or `.safetensors`, see `load_inception_v3`. On
        the features of those of 1,008 classes the FID is defined; their classes have nothing to do with `num_classes`.
      shape: (H, W, C) of the images that it will judge; None leaves them open.
      num_classes: of these images; None takes any.

    Raises:
      UserError: there is no finished run of `experiments.cnn`, its checkpoint does not fit its model, or it was trained
        on images of other channels, another size (where it resizes none) or another number of classes.
    """
    path = Path(directory).expanduser()
    if path.is_file() or path.suffix in WEIGHTS:
        return _inception(path, shape)
    return _judge(trained(read_run(path), shape, num_classes))


def trained(run: Run, shape: Shape | None = None, num_classes: int | None = None) -> Trained:
    """The network of a run with its weights, in float32.

    Args:
      run: see `read_run`.
      shape: (H, W, C) of the images that it will see; None leaves them open.
      num_classes: of these images; None takes any.

    Raises:
      UserError: as `load`.
    """
    flags, stored = run.flags, run.arrays
    name, dataset, size = flags["model"], flags["dataset"], int(flags["image_size"])
    options = model_options(name, flags)
    head = head_of({path.split("/")[1] for path in stored if path.startswith("params/")})
    bias = stored.get(f"params/{head}/bias")
    classes = 10 if bias is None else bias.shape[-1]  # LeNet-5 of 1998 ends in the fixed codes of the ten digits
    if num_classes is not None and num_classes != classes:
        raise UserError(
            f"the classifier in {run.path} tells {classes} classes apart ({dataset}); these images have {num_classes}"
        )
    model = MODELS[name](num_classes=classes, **options)
    plain = dataset.removeprefix("tfds:")
    mean, std = sources.PIXEL_STATISTICS.get(plain, (0.5, 0.25))
    prepare = partial(batches.preprocess, mean=mean, std=std, size=size, resize=flags["resize"])
    if shape is None and not size:  # it takes images of one size alone
        shape = sources.load(dataset, flags["data_dir"])[0].shape
    variables = _fitting(run, model, prepare, shape)
    return Trained(model, variables, prepare, classes, f"{name}-{plain}", run.accuracy)


def read_run(directory: str | Path) -> Run:
    """The finished run of `experiments.cnn` in a directory.

    Raises:
      UserError: there is none, it is of another experiment or not finished, or its checkpoint is damaged.
    """
    path = Path(directory).expanduser()
    if not path.is_dir():
        raise UserError(f"there is no directory {path}; give that of a run of experiments.cnn")
    try:
        told = (path / "flags.txt").read_text() if (path / "flags.txt").exists() else ""
        summary = rundir.summary_of(path)
    except (OSError, ValueError) as error:
        raise UserError(f"the run in {path} cannot be read: {error}") from error
    flags = rundir.parse_flags(told)
    experiment = "cnn" if summary is None else summary.get("experiment")
    if experiment != "cnn" or not set(FLAGS) <= set(flags):
        which = "" if experiment == "cnn" else f" but one of experiments.{experiment}"
        raise UserError(f"{path} holds no run of experiments.cnn{which}")
    if summary is None:
        raise UserError(f"the run in {path} is not finished; the same command of experiments.cnn goes on")
    try:
        arrays = checkpoints.load_state(path / "checkpoints", summary["steps"])  # of which the summary's metrics are
    except UserError:
        raise
    except Exception as error:  # what a damaged file raises is up to the layers below
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise UserError(f"the checkpoint in {path} is damaged: {reason}") from error
    # `extra/batch_stats/...` are variables next to `params/...`; the rest is of the optimizer.
    stored = {name.removeprefix("extra/"): x for name, x in arrays.items() if name.startswith(("params/", "extra/"))}
    accuracy = summary["metrics"]["test_accuracy"]
    if isinstance(accuracy, dict):  # of a population
        return Run(path, flags, accuracy["values"][0], {name: x[0] for name, x in stored.items()})
    return Run(path, flags, accuracy, stored)


def _fitting(run: Run, model: Any, prepare: Images, shape: Shape | None) -> Any:
    """The variables of the model, from the tensors of a run, if these fit it on images of that shape."""
    path, stored = run.path, run.arrays
    # Where the shape is open all images are brought to one size, and channels are what they were trained with.
    images = jax.ShapeDtypeStruct((1, *(shape or (32, 32, 1))), jnp.float32)
    try:
        wanted = jax.eval_shape(lambda key, x: model.init(key, prepare(x), train=False), jax.random.key(0), images)
    except UserError as error:
        raise UserError(f"the classifier in {path} cannot judge these images: {error}") from error
    leaves, structure = jax.tree.flatten(wanted)
    expected = dict(zip(checkpoints.leaf_names(wanted), (x.shape for x in leaves), strict=True))
    there = {name: x.shape for name, x in stored.items()}
    wrong = [name for name in expected | there if expected.get(name) != there.get(name)]
    if wrong:
        a, b = there.get(wrong[0], ()), expected.get(wrong[0], ())
        first_kernel = len(wrong) == 1 and len(a) == len(b) == 4 and (a[:2], a[3]) == (b[:2], b[3])
        if not first_kernel:
            raise UserError(
                f"the checkpoint in {path} does not fit its model on images of {list(images.shape[1:])}: {len(wrong)} "
                f"tensors differ, first {wrong[0]!r} (there {list(a) or None}, expected {list(b) or None})"
            )
        if shape is not None:
            raise UserError(f"the classifier in {path} was trained on images of {a[2]} channels; these have {shape[2]}")
    return jax.tree.unflatten(structure, [jnp.asarray(stored[name], jnp.float32) for name in expected])


def _judge(of: Trained) -> Classifier:
    model, prepare = of.model, of.prepare

    def features(variables: Any, images: Array) -> Array:
        named = model.apply(variables, prepare(images), train=False)[1]
        return [value for value in named.values() if value.ndim == 2][-1].astype(jnp.float32)

    def logits(variables: Any, images: Array) -> Array:
        return model.apply(variables, prepare(images), train=False)[0].astype(jnp.float32)

    # The variables are arguments: closed over, they would be constants inside of each compiled program.
    return Classifier(
        partial(jax.jit(features), of.variables),
        partial(jax.jit(logits), of.variables),
        of.num_classes,
        of.name,
        of.accuracy,
    )


def _inception(path: Path, shape: Shape | None) -> Classifier:
    if shape is not None and shape[2] not in (1, 3):
        raise UserError(f"inception_v3 judges images of 1 or 3 channels; these have {shape[2]}")
    model, variables = load_inception_v3(path)

    def prepare(images: Array) -> Array:
        """Bilinear to 299x299 and [-1, 1], in three channels."""
        x = batches.preprocess(images, 0.5, 0.5, INCEPTION_SIZE, "bilinear")
        return jnp.broadcast_to(x, (*x.shape[:3], 3))

    return _judge(Trained(model, variables, prepare, model.num_classes, "inception_v3", None))
