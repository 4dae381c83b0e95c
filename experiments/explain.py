"""Looks inside a network that experiments.cnn has trained: what it looks at, and how it takes the classes apart.

python -m experiments.explain --workdir=DIR
python -m experiments.explain --workdir=DIR --images=16 --layer=stage2

Pictures go to DIR/figures/explain, the numbers behind them to explain.json there. The run itself stays as it is.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from dlfx.data import sources
from dlfx.metrics import attribution
from dlfx.metrics.separation import class_separation
from dlfx.ops.intermediates import cut
from dlfx.training import rundir
from dlfx.training.progress import progress
from dlfx.types import Array, UserError, unknown
from experiments import classifier_figures, classifiers, common, explain_figures
from experiments.common import FLAGS, group

with group("Explanation"):
    flags.DEFINE_integer("images", 8, "test images to explain: the first of each class in turn", lower_bound=1)
    flags.DEFINE_string("layer", "", "the feature maps of Grad-CAM; by default the last that have more than one place")
    flags.DEFINE_integer(
        "square", 0, "side of what occlusion covers, in pixels; 0: a quarter of the image", lower_bound=0
    )
    flags.DEFINE_integer("examples", 1000, "test images in the space of features, at most", lower_bound=20)

CHUNK = 128  # images in one call
NEIGHBOURS = 5
Maps = Callable[[Any, Array, Array], Array]  # (variables, images, classes) to maps


def main(_: Any) -> None:
    if not FLAGS.workdir:
        raise UserError("give the directory of a finished run of experiments.cnn: --workdir=DIR")
    run = classifiers.read_run(FLAGS.workdir)
    train, test = sources.load(run.flags["dataset"], run.flags["data_dir"])
    network = classifiers.trained(run, test.shape, test.num_classes)
    directory = run.path / "figures" / "explain"
    with rundir.explain_os_errors(run.path):
        directory.mkdir(parents=True, exist_ok=True)
        found = explain(network, train, test, directory)
        (directory / "explain.json").write_text(json.dumps(found, indent=1) + "\n")
    print(tell(found))
    print(f"pictures: {directory}")


def explain(
    network: classifiers.Trained, train: sources.Source, test: sources.Source, directory: Path
) -> dict[str, Any]:
    """Draws all pictures into a directory and returns the numbers behind them."""
    names = _stages(network, test)
    layer = FLAGS.layer or next(
        (name for name, shape in reversed(names.items()) if len(shape) == 4 and shape[1] > 1), ""
    )
    maps_of = [name for name, shape in names.items() if len(shape) == 4]
    if layer not in maps_of:
        raise unknown("layer", layer, maps_of)

    shown = min(FLAGS.images, test.size)
    chosen = _one_of_each(sources.read_all(test)["label"], min(max(CHUNK, shown), test.size))
    examples = sources.read_all(sources.subset(test, chosen))
    pixels, labels = examples["image"], examples["label"]
    show = progress(0, 3)
    images = jax.jit(network.prepare)(pixels)
    probability = jax.nn.softmax(logits_of(network)(network.variables, images))
    maps = attributions(network, images, probability.argmax(-1), layer)
    top, said = {name: of[:shown] for name, of in maps.items()}, np.asarray(probability[:shown])
    explain_figures.maps(directory / "attribution.png", pixels[:shown], labels[:shown], said, top)
    show.update(1, {})

    curves = deletion(network, images, probability.argmax(-1), maps)
    explain_figures.deletion(directory / "deletion.png", curves)
    show.update(2, {})

    some = {
        split: sources.subset(of, np.arange(min(FLAGS.examples, of.size)))
        for split, of in (("train", train), ("test", test))
    }
    spaces = {split: features(network, of) for split, of in some.items()}
    known, seen = (sources.read_all(some[split])["label"] for split in ("train", "test"))
    separation = {name: class_separation(x, seen) for name, x in spaces["test"].items()}
    last = list(spaces["test"])[-1]
    neighbours = {
        name: nearest_neighbours(spaces["train"][name], known, spaces["test"][name], seen) for name in ("pixels", last)
    }
    explain_figures.spaces(directory / "space.png", {name: spaces["test"][name] for name in ("pixels", last)}, seen)
    explain_figures.separation(directory / "separation.png", {name: x["ratio"] for name, x in separation.items()})
    show.update(3, {})
    show.close()

    classifier_figures.filters(directory / "filters.png", network.variables.get("params", {}), test.shape[-1])
    inside = network.model.apply(network.variables, images[:1], train=False)[1]
    first = {name: np.asarray(value[0]) for name, value in inside.items()}
    classifier_figures.feature_maps(directory / "features.png", pixels[0], labels[0], first)
    return {
        "network": network.name,
        "test_accuracy": network.accuracy,
        "layer": layer,
        "deletion": {name: float(of.mean()) for name, of in curves.items()},
        "separation": separation,
        "nearest_neighbours": neighbours,
        "examples": len(seen),
    }


def tell(found: dict[str, Any]) -> str:
    """What came out, in a few lines."""
    ratio = {name: of["ratio"] for name, of in found["separation"].items()}
    first, last = next(iter(ratio)), list(ratio)[-1]
    scores = "  ".join(f"{name} {score:.3f}" for name, score in found["deletion"].items())
    near = "  ".join(f"{name} {accuracy:.2%}" for name, accuracy in found["nearest_neighbours"].items())
    return (
        f"{found['network']}, test accuracy {found['test_accuracy']:.2%}\n"
        f"distance within a class / between classes: {first} {ratio[first]:.3f}, {last} {ratio[last]:.3f}\n"
        f"{NEIGHBOURS} nearest neighbours: {near}\n"
        f"deletion score (lower is better): {scores}"
    )


def logits_of(network: classifiers.Trained) -> Callable[[Any, Array], Array]:
    """(variables, prepared images) to logits."""
    return lambda variables, images: network.model.apply(variables, images, train=False)[0].astype(jnp.float32)


def methods(network: classifiers.Trained, layer: str, image: Array) -> dict[str, Maps]:
    """The attributions by name, each to one number a place, for images of the shape of `image`."""
    logits = logits_of(network)
    side = min(image.shape[:2])
    square = FLAGS.square or max(1, side // 4)
    black = network.prepare(jnp.zeros((1, *image.shape)))  # in the model's units

    def cam(variables: Any, images: Array, classes: Array) -> Array:
        maps, rest = cut(lambda x: network.model.apply(variables, x, train=False), images, layer)
        return attribution.grad_cam(maps, rest, classes)

    def integrated(variables: Any, images: Array, classes: Array) -> Array:
        return attribution.integrated_gradients(partial(logits, variables), images, classes, black).sum(-1)

    def covered(variables: Any, images: Array, classes: Array) -> Array:
        return attribution.occlusion(
            partial(logits, variables), images, classes, square, max(1, square // 2), images.mean()
        )

    return {
        "saliency": lambda variables, images, classes: attribution.saliency(
            partial(logits, variables), images, classes
        ),
        "integrated gradients": integrated,
        "Grad-CAM": cam,
        "occlusion": covered,
    }


def attributions(network: classifiers.Trained, images: Array, classes: Array, layer: str) -> dict[str, np.ndarray]:
    """Every attribution of prepared images to their classes, at the size of the images."""
    size = (len(images), *images.shape[1:3])
    return {
        name: np.asarray(jax.image.resize(jax.jit(of)(network.variables, images, classes), size, "bilinear"))
        for name, of in methods(network, layer, images[0]).items()
    }


def deletion(
    network: classifiers.Trained, images: Array, classes: Array, maps: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Mean deletion curves by attribution, and for pixels in random order."""

    @jax.jit
    def curve(variables: Any, scores: Array) -> Array:
        logits = partial(logits_of(network), variables)
        return attribution.deletion(logits, images, classes, scores, fill=images.mean()).mean(0)

    by_chance = np.asarray(jax.random.uniform(jax.random.key(0), images.shape[:3]))
    return {name: np.asarray(curve(network.variables, of)) for name, of in {**maps, "random": by_chance}.items()}


def features(network: classifiers.Trained, source: sources.Source) -> dict[str, np.ndarray]:
    """The pixels and every stage's features of all images of a source, `[N, D]` each."""

    @jax.jit
    def of(variables: Any, images: Array) -> list[Array]:
        images = network.prepare(images)
        named = network.model.apply(variables, images, train=False)[1]
        order[:] = ["pixels", *named]
        return [x.reshape(len(x), -1) if i == 0 else _flat(x) for i, x in enumerate((images, *named.values()))]

    order: list[str] = []
    images = sources.read_all(source)["image"]
    rows = np.arange(-(-len(images) // CHUNK) * CHUNK) % len(images)  # one shape for all calls
    parts = [of(network.variables, images[rows[i : i + CHUNK]]) for i in range(0, len(rows), CHUNK)]
    whole = [np.concatenate([np.asarray(x) for x in stage])[: len(images)] for stage in zip(*parts, strict=True)]
    return dict(zip(order, whole, strict=True))


def nearest_neighbours(known: np.ndarray, labels: np.ndarray, seen: np.ndarray, truth: np.ndarray) -> float:
    """The accuracy of a vote of the nearest neighbours, by Euclidean distance: how far the features alone go."""
    from sklearn.neighbors import KNeighborsClassifier

    return float(KNeighborsClassifier(NEIGHBOURS).fit(known, labels).score(seen, truth))


def _flat(x: Array) -> Array:
    """Features as rows; maps are averaged to 4x4 places first, as a thousand whole ones would fill the memory."""
    if x.ndim == 4 and x.shape[1] > 4:
        x = jax.image.resize(x, (len(x), 4, 4, x.shape[3]), "linear")
    return x.reshape(len(x), -1)


def _stages(network: classifiers.Trained, test: sources.Source) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's features by name, in its order."""
    order: list[tuple[str, tuple[int, ...]]] = []

    def look(variables: Any, images: Array) -> Array:
        logits, named = network.model.apply(variables, network.prepare(images), train=False)
        order.extend((name, value.shape) for name, value in named.items())
        return logits

    jax.eval_shape(look, network.variables, jax.ShapeDtypeStruct((1, *test.shape), jnp.float32))
    return dict(order)


def _one_of_each(labels: np.ndarray, count: int) -> np.ndarray:
    """The first example of each class, then the second of each, and so on: `[count]` indices, or all there are."""
    turn = np.zeros(len(labels), int)
    for label in np.unique(labels):
        turn[labels == label] = np.arange((labels == label).sum())
    return np.lexsort((labels, turn))[:count]


if __name__ == "__main__":
    common.launch(main)
